// The command line: reads it and starts a subcommand. cli/exit_status.h says what is returned.
#include <cerrno>
#include <csignal>
#include <ctime>
#include <exception>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "proxy/cli/control.h"
#include "proxy/cli/exit_status.h"
#include "proxy/cli/run_demo.h"
#include "proxy/config/load.h"
#include "proxy/log/log.h"
#include "proxy/server/server.h"
#include "proxy/systemd/activation.h"
#include "proxy/takeover/spawn.h"
#include "proxy/takeover/taker.h"

namespace sluice {
namespace {

constexpr const char* kDefaultConfig = "/etc/sluice/sluice.toml";

// Adds what is wrong with one set of certificates. `key` names it.
void CheckCertificates(const std::string& where, const std::string& key,
                       const tls::ServerOptions& options, config::LoadResult& loaded) {
  const tls::TicketKeys keys;
  const auto context = tls::ServerContext::Make(options, keys);
  if (!context) {
    loaded.mistakes.push_back({where, key, context.error().message});
    return;
  }
  for (const tls::CertificateInfo& info : (*context)->certificates()) {
    if (info.not_after < std::time(nullptr)) {
      loaded.warnings.push_back({where, key, "the certificate for " + info.name + " has expired"});
    }
  }
}

// The same for TLS to the backends of a pool: its authorities, then its own certificate.
void CheckPoolTls(const std::string& path, const config::Pool& pool, config::LoadResult& loaded) {
  const tls::ClientContext::Options whole = server::TlsOptions(*pool.tls);
  const auto check = [&](std::size_t line, std::string_view key,
                         const tls::ClientContext::Options& options) {
    if (const auto context = tls::ClientContext::Make(options); !context) {
      loaded.mistakes.push_back({path + ":" + std::to_string(line),
                                 "pool." + pool.name + ".tls." + std::string(key),
                                 context.error().message});
    }
  };
  check(pool.tls->ca_line, "ca", {.ca_file = whole.ca_file, .certificate = {}});
  check(pool.tls->certificate_line, "certificate",
        {.ca_file = {}, .certificate = whole.certificate, .verify = false});
}

// Adds what is wrong with the certificates that the configuration names.
void CheckCertificates(const std::string& path, config::LoadResult& loaded) {
  const auto where = [&](const config::ListenerTls& tls) {
    return path + ":" + std::to_string(tls.line);
  };
  for (std::size_t i = 0; i < loaded.config.listeners.size(); ++i) {
    const config::Listener& listener = loaded.config.listeners[i];
    if (listener.is_tls()) {
      CheckCertificates(where(listener.tls), "listener[" + std::to_string(i) + "].tls.certificates",
                        server::TlsOptions(listener), loaded);
    }
  }
  for (const config::Pool& pool : loaded.config.pools) {
    if (pool.tls) {
      CheckPoolTls(path, pool, loaded);
    }
  }
  const config::Admin& admin = loaded.config.admin;
  if (admin.is_tls()) {
    CheckCertificates(where(admin.tls), "admin.tls.certificates", server::TlsOptions(admin),
                      loaded);
  }
}

// Adds what is wrong with the files that pools learn their backends from. No mistake of the
// configuration: they may come, and change, at any time.
void CheckBackendsFiles(config::LoadResult& loaded) {
  for (const config::Pool& pool : loaded.config.pools) {
    if (pool.discover && !pool.discover->file.empty()) {
      auto mistakes = config::LoadBackends(pool.discover->file).mistakes;
      std::move(mistakes.begin(), mistakes.end(), std::back_inserter(loaded.warnings));
    }
  }
}

// Loads the file and looks into those that it names.
config::LoadResult Load(const std::string& path) {
  config::LoadResult loaded = config::LoadFile(path);
  if (loaded.ok()) {
    CheckCertificates(path, loaded);
    CheckBackendsFiles(loaded);
  }
  return loaded;
}

// The same, and prints every mistake and warning.
bool LoadAndCheck(const std::string& path, config::Config& config) {
  config::LoadResult loaded = Load(path);
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

// `arguments` are those of the process: a successor is started with them.
int Run(const std::string& path, std::vector<std::string> arguments) {
  // A signal that comes while this process starts waits for Server::Run, which reads them.
  sigset_t early;
  sigemptyset(&early);
  sigaddset(&early, SIGHUP);
  sigaddset(&early, SIGUSR2);
  sigprocmask(SIG_BLOCK, &early, nullptr);
  // Before there are threads: what the starter has left in the environment.
  server::Launch launch;
  launch.load = [path] { return Load(path); };
  launch.executable = takeover::ExecutablePath();
  launch.arguments = std::move(arguments);
  auto predecessor = takeover::Taker::FromEnvironment();
  auto activated = systemd::TakeActivatedSockets();
  config::Config config;
  if (!LoadAndCheck(path, config)) {
    return cli::kConfig;
  }
  if (!predecessor || !activated) {
    std::cerr << (predecessor ? activated.error() : predecessor.error()).message << '\n';
    return cli::kFailed;
  }
  launch.predecessor = std::move(*predecessor);
  launch.activated = std::move(*activated);
  log::Setup(server::LevelOf(config.log.level));
  auto server = server::Server::Make(config, std::move(launch));
  if (!server) {
    std::cerr << path << ": " << server.error().message << '\n';
    return server.error().sys_errno == EBUSY ? cli::kFailed : cli::kConfig;
  }
  if (auto ran = (*server)->Run(); !ran) {
    std::cerr << path << ": " << ran.error().message << '\n';
    return cli::kFailed;
  }
  return cli::kDone;
}

// Gives `command` the options of all that ask a running Sluice.
void AddControlOptions(CLI::App& command, cli::ControlOptions& options) {
  auto* admin = command.add_option("--admin", options.admin,
                                   "Admin address, e.g. 127.0.0.1:9900 or https://HOST:PORT");
  command
      .add_option("-c,--config", options.config,
                  "Take address, token and certificate from [admin] in this file")
      ->excludes(admin);
  command.add_option("--token-file", options.token_file, "File with the token");
  command.add_option("--ca", options.ca_file, "PEM file to trust; speaks TLS");
}

// One subcommand that asks a running Sluice.
CLI::App* AddControl(CLI::App& app, const std::string& name, const std::string& description,
                     cli::ControlOptions& options) {
  CLI::App* command = app.add_subcommand(name, description);
  AddControlOptions(*command, options);
  command->add_flag("--json", options.json, "Print the server's answer as it is");
  return command;
}

// The filters that `sessions` and `kick` share.
void AddSessionOptions(CLI::App& command, cli::SessionArguments& arguments) {
  command.add_option("--backend", arguments.backend, "POOL/NAME, or a name of only one pool");
  command.add_option("--pool", arguments.pool, "Pool");
  command.add_option("--route", arguments.route, "Name of the route");
  command.add_option("--affinity", arguments.affinity, "Affinity key, as the client sends it");
  command.add_option("--client-ip", arguments.client_ip, "Address of the client");
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

  cli::ControlOptions control;
  CLI::App* health = app.add_subcommand("healthcheck", "Ask a running Sluice whether it is ready");
  AddControlOptions(*health, control);

  CLI::App* status = AddControl(app, "status", "Show a running Sluice and its backends", control);

  cli::SessionArguments list_arguments;
  CLI::App* sessions = AddControl(app, "sessions", "List open sessions", control);
  AddSessionOptions(*sessions, list_arguments);
  sessions->add_option("--limit", list_arguments.limit, "How many at most; 100 unless given")
      ->check(CLI::Range(1, 10'000));

  cli::DrainArguments drain_arguments;
  CLI::App* drain =
      AddControl(app, "drain", "Take a backend out without cutting a session", control);
  drain->add_option("backend", drain_arguments.backend, "POOL/NAME, or a name of only one pool")
      ->required();
  auto* cancel = drain->add_flag("--cancel", drain_arguments.cancel,
                                 "Stop a drain; what is not closed yet stays");
  drain
      ->add_option("--window", drain_arguments.window, "Spread the closes over this long, e.g. 30s")
      ->excludes(cancel);
  drain->add_option("--rate", drain_arguments.rate, "Close at most so many a second")
      ->check(CLI::PositiveNumber)
      ->excludes(cancel);
  drain->add_flag("--force", drain_arguments.force, "Also the last healthy backend of its pool")
      ->excludes(cancel);
  drain->add_flag("--wait", drain_arguments.wait, "Show progress until it is drained")
      ->excludes(cancel);

  std::string undrain_backend;
  CLI::App* undrain = AddControl(app, "undrain", "Let a backend take new sessions again", control);
  undrain->add_option("backend", undrain_backend, "POOL/NAME, or a name of only one pool")
      ->required();

  cli::KickArguments kick_arguments;
  CLI::App* kick = AddControl(app, "kick", "Close sessions with a CLOSE frame", control);
  kick->add_option("id", kick_arguments.id, "Id of one session, as `sluice sessions` lists it");
  AddSessionOptions(*kick, kick_arguments.sessions);
  kick->add_option("--code", kick_arguments.code, "Close code; the route's unless given")
      ->check(CLI::Range(1000, 4999));
  kick->add_option("--reason", kick_arguments.reason, "Words for the CLOSE frame");

  CLI::App* reload = AddControl(app, "reload", "Load the configuration anew", control);

  CLI::App* version = app.add_subcommand("version", "Print the version");

  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    // CLI11 says only that a subcommand is missing when it is misspelled.
    if (argc > 1 && app.get_subcommands().empty()) {
      std::cerr << "\"" << argv[1]
                << "\" is neither a subcommand nor a flag; there are run, check, "
                << "demo, echo, healthcheck, status, sessions, drain, undrain, kick, reload and "
                << "version\n";
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
    return Run(path, {argv, argv + argc});
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
    return cli::CheckHealth(control);
  }
  if (status->parsed()) {
    return cli::ShowStatus(control);
  }
  if (sessions->parsed()) {
    return cli::ListSessions(control, list_arguments);
  }
  if (drain->parsed()) {
    return cli::Drain(control, drain_arguments);
  }
  if (undrain->parsed()) {
    return cli::Undrain(control, undrain_backend);
  }
  if (kick->parsed()) {
    return cli::Kick(control, kick_arguments);
  }
  if (reload->parsed()) {
    return cli::Reload(control);
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
