#include "tests/support/proxy_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <utility>

#include <gtest/gtest.h>

#include "tests/support/raw_client.h"

namespace sluice::test {
namespace {

// A second SIGTERM gives sessions 2 seconds; what takes longer than this hangs.
constexpr Millis kOrderlyEnd{20'000};

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  bool quoted = false;
  std::string part;
  for (const char c : text) {
    quoted = c == '"' ? !quoted : quoted;
    if (c == separator && !quoted) {
      parts.push_back(std::exchange(part, {}));
    } else {
      part += c;
    }
  }
  if (!part.empty()) {
    parts.push_back(std::move(part));
  }
  return parts;
}

// NAME and the label texts `a="b"` of `NAME{a="b",...}`.
std::pair<std::string, std::vector<std::string>> SplitSeries(std::string_view series) {
  const std::size_t brace = series.find('{');
  if (brace == std::string_view::npos) {
    return {std::string(series), {}};
  }
  return {std::string(series.substr(0, brace)),
          Split(series.substr(brace + 1, series.rfind('}') - brace - 1), ',')};
}

std::uint16_t PortOf(const std::string& address) {
  return static_cast<std::uint16_t>(std::atoi(address.c_str() + address.rfind(':') + 1));
}

// What each thread is called, does, waits for and has not been told: for a process that hangs.
std::string ThreadStates(pid_t pid) {
  std::string text;
  std::error_code gone;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", gone)) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Name:") || line.starts_with("State:") || line.starts_with("SigPnd:") ||
          line.starts_with("ShdPnd:") || line.starts_with("SigBlk:")) {
        text += line + " ";
      }
    }
    std::string where;
    std::ifstream(task.path() / "wchan") >> where;
    text += "wchan: " + where + "\n";
  }
  return text;
}

// Reaps the process; nothing when it still runs at the deadline. -1, and a failure, when another
// one has reaped it: this is called by destructors too.
std::optional<int> AwaitExit(pid_t pid, int pidfd, Deadline deadline) {
  pollfd one{pidfd, POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&one, 1, deadline.poll_ms());
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) {
    return std::nullopt;
  }
  int raw = 0;
  if (::waitpid(pid, &raw, 0) != pid) {
    ADD_FAILURE() << "process " << pid << " is not ours to wait for";
    return -1;
  }
  return WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
}

// The orderly way lets a leak checker speak and shows a shutdown that hangs. SIGTERM comes again
// and again: two that follow each other closely may be one for the process.
template <class Process>
std::optional<int> AwaitOrderlyEnd(Process& process) {
  const Deadline deadline(kOrderlyEnd);
  std::optional<int> status;
  while (!status && !deadline.passed()) {
    process.Signal(SIGTERM);
    status = process.Wait(Deadline(Millis(200)));
  }
  return status;
}

}  // namespace

unsigned TestWorkers() {
  const char* text = std::getenv("SLUICE_TEST_WORKERS");
  const int count = text == nullptr ? 0 : std::atoi(text);
  return count > 0 ? static_cast<unsigned>(count) : 2;
}

std::string ProxyBinary() {
  if (const char* path = std::getenv("SLUICE_BIN"); path != nullptr && *path != '\0') {
    return path;
  }
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "sluice";
}

std::string Config::Text() const {
  std::ostringstream text;
  text << "[server]\nworkers = " << (workers == 0 ? TestWorkers() : workers) << "\n"
       << server << "\n";
  text << "[limits]\n" << limits << "\n";
  text << "[admin]\naddress = \"127.0.0.1:0\"\n";
  text << "[drain]\n" << drain << "\n";
  text << "[log]\n" << log << "\n";
  text << "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n" << listener << "\n";
  text << "[[route]]\nname = \"main\"\npool = \"app\"\n" << route << "\n";
  text << "[pool.app]\n" << pool << "\nbackends = [\n";
  for (std::size_t i = 0; i < backends.size(); ++i) {
    text << "  { name = \"b" << i << "\", address = \"127.0.0.1:" << backends[i] << "\" },\n";
  }
  text << "]\n" << more << "\n";
  return text.str();
}

Predecessor::Predecessor(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}

Predecessor::~Predecessor() {
  if (!pidfd_.valid() || status_) {
    return;  // moved from, or waited for
  }
  if (!AwaitOrderlyEnd(*this)) {
    ADD_FAILURE() << "the process before did not end after two SIGTERM\n" << ThreadStates(pid_);
    Signal(SIGKILL);
    static_cast<void>(Wait());
  } else if (*status_ != 0) {
    ADD_FAILURE() << "the process before ended with status " << *status_;
  }
}

void Predecessor::Signal(int number) const {
  if (!status_) {
    ::kill(pid_, number);
  }
}

std::optional<int> Predecessor::Wait(Deadline deadline) {
  if (!status_) {
    status_ = AwaitExit(pid_, pidfd_.get(), deadline);
  }
  return status_;
}

ProxyProcess::ProxyProcess(const std::string& config_text) {
  config_path_ = dir_.Write("sluice.toml", config_text);
  Spawn({"run", "-c", config_path_}, ready_file());
  try {
    AwaitReady(0, pidfd_.get());
  } catch (...) {
    // No destructor runs for an object that was not made.
    ::kill(pid_, SIGKILL);
    static_cast<void>(Wait());
    reader_.join();
    throw;
  }
}

ProxyProcess::ProxyProcess(const std::vector<std::string>& args) {
  Spawn(args, "");
}

ProxyProcess::~ProxyProcess() {
  if (!status_) {
    if (!AwaitOrderlyEnd(*this)) {
      ADD_FAILURE() << "the proxy did not end after two SIGTERM\n" << err() << ThreadStates(pid_);
      Signal(SIGKILL);
      static_cast<void>(Wait());
    } else if (*status_ != 0 && *status_ != 128 + SIGTERM) {
      ADD_FAILURE() << "the proxy ended with status " << *status_ << "\n" << err();
    }
  }
  reader_.join();
  CheckReports();
}

void ProxyProcess::CheckReports() {
  for (const char* report : {"ERROR: AddressSanitizer", "ERROR: LeakSanitizer",
                             "WARNING: ThreadSanitizer", ": runtime error:"}) {
    if (err_.find(report) != std::string::npos) {
      ADD_FAILURE() << "a sanitizer spoke:\n" << err_;
      return;
    }
  }
}

void ProxyProcess::Spawn(const std::vector<std::string>& args, const std::string& ready_file) {
  std::array<int, 2> out{};
  std::array<int, 2> err{};
  if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) {
    throw Failure("no pipes");
  }
  const UniqueFd out_write(out[1]);
  const UniqueFd err_write(err[1]);
  // Everything is made before fork: between it and exec only async-signal-safe calls are allowed.
  const std::string binary = ProxyBinary();
  std::vector<std::string> texts{"sluice"};
  texts.insert(texts.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& text : texts) {
    argv.push_back(text.data());
  }
  argv.push_back(nullptr);
  std::vector<std::string> settings;
  for (char** one = environ; *one != nullptr; ++one) {
    if (std::strncmp(*one, "SLUICE_READY_FILE=", 18) != 0) {
      settings.emplace_back(*one);
    }
  }
  if (!ready_file.empty()) {
    settings.push_back("SLUICE_READY_FILE=" + ready_file);
  }
  std::vector<char*> envp;
  for (std::string& setting : settings) {
    envp.push_back(setting.data());
  }
  envp.push_back(nullptr);

  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    // A test that is killed takes its proxy with it.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) {
      ::_exit(127);
    }
    ::signal(SIGPIPE, SIG_DFL);
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    ::execve(binary.c_str(), argv.data(), envp.data());
    ::_exit(127);
  }
  if (pid_ < 0) {
    throw Failure("cannot fork");
  }
  pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  reader_ = std::thread([this, from = out[0], errors = err[0]] { Collect(from, errors); });
}

// Runs in reader_ until the process has closed both ends.
void ProxyProcess::Collect(int out, int err) {
  std::array<pollfd, 2> ends{{{out, POLLIN, 0}, {err, POLLIN, 0}}};
  std::array<char, 64 * 1024> scratch;
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    ::poll(ends.data(), ends.size(), -1);
    for (pollfd& end : ends) {
      if (end.fd < 0 || end.revents == 0) {
        continue;
      }
      const ssize_t got = ::read(end.fd, scratch.data(), scratch.size());
      if (got <= 0) {
        ::close(end.fd);
        end.fd = -1;
        continue;
      }
      const std::lock_guard lock(mutex_);
      (&end == ends.data() ? out_ : err_).append(scratch.data(), static_cast<std::size_t>(got));
      changed_.notify_all();
    }
  }
  const std::lock_guard lock(mutex_);
  all_read_ = true;
  changed_.notify_all();
}

void ProxyProcess::AwaitReady(pid_t before, int watched) {
  const UniqueFd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  ::inotify_add_watch(watch.get(), dir_.path().c_str(), IN_MOVED_TO);
  const Deadline deadline;
  // Looked at after the watch is set, so that a file from before it is not missed.
  nlohmann::json ready;
  const auto is_there = [&] {
    std::ifstream file(ready_file());
    ready = file ? nlohmann::json::parse(file) : nlohmann::json();
    return !ready.is_null() && ready["pid"].get<pid_t>() != before;
  };
  while (!is_there()) {
    std::array<pollfd, 2> polled{{{watch.get(), POLLIN, 0}, {watched, POLLIN, 0}}};
    if (::poll(polled.data(), polled.size(), deadline.poll_ms()) == 0) {
      throw Failure("the proxy was not ready in time: " + err());
    }
    if (polled[1].revents != 0) {
      const std::optional<int> status = Wait();
      throw Failure("the proxy ended with status " + std::to_string(status.value_or(-1)) + ": " +
                    err());
    }
    std::array<char, 4096> events;
    while (::read(watch.get(), events.data(), events.size()) > 0) {
    }
  }
  pid_ = ready["pid"].get<pid_t>();
  admin_port_ = ready.contains("admin") ? PortOf(ready["admin"].get<std::string>()) : 0;
  ports_.clear();
  for (const auto& listener : ready["listeners"]) {
    ports_[listener["name"].get<std::string>()] = PortOf(listener["address"].get<std::string>());
  }
}

void ProxyProcess::Configure(const std::string& config_text) const {
  // Renamed, so that nobody reads half of it.
  std::filesystem::rename(dir_.Write("sluice.toml.new", config_text), config_path_);
}

Predecessor ProxyProcess::TakeOver() {
  // A successor is the child of a process that ends: it becomes ours, so that it can be waited for.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t before = pid_;
  Signal(SIGUSR2);
  AwaitReady(before, -1);
  Predecessor predecessor(before, std::move(pidfd_));
  pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  return predecessor;
}

std::uint16_t ProxyProcess::port(const std::string& listener) const {
  const auto found = ports_.find(listener);
  if (found == ports_.end()) {
    throw Failure("no listener named " + listener);
  }
  return found->second;
}

void ProxyProcess::AwaitThreads(std::string_view states) const {
  const std::string tasks = "/proc/" + std::to_string(pid_) + "/task";
  const auto is_there = [&](const std::filesystem::directory_entry& task) {
    std::ifstream file(task.path() / "stat");
    const std::string stat{std::istreambuf_iterator<char>(file), {}};
    return states.find(stat.substr(stat.rfind(')') + 2, 1)) != std::string_view::npos;  // proc(5)
  };
  const Deadline deadline;
  while (!std::all_of(std::filesystem::directory_iterator(tasks), {}, is_there)) {
    if (deadline.passed()) {
      throw Failure("the proxy's threads do not come to rest");
    }
  }
}

void ProxyProcess::Stop() const {
  AwaitThreads("S");  // all wait for events: none is about to look for them
  Signal(SIGSTOP);
  AwaitThreads("Tt");  // the latter under a tracer
}

void ProxyProcess::Signal(int number) const {
  // Until it is reaped the number cannot be anybody else's.
  if (!status_) {
    ::kill(pid_, number);
  }
}

template <class Condition>
bool ProxyProcess::Await(Deadline deadline, Condition&& condition) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline.at(), condition);
}

std::optional<int> ProxyProcess::Wait(Deadline deadline) {
  if (status_) {
    return status_;
  }
  status_ = AwaitExit(pid_, pidfd_.get(), deadline);
  if (!status_) {
    return std::nullopt;
  }
  // What it wrote last is still on its way through the pipes.
  static_cast<void>(Await(Deadline(), [&] { return all_read_; }));
  return status_;
}

bool ProxyProcess::running() {
  return !Wait(Deadline(Millis(0)));
}

std::string ProxyProcess::out() const {
  const std::lock_guard lock(mutex_);
  return out_;
}

std::string ProxyProcess::err() const {
  const std::lock_guard lock(mutex_);
  return err_;
}

std::vector<nlohmann::json> ProxyProcess::AccessLog() const {
  std::vector<nlohmann::json> lines;
  std::istringstream text(out());
  for (std::string line; std::getline(text, line) && !text.eof();) {
    lines.push_back(nlohmann::json::parse(line));
  }
  return lines;
}

std::vector<nlohmann::json> ProxyProcess::AwaitAccessLog(std::size_t count, Deadline deadline) {
  const bool came = Await(deadline, [&] {
    return static_cast<std::size_t>(std::count(out_.begin(), out_.end(), '\n')) >= count;
  });
  if (!came) {
    throw Failure("waited in vain for " + std::to_string(count) + " access log lines; have:\n" +
                  out());
  }
  return AccessLog();
}

bool ProxyProcess::AwaitErr(std::string_view text, Deadline deadline) {
  return Await(deadline, [&] { return err_.find(text) != std::string::npos; });
}

std::string ProxyProcess::Admin(const std::string& path, int* status) const {
  HttpMessage answer = Ask("GET", path);
  if (status != nullptr) {
    *status = answer.status;
  }
  return std::move(answer.body);
}

HttpMessage ProxyProcess::Ask(std::string_view method, const std::string& path,
                              std::string_view more, std::string_view content) const {
  RawClient client(admin_port_);
  std::string request = std::string(method) + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" +
                        "Connection: close\r\n" + std::string(more);
  if (!content.empty()) {
    request +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(content.size()) +
        "\r\n";
  }
  client.Send(request + "\r\n" + std::string(content));
  return client.ReadResponse(method);
}

nlohmann::json ProxyProcess::AskJson(std::string_view method, const std::string& path,
                                     int status) const {
  const HttpMessage answer = Ask(method, path);
  if (answer.status != status) {
    throw Failure(std::string(method) + " " + path + ": " + answer.start_line + " " + answer.body);
  }
  return nlohmann::json::parse(answer.body);
}

double MetricOf(std::string_view page, std::string_view series) {
  const auto [name, wanted] = SplitSeries(series);
  double sum = std::numeric_limits<double>::quiet_NaN();
  std::istringstream text{std::string(page)};
  for (std::string line; std::getline(text, line);) {
    if (line.compare(0, name.size(), name) != 0) {
      continue;
    }
    const std::size_t space = line.rfind(' ');
    const auto [its_name, labels] = SplitSeries(std::string_view(line).substr(0, space));
    const bool matches =
        its_name == name && std::all_of(wanted.begin(), wanted.end(), [&](const auto& label) {
          return std::find(labels.begin(), labels.end(), label) != labels.end();
        });
    if (matches) {
      sum = (std::isnan(sum) ? 0 : sum) + std::strtod(line.c_str() + space + 1, nullptr);
    }
  }
  return sum;
}

double ProxyProcess::Metric(std::string_view series) const {
  return MetricOf(Admin("/metrics"), series);
}

void ProxyProcess::AwaitMetric(std::string_view series, double value, Deadline deadline) const {
  double last = 0;
  while ((last = Metric(series)) != value) {
    if (deadline.passed()) {
      throw Failure("waited in vain for " + std::string(series) + " to be " +
                    std::to_string(value) + ", it is " + std::to_string(last));
    }
    ::poll(nullptr, 0, 2);  // leaves the core to the proxy between two looks
  }
}

void ProxyProcess::AwaitMetricAtLeast(std::string_view series, double value,
                                      Deadline deadline) const {
  double last = 0;
  while (!((last = Metric(series)) >= value)) {
    if (deadline.passed()) {
      throw Failure("waited in vain for " + std::string(series) + " to reach " +
                    std::to_string(value) + ", it is " + std::to_string(last));
    }
    ::poll(nullptr, 0, 2);
  }
}

std::size_t ProxyProcess::OpenFds() const {
  const std::filesystem::directory_iterator begin("/proc/" + std::to_string(pid_) + "/fd");
  return static_cast<std::size_t>(std::distance(begin, std::filesystem::directory_iterator()));
}

std::size_t ProxyProcess::ResidentBytes() const {
  std::ifstream file("/proc/" + std::to_string(pid_) + "/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  file >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace sluice::test
