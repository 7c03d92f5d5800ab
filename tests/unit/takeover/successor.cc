// A new process for spawn_test.cc: takes over what it is offered, answers one client, and ends with
// status 0 when the old process has ended. With --path it only prints ExecutablePath(), with
// --path-when-removed after it has removed its own file.
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <string>

#include "proxy/takeover/spawn.h"
#include "proxy/takeover/taker.h"

#include "tests/unit/takeover/sockets.h"

namespace sluice::takeover {
namespace {

int TakeOver() {
  const Instant deadline = Now() + test::kPatience;
  auto taker = Taker::FromEnvironment();
  if (!taker || !*taker) {
    return 10;
  }
  auto offer = (*taker)->Receive("new", deadline);
  if (!offer || offer->sockets.size() != 1) {
    return 11;
  }
  if (!(*taker)->SayReady(deadline)) {
    return 12;
  }
  const int listening = offer->sockets[0].fd.get();
  if (!BecomesReadable(listening)) {
    return 13;
  }
  UniqueFd client(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
  if (::send(client.get(), "new", 3, MSG_NOSIGNAL) != 3) {
    return 14;
  }
  client.Reset();
  const UniqueFd connection = (*taker)->TakeConnection();
  return ReadAll(connection.get()).empty() ? 0 : 15;
}

}  // namespace
}  // namespace sluice::takeover

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "--path-when-removed") {
    ::unlink(argv[2]);
  }
  if (!mode.empty()) {
    std::cout << sluice::takeover::ExecutablePath();
    return 0;
  }
  return sluice::takeover::TakeOver();
}
