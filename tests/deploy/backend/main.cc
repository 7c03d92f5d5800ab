// The backend of the deploy tests: WebSocket in one thread. Prints its port once it serves.
//
//   deploy_backend --port N [--name X] [--rate R] [--after-close 2] [--size 32] [--report FILE]
//
// A client asks for /...?uid=U&n=I: who it is and how often it has come; with &echo=1 it is sent a
// message for each of its own instead of R a second. Each session leaves a line of JSON in FILE
// when it ends; SIGUSR1 writes one for each open session ("ended": "open"), SIGUSR2 resets all
// connections ("cut"), SIGTERM writes one for each ("exit") and ends the program with 0. Several
// backends may share a file.
#include <fcntl.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "tests/deploy/backend/session.h"
#include "tests/deploy/decimal.h"
#include "tests/deploy/signals.h"

namespace sluice::deploy {
namespace {

UniqueFd ListenOn(std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int one = 1;
  // A backend that starts again takes the port of the one before.
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  sockaddr_in address = bench::Loopback(port);
  socklen_t size = sizeof(address);
  if (!fd.valid() ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(fd.get(), 4096) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    bench::DieErrno("listen on port " + std::to_string(port));
  }
  std::printf("%u\n", static_cast<unsigned>(ntohs(address.sin_port)));
  std::fflush(stdout);
  return fd;
}

class Backend : public Participant, public SessionOwner {
 public:
  Backend(EventLoop& loop, Options options, std::uint16_t port)
      : loop_(loop), options_(std::move(options)) {
    if (!options_.report.empty()) {
      report_ = UniqueFd(
          ::open(options_.report.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
      if (!report_.valid()) {
        bench::DieErrno("open " + options_.report);
      }
    }
    listener_ = ListenOn(port);
    loop_.Add(listener_.get(), EPOLLIN, *this);
  }

  void OnEvent(std::uint32_t /*events*/) override {
    for (UniqueFd fd = bench::Accept(listener_.get()); fd.valid();
         fd = bench::Accept(listener_.get())) {
      auto session = std::make_unique<Session>(loop_, options_, *this, std::move(fd));
      Session* const key = session.get();
      sessions_.emplace(key, std::move(session));
    }
  }

  void OnTimer() override {}

  void OnEnd(Session& session) override {
    Report(session.Line(session.ended()));
    ended_.push_back(&session);
  }

  void BuryEnded() {
    for (Session* session : ended_) {
      sessions_.erase(session);
    }
    ended_.clear();
  }

  void CutAll() {
    for (const auto& [key, session] : sessions_) {
      session->Cut();
    }
  }

  void ReportAll(const char* ended) const {
    for (const auto& [key, session] : sessions_) {
      Report(session->Line(ended));
    }
  }

 private:
  // In one write each: the lines of backends that share a file do not mix.
  void Report(const std::string& line) const {
    if (report_.valid() &&
        ::write(report_.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
      bench::DieErrno("write to " + options_.report);
    }
  }

  EventLoop& loop_;
  Options options_;
  UniqueFd report_;
  UniqueFd listener_;
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  std::vector<Session*> ended_;
};

int Run(int argc, char** argv) {
  Options options;
  std::string port;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) {
      bench::Die(name + " lacks its value");
    }
    const std::string value = argv[i + 1];
    if (name == "--port") {
      port = value;
    } else if (name == "--name") {
      options.name = value.substr(0, 64);
    } else if (name == "--rate") {
      options.rate = Decimal(value);
    } else if (name == "--after-close") {
      options.after_close = bench::Number(value);
    } else if (name == "--size") {
      options.size = bench::Number(value);
    } else if (name == "--report") {
      options.report = value;
    } else {
      bench::Die("there is no option " + name);
    }
  }
  if (port.empty()) {
    bench::Die("--port is missing");
  }
  if (options.size < kNumberedSize || options.size > kMaxMessage) {
    bench::Die("--size is 32 to 65536");
  }
  bench::RaiseFdLimit();
  EventLoop loop;
  Signals signals(loop, {SIGTERM, SIGINT, SIGUSR1, SIGUSR2});
  Backend backend(loop, options, bench::PortNumber(port));
  for (;;) {
    loop.Turn();
    backend.BuryEnded();
    const int signal = signals.Take();
    if (signal == SIGUSR1) {
      backend.ReportAll("open");
    } else if (signal == SIGUSR2) {
      backend.CutAll();
    } else if (signal != 0) {
      backend.ReportAll("exit");
      return 0;
    }
  }
}

}  // namespace
}  // namespace sluice::deploy

int main(int argc, char** argv) {
  return sluice::deploy::Run(argc, argv);
}
