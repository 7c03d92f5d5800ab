// The command line: reads it and starts a subcommand. cli/exit_status.h says what is returned.
#include <csignal>
#include <ctime>
#include <exception>
#include <iostream>
#include <string>

#include <CLI/CLI.hpp>

#include "proxy/admin/probe.h"
#include "proxy/cli/exit_status.h"
#include "proxy/cli/run_demo.h"
#include "proxy/config/load.h"
#include "proxy/log/log.h"
#include "proxy/server/server.h"

namespace sluice {
namespace {

constexpr const char* kDefaultConfig = "/etc/sluice/sluice.toml";

log::Level LevelOf(config::LogLevel level) {
  switch (level) {
    case config::LogLevel::kDebug:
      return log::Level::kDebug;
    case config::LogLevel::kInfo:
      return log::Level::kInfo;
    case config::LogLevel::kWarn:
      return log::Level::kWarn;
    case config::LogLevel::kError:
      return log::Level::kError;
  }
  return log::Level::kInfo;
}

// Adds what is wrong with the certificates that the configuration names.
void CheckCertificates(const std::string& path, config::LoadResult& loaded) {
  const tls::TicketKeys keys;
  for (std::size_t i = 0; i < loaded.config.listeners.size(); ++i) {
    const config::Listener& listener = loaded.config.listeners[i];
    if (!listener.is_tls()) {
      continue;
    }
    const std::string where = path + ":" + std::to_string(listener.tls.line);
    const std::string key = "listener[" + std::to_string(i) + "].tls.certificates";
    const auto context = tls::ServerContext::Make(server::TlsOptions(listener), keys);
    if (!context) {
      loaded.mistakes.push_back({where, key, context.error().message});
      continue;
    }
    for (const tls::CertificateInfo& info : (*context)->certificates()) {
      if (info.not_after < std::time(nullptr)) {
        loaded.warnings.push_back(
            {where, key, "the certificate for " + info.name + " has expired"});
      }
    }
  }
}

// Loads the file and looks into its certificates. Prints every mistake and warning.
bool LoadAndCheck(const std::string& path, config::Config& config) {
  config::LoadResult loaded = config::LoadFile(path);
  if (loaded.ok()) {
    CheckCertificates(path, loaded);
  }
  for (const config::Mistake& warning : loaded.warnings) {
    std::cerr << "warning: " << warning.Text() << '\n';
  }
  for (const config::Mistake& mistake : loaded.mistakes) {
    std::cerr << mistake.Text() << '\n';
  }
  config = std::move(loaded.config);
  return loaded.mistakes.empty();
}

int Check(const std::string& path) {
  config::Config config;
  if (!LoadAndCheck(path, config)) {
    return cli::kConfig;
  }
  std::cout << path << ": ok, " << config.listeners.size() << " listener(s), "
            << config.routes.size() << " route(s), " << config.pools.size() << " pool(s)\n";
  return cli::kDone;
}

int Run(const std::string& path) {
  config::Config config;
  if (!LoadAndCheck(path, config)) {
    return cli::kConfig;
  }
  log::Setup(LevelOf(config.log.level));
  auto server = server::Server::Make(config);
  if (!server) {
    std::cerr << path << ": " << server.error().message << '\n';
    return cli::kConfig;
  }
  (*server)->Run();
  return cli::kDone;
}

int HealthCheck(const std::string& admin, const std::string& path) {
  std::string host = "127.0.0.1";
  std::uint16_t port = 9900;
  if (!path.empty()) {
    const config::LoadResult loaded = config::LoadFile(path);
    if (!loaded.ok()) {
      std::cerr << loaded.mistakes.front().Text() << '\n';
      return cli::kConfig;
    }
    if (!loaded.config.admin.enabled) {
      std::cerr << path << ": the admin listener is off, so there is nothing to ask\n";
      return cli::kConfig;
    }
    host = loaded.config.admin.host;
    port = loaded.config.admin.port;
  }
  auto address = net::Address::FromNumeric(host, port);
  if (!admin.empty()) {
    address = cli::ParseAddress(admin);
  }
  if (!address) {
    std::cerr << "--admin: " << address.error().message << '\n';
    return cli::kUsage;
  }
  const auto status = admin::ProbeStatus(*address, "/readyz", Millis(3'000));
  if (!status) {
    std::cerr << status.error().message << '\n';
    return cli::kFailed;
  }
  std::cout << (*status == 200 ? "ready" : "not ready") << '\n';
  return *status == 200 ? cli::kDone : cli::kFailed;
}

int Main(int argc, char** argv) {
  CLI::App app("Sluice: a WebSocket-aware reverse proxy and load balancer", "sluice");
  app.set_version_flag("-v,--version", "sluice " + std::string(server::kVersion));
  app.require_subcommand(1);

  std::string path = kDefaultConfig;
  CLI::App* run = app.add_subcommand("run", "Serve until SIGTERM");
  run->add_option("-c,--config", path, "Configuration file")->capture_default_str();

  CLI::App* check = app.add_subcommand("check", "Check a configuration file without serving");
  check->add_option("-c,--config,file", path, "Configuration file")->capture_default_str();

  cli::DemoOptions demo_options;
  CLI::App* demo_command =
      app.add_subcommand("demo", "Try Sluice in front of embedded echo backends");
  demo_command->add_option("--http", demo_options.http, "Address of the plain listener")
      ->capture_default_str();
  demo_command->add_option("--https", demo_options.https, "Address of the TLS listener")
      ->capture_default_str();
  demo_command->add_option("--admin", demo_options.admin, "Address of the admin listener")
      ->capture_default_str();
  demo_command->add_option("--window", demo_options.window, "Drain window, e.g. 5s")
      ->capture_default_str();

  cli::EchoOptions echo_options;
  CLI::App* echo = app.add_subcommand("echo", "Run one WebSocket echo backend");
  echo->add_option("--listen", echo_options.listen, "Address to listen on")->capture_default_str();
  echo->add_option("--name", echo_options.name, "Name it answers with")->capture_default_str();

  std::string admin;
  std::string health_config;
  CLI::App* health = app.add_subcommand("healthcheck", "Ask a running Sluice whether it is ready");
  auto* admin_option = health->add_option("--admin", admin, "Admin address, e.g. 127.0.0.1:9900");
  health->add_option("-c,--config", health_config, "Take the admin address from this file")
      ->excludes(admin_option);

  CLI::App* version = app.add_subcommand("version", "Print the version");

  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    // CLI11 says only that a subcommand is missing when it is misspelled.
    if (argc > 1 && app.get_subcommands().empty()) {
      std::cerr << "\"" << argv[1]
                << "\" is neither a subcommand nor a flag; there are run, check, "
                << "demo, echo, healthcheck and version\n";
      return cli::kUsage;
    }
    app.exit(error);
    return cli::kUsage;
  } catch (const CLI::ParseError& error) {
    // CLI11 answers --help and --version this way too; those succeed.
    return app.exit(error) == cli::kDone ? cli::kDone : cli::kUsage;
  }
  std::signal(SIGPIPE, SIG_IGN);  // a peer or a log reader that left is an errno, not a signal

  if (run->parsed()) {
    return Run(path);
  }
  if (check->parsed()) {
    return Check(path);
  }
  if (demo_command->parsed()) {
    return cli::RunDemo(demo_options);
  }
  if (echo->parsed()) {
    return cli::RunEcho(echo_options);
  }
  if (health->parsed()) {
    return HealthCheck(admin, health_config);
  }
  if (version->parsed()) {
    std::cout << "sluice " << server::kVersion << '\n';
  }
  return cli::kDone;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  try {
    return sluice::Main(argc, argv);
  } catch (const std::exception& error) {
    // Start-up only: nothing throws once the server runs.
    std::cerr << "sluice: " << error.what() << '\n';
    return sluice::cli::kFailed;
  }
}
