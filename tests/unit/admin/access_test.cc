// Proves who may use the admin interface: nobody without the token where there is one, no page of
// another site, and without a token nobody who came by a name that is not a loopback one.
#include "proxy/admin/access.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/http/parser.h"

namespace sluice::admin {
namespace {

constexpr int kMayPass = 0;

struct Case {
  const char* name;
  std::string token;
  std::string fields;  // whole lines
  int status;
};

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

class Access : public testing::TestWithParam<Case> {};

// A probe in HTTP/1.0: no browser leaves the Host out.
TEST(AccessWithoutHost, MayPass) {
  const std::string text =
      "GET /metrics HTTP/1.0\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";
  http::RequestParser parser;
  ASSERT_EQ(parser.Parse(text), ParseStatus::kDone);
  EXPECT_FALSE(RefuseAccess({}, parser.head()).has_value());
  EXPECT_EQ(RefuseAccess({"fedcba9876543210"}, parser.head())->status, 401);
  EXPECT_FALSE(RefuseAccess({"0123456789abcdef"}, parser.head()).has_value());
}

TEST_P(Access, IsDecidedFromTheHead) {
  const Case& test = GetParam();
  const std::string text = "POST /drain HTTP/1.1\r\n" + test.fields + "\r\n";
  http::RequestParser parser;
  ASSERT_EQ(parser.Parse(text), ParseStatus::kDone) << parser.fault().reason;
  const auto problem = RefuseAccess({test.token}, parser.head());
  EXPECT_EQ(problem ? problem->status : kMayPass, test.status);
  if (problem && !test.token.empty()) {
    EXPECT_EQ(problem->detail.find(test.token), std::string::npos);
  }
}

const std::string kToken = "0123456789abcdef0123456789abcdef";
const std::string kLocal = "Host: 127.0.0.1:9900\r\n";
const std::string kFar = "Host: sluice.example.com:9900\r\n";
const std::string kGood = "Authorization: Bearer " + kToken + "\r\n";

INSTANTIATE_TEST_SUITE_P(
    WithoutToken, Access,
    testing::Values(Case{"Loopback", "", kLocal, kMayPass},
                    Case{"LoopbackWithoutPort", "", "Host: 127.0.0.1\r\n", kMayPass},
                    Case{"AnyLoopback", "", "Host: 127.8.9.1:1\r\n", kMayPass},
                    Case{"LoopbackV6", "", "Host: [::1]:9900\r\n", kMayPass},
                    Case{"LoopbackV6Long", "", "Host: [0:0:0:0:0:0:0:1]\r\n", kMayPass},
                    Case{"Localhost", "", "Host: LocalHost:9900\r\n", kMayPass},
                    Case{"ReboundName", "", kFar, 403},
                    Case{"NameThatBeginsLikeLocalhost", "", "Host: localhost.example.com\r\n", 403},
                    Case{"NameThatEndsLikeLocalhost", "", "Host: example.localhost\r\n", 403},
                    Case{"NameThatBeginsLikeLoopback", "", "Host: 127.0.0.1.example.com:9900\r\n",
                         403},
                    Case{"NameWithDotAtItsEnd", "", "Host: sluice.\r\n", 403},
                    Case{"AlmostAnAddress", "", "Host: 127.0.0.1.:9900\r\n", 403},
                    Case{"NameOfTheOwnNetwork", "", "Host: sluice:9900\r\n", kMayPass},
                    Case{"OtherAddress", "", "Host: 10.0.0.1:9900\r\n", kMayPass},
                    Case{"OtherAddressV6", "", "Host: [2001:db8::1]:9900\r\n", kMayPass},
                    Case{"TokenThatNobodyWants", "", kLocal + kGood, kMayPass}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    WithToken, Access,
    testing::Values(
        Case{"Given", kToken, kFar + kGood, kMayPass},
        Case{"GivenLocally", kToken, kLocal + kGood, kMayPass},
        Case{"SchemeHasNoCase", kToken, kFar + "Authorization: bEARER " + kToken + "\r\n",
             kMayPass},
        Case{"MoreSpaces", kToken, kFar + "Authorization: Bearer   " + kToken + " \r\n", kMayPass},
        Case{"NotGiven", kToken, kFar, 401}, Case{"NotGivenLocally", kToken, kLocal, 401},
        Case{"Empty", kToken, kFar + "Authorization: \r\n", 401},
        Case{"EmptyToken", kToken, kFar + "Authorization: Bearer \r\n", 401},
        Case{"Wrong", kToken, kFar + "Authorization: Bearer 1123456789abcdef0123456789abcdef\r\n",
             401},
        Case{"Prefix", kToken, kFar + "Authorization: Bearer 0123456789abcdef\r\n", 401},
        Case{"Longer", kToken, kFar + "Authorization: Bearer " + kToken + "0\r\n", 401},
        Case{"OtherCase", kToken,
             kFar + "Authorization: Bearer 0123456789ABCDEF0123456789abcdef\r\n", 401},
        Case{"OtherScheme", kToken, kFar + "Authorization: Basic " + kToken + "\r\n", 401},
        Case{"NoScheme", kToken, kFar + "Authorization: " + kToken + "\r\n", 401},
        Case{"NoSpace", kToken, kFar + "Authorization: Bearer" + kToken + "\r\n", 401},
        Case{"Twice", kToken, kFar + kGood + kGood, 401},
        Case{"WrongBeforeRight", kToken, kFar + "Authorization: Bearer x\r\n" + kGood, 401}),
    CaseName);

INSTANTIATE_TEST_SUITE_P(
    FromABrowser, Access,
    testing::Values(
        Case{"SameOrigin", "", kLocal + "Sec-Fetch-Site: same-origin\r\n", kMayPass},
        Case{"TypedByTheUser", "", kLocal + "Sec-Fetch-Site: none\r\n", kMayPass},
        Case{"CrossSite", "", kLocal + "Sec-Fetch-Site: cross-site\r\n", 403},
        Case{"SameSite", "", kLocal + "Sec-Fetch-Site: same-site\r\n", 403},
        Case{"EmptySite", "", kLocal + "Sec-Fetch-Site: \r\n", 403},
        Case{"TwoSites", "",
             kLocal + "Sec-Fetch-Site: same-origin\r\nsec-fetch-site: cross-site\r\n", 403},
        Case{"OwnOrigin", "", kLocal + "Origin: http://127.0.0.1:9900\r\n", kMayPass},
        Case{"OwnOriginInOtherCase", "",
             "Host: localhost:9900\r\nOrigin: http://LOCALHOST:9900\r\n", kMayPass},
        Case{"OriginOnAnotherPort", "", kLocal + "Origin: http://127.0.0.1:8080\r\n", 403},
        Case{"OriginWithoutPort", "", kLocal + "Origin: http://127.0.0.1\r\n", 403},
        Case{"OtherOrigin", "", kLocal + "Origin: https://evil.example\r\n", 403},
        Case{"OriginThatOnlyEndsRight", "", kLocal + "Origin: http://evil.127.0.0.1:9900\r\n", 403},
        Case{"NullOrigin", "", kLocal + "Origin: null\r\n", 403},
        Case{"EmptyOrigin", "", kLocal + "Origin: \r\n", 403},
        Case{"TwoOrigins", "",
             kLocal + "Origin: http://127.0.0.1:9900\r\nOrigin: https://evil.example\r\n", 403},
        Case{"CrossSiteWithToken", kToken, kFar + kGood + "Sec-Fetch-Site: cross-site\r\n", 403},
        Case{"OtherOriginWithToken", kToken, kFar + kGood + "Origin: https://evil.example\r\n",
             403},
        Case{"OwnOriginWithToken", kToken,
             kFar + kGood + "Origin: https://sluice.example.com:9900\r\n", kMayPass}),
    CaseName);

}  // namespace
}  // namespace sluice::admin
