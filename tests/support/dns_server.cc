#include "tests/support/dns_server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <utility>

namespace sluice::test {
namespace {

// Free for UDP and TCP a moment ago; 0 when it is not for both.
std::uint16_t FreePort() {
  const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const UniqueFd tcp(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  const bool free = ::bind(tcp.get(), raw, size) == 0 &&
                    ::getsockname(tcp.get(), raw, &size) == 0 && ::bind(udp.get(), raw, size) == 0;
  return free ? ntohs(address.sin_port) : std::uint16_t{0};
}

}  // namespace

DnsServer::DnsServer(const std::vector<Host>& hosts, const std::vector<Service>& services) {
  WriteHosts(hosts);
  for (int attempt = 0; attempt < 10; ++attempt) {
    port_ = FreePort();
    if (port_ != 0 && TryStart(services)) {
      return;
    }
  }
  throw Failure("dnsmasq does not start: " + logged_);
}

DnsServer::~DnsServer() {
  Kill();
}

void DnsServer::WriteHosts(const std::vector<Host>& hosts) const {
  std::string text;
  for (const Host& host : hosts) {
    text += host.address + " " + host.name + "\n";
  }
  dir_.Write("hosts", text);
}

void DnsServer::SetHosts(const std::vector<Host>& hosts) {
  WriteHosts(hosts);
  if (pid_ <= 0) {
    return;
  }
  Signal(SIGHUP);
  if (!AwaitLog("read " + dir_.path() + "/hosts")) {
    throw Failure("dnsmasq does not read its hosts anew: " + logged_);
  }
}

// Never to everybody, which is what kill(2) takes -1 for.
void DnsServer::Signal(int number) const {
  if (pid_ <= 0) {
    throw Failure("dnsmasq does not run");
  }
  ::kill(pid_, number);
}

void DnsServer::Stop() const {
  Signal(SIGSTOP);
  int status = 0;
  if (::waitpid(pid_, &status, WUNTRACED) != pid_ || !WIFSTOPPED(status)) {
    throw Failure("dnsmasq does not stop");
  }
}

void DnsServer::Continue() const {
  Signal(SIGCONT);
}

void DnsServer::Kill() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

void DnsServer::Start(const std::vector<Service>& services) {
  if (!TryStart(services)) {
    throw Failure("dnsmasq does not start again: " + logged_);
  }
}

bool DnsServer::TryStart(const std::vector<Service>& services) {
  std::vector<std::string> texts{"dnsmasq",
                                 "--keep-in-foreground",
                                 "--conf-file=/dev/null",
                                 "--pid-file=",
                                 "--log-facility=-",
                                 "--no-resolv",
                                 "--no-hosts",
                                 "--local=/test/",
                                 "--local-ttl=1",
                                 "--bind-interfaces",
                                 "--listen-address=127.0.0.1",
                                 "--port=" + std::to_string(port_),
                                 "--addn-hosts=" + dir_.path() + "/hosts"};
  if (::geteuid() == 0) {
    texts.emplace_back("--user=root");  // the folder is ours alone
  }
  for (const Service& one : services) {
    texts.push_back("--srv-host=" + one.name + "," + one.target + "," + std::to_string(one.port) +
                    "," + std::to_string(one.priority) + "," + std::to_string(one.weight));
  }
  std::vector<char*> argv;
  for (std::string& text : texts) {
    argv.push_back(text.data());
  }
  argv.push_back(nullptr);
  std::array<int, 2> log{};
  if (::pipe2(log.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    throw Failure("no pipe");
  }
  log_ = UniqueFd(log[0]);
  const UniqueFd write_end(log[1]);
  logged_.clear();
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) {
      ::_exit(127);
    }
    ::dup2(log[1], STDERR_FILENO);
    // Not always in the path of a user.
    ::execv("/usr/sbin/dnsmasq", argv.data());
    ::_exit(127);
  }
  if (pid_ < 0) {
    throw Failure("cannot fork");
  }
  if (AwaitLog("read " + dir_.path() + "/hosts")) {
    return true;
  }
  Kill();
  return false;
}

// False when it ends, or says nothing of the kind in time.
bool DnsServer::AwaitLog(std::string_view text) {
  const Deadline deadline;
  for (;;) {
    if (const std::size_t found = logged_.find(text); found != std::string::npos) {
      logged_.erase(0, found + text.size());
      return true;
    }
    pollfd one{log_.get(), POLLIN, 0};
    std::array<char, 4096> buffer{};
    if (::poll(&one, 1, deadline.poll_ms()) == 0) {
      return false;
    }
    const ssize_t got = ::read(log_.get(), buffer.data(), buffer.size());
    if (got == 0) {
      return false;
    }
    logged_.append(buffer.data(), static_cast<std::size_t>(got > 0 ? got : 0));
  }
}

}  // namespace sluice::test
