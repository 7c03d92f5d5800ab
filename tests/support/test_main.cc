// main() of every test executable that talks to the proxy: a test that hangs fails by name.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

namespace sluice::test {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSecondsPerTest = 360;
#else
constexpr unsigned kSecondsPerTest = 120;
#endif

std::array<char, 256> running{};

void OnAlarm(int) {
  constexpr char kSaid[] = "\nhung, so it is killed: ";
  static_cast<void>(!::write(STDERR_FILENO, kSaid, sizeof(kSaid) - 1));
  static_cast<void>(!::write(STDERR_FILENO, running.data(), ::strlen(running.data())));
  static_cast<void>(!::write(STDERR_FILENO, "\n", 1));
  ::abort();
}

class Watchdog : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& info) override {
    const std::string name = std::string(info.test_suite_name()) + "." + info.name();
    running.fill('\0');
    std::copy_n(name.begin(), std::min(name.size(), running.size() - 1), running.begin());
    ::alarm(kSecondsPerTest);
  }

  void OnTestEnd(const testing::TestInfo&) override { ::alarm(0); }
};

}  // namespace
}  // namespace sluice::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGALRM, sluice::test::OnAlarm);
  testing::UnitTest::GetInstance()->listeners().Append(new sluice::test::Watchdog);
  return RUN_ALL_TESTS();
}
