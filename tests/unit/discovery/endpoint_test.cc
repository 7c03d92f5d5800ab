// Proves that a list of endpoints is the same however its answer was ordered, and bounded.
#include "proxy/discovery/endpoint.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sluice::discovery {
namespace {

std::vector<Endpoint> Named(const std::vector<std::string>& names) {
  std::vector<Endpoint> out;
  for (const std::string& name : names) {
    out.push_back({name, {}, 1});
  }
  return out;
}

std::vector<std::string> Names(const std::vector<Endpoint>& endpoints) {
  std::vector<std::string> out;
  for (const Endpoint& one : endpoints) {
    out.push_back(one.name);
  }
  return out;
}

TEST(Endpoint, OrderAndRepetitionMakeNoDifference) {
  std::vector<Endpoint> one = Named({"b:1", "a:1", "c:1", "a:1"});
  std::vector<Endpoint> other = Named({"c:1", "c:1", "b:1", "a:1"});
  EXPECT_EQ(Tidy(one), 0U);
  EXPECT_EQ(Tidy(other), 0U);
  EXPECT_EQ(Names(one), (std::vector<std::string>{"a:1", "b:1", "c:1"}));
  EXPECT_EQ(Names(one), Names(other));
}

TEST(Endpoint, OfTwoOfOneNameTheFirstStays) {
  std::vector<Endpoint> endpoints = Named({"a:1", "a:1"});
  endpoints[0].weight = 7;
  Tidy(endpoints);
  ASSERT_EQ(endpoints.size(), 1U);
  EXPECT_EQ(endpoints[0].weight, 7);
}

TEST(Endpoint, TakesAsManyAsAreAllowedAndTheSameEachTime) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < kMostEndpoints + 10; ++i) {
    names.push_back("b" + std::to_string(i) + ":1");
  }
  std::vector<Endpoint> forwards = Named(names);
  std::reverse(names.begin(), names.end());
  std::vector<Endpoint> backwards = Named(names);
  EXPECT_EQ(Tidy(forwards), 10U);
  EXPECT_EQ(Tidy(backwards), 10U);
  EXPECT_EQ(forwards.size(), kMostEndpoints);
  EXPECT_EQ(Names(forwards), Names(backwards));
}

}  // namespace
}  // namespace sluice::discovery
