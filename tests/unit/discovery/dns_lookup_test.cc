// Proves one lookup against servers that answer well, badly and not at all: its outcome comes once,
// from the loop, and in time.
#include "proxy/discovery/dns_lookup.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/random.h"

#include "tests/unit/discovery/fake_dns.h"

namespace sluice::discovery {
namespace {

constexpr std::uint16_t kServFail = 2;
constexpr std::uint16_t kNxDomain = 3;
constexpr Millis kPatience{10'000};

using Question = FakeDns::Question;
using Answers = std::vector<std::string>;

class DnsLookupTest : public testing::Test {
 protected:
  FakeDns& Serve(FakeDns::Answer answer) {
    servers_.push_back(std::make_unique<FakeDns>(loop_, std::move(answer)));
    return *servers_.back();
  }

  DnsQuestion Ask(RecordType type = RecordType::kA) const {
    DnsQuestion question;
    question.name = "a.test";
    question.type = type;
    question.port = 9000;
    for (const auto& server : servers_) {
      question.servers.push_back(server->address());
    }
    return question;
  }

  Result<DnsAnswer> LookUp(const DnsQuestion& question) {
    std::optional<Result<DnsAnswer>> outcome;
    int calls = 0;
    {
      DnsLookup lookup(loop_, question, [&](Result<DnsAnswer> got) {
        ++calls;
        outcome = std::move(got);
      });
      EXPECT_FALSE(outcome.has_value());  // from the loop only
      loop_.RunUntil([&] { return outcome.has_value(); }, kPatience);
      loop_.RunUntil([] { return false; }, Millis(1));
    }
    EXPECT_EQ(calls, 1);
    return outcome ? std::move(*outcome) : Result<DnsAnswer>(Err("the lookup told nothing"));
  }

  // "NAME=ADDRESS*WEIGHT ..." or the error.
  std::string TextOf(const DnsQuestion& question) {
    const auto answer = LookUp(question);
    if (!answer) {
      return answer.error().message;
    }
    std::string out;
    for (const Endpoint& one : answer->endpoints) {
      out += (out.empty() ? "" : " ") + one.name + "=" + one.address.Text();
      if (one.weight != 1) {
        out += "*" + std::to_string(one.weight).substr(0, 4);
      }
    }
    return out;
  }

  net::Loop loop_;
  std::vector<std::unique_ptr<FakeDns>> servers_;
};

TEST_F(DnsLookupTest, FindsAddressesInOrder) {
  Serve([](const Question& q) {
    return Answers{AnswerTo(q).AddA(q.name, 7, 0x0A000002).AddA(q.name, 9, 0x0A000001).Bytes()};
  });
  EXPECT_EQ(TextOf(Ask()), "10.0.0.1:9000=10.0.0.1:9000 10.0.0.2:9000=10.0.0.2:9000");
  EXPECT_EQ(LookUp(Ask())->ttl, Millis(7000));
}

TEST_F(DnsLookupTest, FindsAddressesOfVersion6) {
  Serve([](const Question& q) {
    return Answers{
        AnswerTo(q)
            .Add(q.name, kTypeAaaa, 7, std::string("\xFD\x00", 2) + std::string(13, '\0') + '\x07')
            .Bytes()};
  });
  EXPECT_EQ(TextOf(Ask(RecordType::kAaaa)), "[fd00::7]:9000=[fd00::7]:9000");
}

TEST_F(DnsLookupTest, AsksOverTcpWhereTheAnswerIsTruncated) {
  FakeDns& server = Serve([](const Question& q) {
    Message answer = AnswerTo(q);
    if (!q.tcp) {
      answer.flags |= 0x0200;
      return Answers{answer.Bytes()};
    }
    for (std::uint32_t i = 0; i < 2000; ++i) {
      answer.AddA(q.name, 7, 0x0A000000 + i);
    }
    return Answers{answer.Bytes()};
  });
  const auto answer = LookUp(Ask());
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(answer->endpoints.size(), kMostEndpoints);
  EXPECT_EQ(answer->dropped, 2000 - kMostEndpoints);
  EXPECT_TRUE(server.questions().back().tcp);
}

TEST_F(DnsLookupTest, FindsTheTargetsOfSrvRecords) {
  Serve([](const Question& q) {
    Message answer = AnswerTo(q);
    if (q.type == kTypeSrv) {
      answer.AddSrv(q.name, 60, 1, 0, 9002, "two.test")
          .AddSrv(q.name, 60, 1, 30, 9001, "one.test")
          .AddSrv(q.name, 60, 1, 5, 9003, "one.test")
          .AddSrv(q.name, 60, 1, 5, 9004, "six.test")
          .AddSrv(q.name, 60, 1, 5, 9005, "gone.test")
          .AddSrv(q.name, 60, 2, 5, 9006, "later.test");
    } else if (q.name == "one.test" && q.type == kTypeA) {
      answer.AddA(q.name, 20, 0x0A000009).AddA(q.name, 20, 0x0A000001);
    } else if (q.name == "two.test" && q.type == kTypeA) {
      answer.AddA(q.name, 10, 0x0A000002);
    } else if (q.name == "six.test" && q.type == kTypeAaaa) {
      answer.Add(q.name, kTypeAaaa, 30,
                 std::string("\xFD\x00", 2) + std::string(13, '\0') + '\x07');
    } else if (q.name == "later.test" && q.type == kTypeA) {
      answer.AddA(q.name, 20, 0x0A000003);
    } else if (q.name == "gone.test") {
      answer.flags |= kNxDomain;
    }
    return Answers{answer.Bytes()};
  });
  EXPECT_EQ(TextOf(Ask(RecordType::kSrv)),
            "later.test:9006=10.0.0.3:9006*5.00 one.test:9001=10.0.0.1:9001*30.0 "
            "one.test:9003=10.0.0.1:9003*5.00 six.test:9004=[fd00::7]:9004*5.00 "
            "two.test:9002=10.0.0.2:9002*0.10");
  const auto answer = LookUp(Ask(RecordType::kSrv));
  for (const Endpoint& one : answer->endpoints) {
    EXPECT_EQ(one.group, one.name == "later.test:9006" ? 1U : 0U) << one.name;
  }
  EXPECT_EQ(answer->ttl, Millis(10'000));
}

TEST_F(DnsLookupTest, AsksForManyTargetsAFewAtATime) {
  std::size_t asked = 0;
  Serve([&](const Question& q) {
    Message answer = AnswerTo(q);
    if (q.type == kTypeSrv) {
      for (int i = 0; i < 10; ++i) {
        answer.AddSrv(q.name, 60, 1, 1, 9000, "t" + std::to_string(i) + ".test");
      }
      if (!q.tcp) {
        answer = AnswerTo(q);
        answer.flags |= 0x0200;
        return Answers{answer.Bytes()};
      }
      for (int i = 10; i < 300; ++i) {
        answer.AddSrv(q.name, 60, 1, 1, 9000, "t" + std::to_string(i) + ".test");
      }
    } else {
      ++asked;
      answer.AddA(q.name, 20, 0x0A000000 + static_cast<std::uint32_t>(asked));
    }
    return Answers{answer.Bytes()};
  });
  const auto answer = LookUp(Ask(RecordType::kSrv));
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(answer->endpoints.size(), 300U);
  EXPECT_EQ(asked, 300U);
}

// A list without it would drain a backend because a server failed for a moment.
TEST_F(DnsLookupTest, FailsWhenATargetCannotBeLookedUp) {
  Serve([](const Question& q) {
    Message answer = AnswerTo(q, q.name == "two.test" ? kServFail : 0);
    if (q.type == kTypeSrv) {
      answer.AddSrv(q.name, 60, 1, 1, 9001, "one.test").AddSrv(q.name, 60, 1, 1, 9002, "two.test");
    } else if (q.name == "one.test") {
      answer.AddA(q.name, 20, 0x0A000001);
    }
    return Answers{answer.Bytes()};
  });
  EXPECT_EQ(TextOf(Ask(RecordType::kSrv)),
            "\"a.test\" SRV: the target \"two.test\": each server is out of reach or fails "
            "(SERVFAIL, REFUSED)");
}

TEST_F(DnsLookupTest, FailsWhenNoTargetHasAnAddress) {
  Serve([](const Question& q) {
    Message answer = AnswerTo(q);
    if (q.type == kTypeSrv) {
      answer.AddSrv(q.name, 60, 1, 1, 9001, "one.test");
    }
    return Answers{answer.Bytes()};
  });
  EXPECT_EQ(TextOf(Ask(RecordType::kSrv)), "\"a.test\" SRV: no target has an address");
}

TEST_F(DnsLookupTest, SaysWhatFailed) {
  std::uint16_t status = 0;
  Serve([&](const Question& q) { return Answers{AnswerTo(q, status).Bytes()}; });
  EXPECT_EQ(TextOf(Ask()), "\"a.test\" A: there is no such record");
  status = kNxDomain;
  EXPECT_EQ(TextOf(Ask()), "\"a.test\" A: there is no such name");
  status = kServFail;
  EXPECT_EQ(TextOf(Ask()),
            "\"a.test\" A: each server is out of reach or fails (SERVFAIL, REFUSED)");
}

TEST_F(DnsLookupTest, EndsInTimeWhenNobodyAnswers) {
  Serve([](const Question&) { return Answers{}; });
  DnsQuestion question = Ask();
  question.timeout = Millis(200);
  const Instant began = Now();
  EXPECT_EQ(TextOf(question), "\"a.test\" A: no answer in time");
  EXPECT_GE(Now() - began, Millis(100));
  EXPECT_LT(Now() - began, Millis(5000));
}

TEST_F(DnsLookupTest, GoesOnToTheNextServer) {
  Serve([](const Question&) { return Answers{}; });
  Serve([](const Question& q) { return Answers{AnswerTo(q).AddA(q.name, 7, 0x0A000001).Bytes()}; });
  DnsQuestion question = Ask();
  question.timeout = Millis(1000);
  EXPECT_EQ(TextOf(question), "10.0.0.1:9000=10.0.0.1:9000");
}

TEST_F(DnsLookupTest, EndedEarlyItCallsNobody) {
  Serve([](const Question& q) { return Answers{AnswerTo(q).AddA(q.name, 7, 0x0A000001).Bytes()}; });
  bool called = false;
  auto lookup =
      std::make_unique<DnsLookup>(loop_, Ask(), [&](const Result<DnsAnswer>&) { called = true; });
  lookup.reset();
  loop_.RunUntil([&] { return called; }, Millis(50));
  EXPECT_FALSE(called);
}

// An answer that is not to the question is not there; one that is, is, whatever came before it.
TEST_F(DnsLookupTest, TakesTheRightAnswerAmongGarbage) {
  Random random(7);
  Serve([&](const Question& q) {
    Answers out;
    for (int i = 0; i < 20; ++i) {
      std::string noise(random.Next() % 600, '\0');
      for (char& c : noise) {
        c = static_cast<char>(random.Next());
      }
      out.push_back(std::move(noise));
    }
    Message other = AnswerTo(q);
    other.id = static_cast<std::uint16_t>(q.id + 1);
    out.push_back(other.AddA(q.name, 7, 0x0A0000FF).Bytes());
    Message name = AnswerTo(q);
    name.name = "b.test";
    out.push_back(name.AddA("b.test", 7, 0x0A0000FE).Bytes());
    out.push_back(AnswerTo(q).AddA(q.name, 7, 0x0A000001).Bytes());
    return out;
  });
  EXPECT_EQ(TextOf(Ask()), "10.0.0.1:9000=10.0.0.1:9000");
}

TEST_F(DnsLookupTest, SurvivesAnswersThatAreBrokenBehindTheRightHead) {
  Random random(8);
  Serve([&](const Question& q) {
    Message answer = AnswerTo(q);
    for (std::uint64_t i = 0; i < random.Next() % 4; ++i) {
      if (q.type == kTypeSrv) {
        answer.AddSrv(q.name, 1, 0, 0, 9000, "b.test");
      } else {
        answer.AddA(q.name, 1, 0x0A000001);
      }
    }
    const std::size_t head = AnswerTo(q).Bytes().size();
    std::string bytes = answer.Bytes();
    switch (random.Next() % 4) {
      case 0:
        bytes.replace(6, 2, "\xFF\xFF");  // 65,535 records
        break;
      case 1:
        bytes.resize(head + random.Next() % (bytes.size() - head + 1));
        break;
      case 2:
        bytes += std::string(random.Next() % 300, static_cast<char>(0xC0));
        break;
      default:
        for (std::size_t i = head; i < bytes.size(); ++i) {
          bytes[i] = static_cast<char>(random.Next());
        }
    }
    return Answers{bytes};
  });
  for (int round = 0; round < 300; ++round) {
    DnsQuestion question = Ask(round % 2 == 0 ? RecordType::kA : RecordType::kSrv);
    question.timeout = Millis(100);
    const auto outcome = LookUp(question);
    EXPECT_TRUE(outcome ? !outcome->endpoints.empty() : !outcome.error().message.empty());
  }
}

}  // namespace
}  // namespace sluice::discovery
