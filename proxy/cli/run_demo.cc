#include "proxy/cli/run_demo.h"

#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <thread>
#include <vector>

#include "proxy/base/blocked_signals.h"
#include "proxy/cli/exit_status.h"
#include "proxy/config/load.h"
#include "proxy/demo/echo_server.h"
#include "proxy/log/log.h"
#include "proxy/net/loop.h"
#include "proxy/net/socket.h"
#include "proxy/server/server.h"
#include "proxy/tls/self_signed.h"

namespace sluice::cli {
namespace {

constexpr int kBackends = 3;
constexpr int kCertificateDays = 7;

// A folder that is removed with what the demo put into it.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = "/tmp/sluice-demo-XXXXXX";
    if (::mkdtemp(pattern.data()) != nullptr) {  // made with mode 0700
      path_ = pattern;
    }
  }
  ~ScratchFolder() {
    for (const std::string& file : files_) {
      ::unlink(file.c_str());
    }
    if (!path_.empty()) {
      ::rmdir(path_.c_str());
    }
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  // The path of the new file, or empty when it cannot be written.
  [[nodiscard]] std::string Write(const std::string& name, const std::string& text) {
    if (path_.empty()) {
      return {};
    }
    const std::string file = path_ + "/" + name;
    files_.push_back(file);
    std::ofstream out(file);
    out << text;
    out.close();
    return out ? file : std::string();
  }

 private:
  std::string path_;
  std::vector<std::string> files_;
};

// Echo backends on one loop in a thread of their own.
class Backends {
 public:
  [[nodiscard]] Result<void> Bind(int count) {
    for (int i = 1; i <= count; ++i) {
      const auto address = net::Address::FromNumeric("127.0.0.1", 0);
      auto fd = net::Listen(*address);
      if (!fd) {
        return tl::unexpected(fd.error());
      }
      addresses_.push_back(net::Address::OfSocket(fd->get()));
      servers_.push_back(
          std::make_unique<demo::EchoServer>(loop_, "demo-" + std::to_string(i), std::move(*fd)));
    }
    return {};
  }

  void Start() {
    const BlockedSignals blocked;  // they are the control thread's
    thread_ = std::thread([this] { loop_.Run(); });
  }

  ~Backends() {
    if (thread_.joinable()) {
      loop_.Post([this] { loop_.Stop(); });
      thread_.join();
    }
  }

  [[nodiscard]] const std::vector<net::Address>& addresses() const noexcept { return addresses_; }

 private:
  net::Loop loop_;
  std::vector<std::unique_ptr<demo::EchoServer>> servers_;
  std::vector<net::Address> addresses_;
  std::thread thread_;
};

// The configuration as text, so that the demo goes the way of every configuration.
std::string ConfigText(const DemoOptions& options, const std::vector<net::Address>& backends,
                       const std::string& chain, const std::string& key) {
  std::string text;
  text += "[[listener]]\nname = \"http\"\naddress = \"" + options.http + "\"\n";
  text += "[[listener]]\nname = \"https\"\naddress = \"" + options.https + "\"\n";
  text += "tls.certificates = [{ chain = \"" + chain + "\", key = \"" + key + "\" }]\n";
  text += "[[route]]\nname = \"demo\"\npath = \"/\"\npool = \"demo\"\n";
  text += "affinity_cookie = \"sluice_demo\"\n";
  text += "[pool.demo]\nbackends = [\n";
  for (std::size_t i = 0; i < backends.size(); ++i) {
    text += "  { name = \"demo-" + std::to_string(i + 1) + "\", address = \"" + backends[i].Text() +
            "\" },\n";
  }
  text += "]\n[drain]\nwindow = \"" + options.window + "\"\n";
  text += "[admin]\naddress = \"" + options.admin + "\"\n[log]\naccess = \"text\"\n";
  return text;
}

void PrintWelcome(const server::Server& server) {
  std::string http;
  std::string https;
  for (const server::Bound& bound : server.listeners()) {
    (bound.tls ? https : http) = bound.address.Text();
  }
  std::cout << "\n  Sluice demo: three echo backends behind one proxy\n\n"
            << "    page          http://" << http << "/\n"
            << "    page, TLS     https://" << https << "/   (certificate made just now)\n";
  if (server.admin_address().family() != AF_UNSPEC) {
    std::cout << "    metrics       http://" << server.admin_address().Text() << "/metrics\n";
  }
  std::cout << "    command line  npx wscat -c ws://" << http << "/ws\n\n"
            << "  Ctrl-C drains: every client gets a CLOSE with code 1012; twice ends at once.\n\n"
            << std::flush;
}

}  // namespace

Result<net::Address> ParseAddress(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) {
    return Err("\"" + text + "\" has no port; write it as 127.0.0.1:8080");
  }
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
  if (error != std::errc() || stop != end) {
    return Err("\"" + text + "\" has no valid port; write it as 127.0.0.1:8080");
  }
  return net::Address::FromNumeric(host, port);
}

int RunDemo(const DemoOptions& options) {
  log::Setup(log::Level::kInfo);
  ScratchFolder scratch;
  const auto pair = tls::MakeSelfSigned({"localhost", "sluice.localhost"}, kCertificateDays);
  if (!pair) {
    std::cerr << pair.error().message << '\n';
    return kFailed;
  }
  const std::string chain = scratch.Write("demo.pem", pair->chain);
  const std::string key = scratch.Write("demo.key", pair->key);
  if (chain.empty() || key.empty()) {
    std::cerr << "cannot write the demo certificate to a folder in /tmp\n";
    return kFailed;
  }
  Backends backends;
  if (auto bound = backends.Bind(kBackends); !bound) {
    std::cerr << bound.error().message << '\n';
    return kFailed;
  }
  const config::LoadResult loaded =
      config::LoadText(ConfigText(options, backends.addresses(), chain, key), "demo options", "/");
  if (!loaded.ok()) {
    for (const config::Mistake& mistake : loaded.mistakes) {
      std::cerr << mistake.key << ": " << mistake.what << '\n';
    }
    return kUsage;
  }
  auto server = server::Server::Make(loaded.config, {});
  if (!server) {
    std::cerr << server.error().message << "; choose others with --http, --https and --admin\n";
    return kConfig;
  }
  backends.Start();
  PrintWelcome(**server);
  if (auto ran = (*server)->Run(); !ran) {
    std::cerr << ran.error().message << '\n';
    return kFailed;
  }
  return kDone;
}

namespace {

// Ends `sluice echo` in order on a signal.
class StopOnSignal {
 public:
  StopOnSignal(net::Loop& loop, demo::EchoServer& server) : loop_(loop), server_(server) {
    term_.Add<&StopOnSignal::OnSignal>(loop.base(), SIGTERM, EV_SIGNAL | EV_PERSIST, this);
    int_.Add<&StopOnSignal::OnSignal>(loop.base(), SIGINT, EV_SIGNAL | EV_PERSIST, this);
  }

 private:
  void OnSignal(short) noexcept {
    if (stopping_) {
      loop_.Stop();  // a second signal: at once
      return;
    }
    stopping_ = true;
    server_.Drain([this] { loop_.Stop(); });
  }

  net::Loop& loop_;
  demo::EchoServer& server_;
  net::Event term_;
  net::Event int_;
  bool stopping_ = false;
};

}  // namespace

int RunEcho(const EchoOptions& options) {
  log::Setup(log::Level::kInfo);
  if (!demo::IsEchoName(options.name)) {
    std::cerr << "--name: \"" << options.name
              << "\" is not 1 to 64 letters, digits, '-', '.' or '_'\n";
    return kUsage;
  }
  const auto address = ParseAddress(options.listen);
  if (!address) {
    std::cerr << "--listen: " << address.error().message << '\n';
    return kUsage;
  }
  if (auto free = net::CheckFree(*address); !free) {
    std::cerr << free.error().message << '\n';
    return kConfig;
  }
  auto fd = net::Listen(*address);
  if (!fd) {
    std::cerr << fd.error().message << '\n';
    return kConfig;
  }
  net::Loop loop;
  spdlog::info("echo backend name={} address={}", options.name,
               net::Address::OfSocket(fd->get()).Text());
  demo::EchoServer echo(loop, options.name, std::move(*fd));
  const StopOnSignal stop(loop, echo);
  loop.Run();
  return kDone;
}

}  // namespace sluice::cli
