#include "proxy/takeover/spawn.h"

#include <signal.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <string_view>
#include <utility>

namespace sluice::takeover {
namespace {

// Where the successor finds its end: the first descriptor behind standard error.
constexpr int kSuccessorFd = STDERR_FILENO + 1;

// What belongs to one process. WATCHDOG_PID names it; without it the successor is meant.
constexpr std::array<std::string_view, 5> kNotInherited{
    "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", kTakeoverVariable};

std::vector<std::string> EnvironmentOfSuccessor() {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('='));
    bool inherited = true;
    for (const std::string_view other : kNotInherited) {
      inherited = inherited && name != other;
    }
    if (inherited) {
      entries.emplace_back(text);
    }
  }
  entries.push_back(std::string(kTakeoverVariable) + "=" + std::to_string(kSuccessorFd));
  return entries;
}

// As exec(3) takes them; the views live as long as `texts`.
std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

// Set-up of posix_spawn(3), released with it.
struct SpawnSettings {
  SpawnSettings() noexcept {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

std::string LinkTarget(const char* path) {
  std::string target(PATH_MAX, '\0');
  const ssize_t size = ::readlink(path, target.data(), target.size());
  target.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  return target;
}

bool SameFile(const std::string& one, const char* other) noexcept {
  struct stat a {};
  struct stat b {};
  return ::stat(one.c_str(), &a) == 0 && ::stat(other, &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

}  // namespace

Result<Spawned> SpawnSuccessor(const std::string& executable,
                               const std::vector<std::string>& argv) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return SysErr("cannot make a connection for " + executable, errno);
  }
  Spawned spawned;
  spawned.connection = UniqueFd(ends[0]);
  const UniqueFd theirs(ends[1]);

  SpawnSettings settings;
  // dup2 takes close-on-exec away, also when the two numbers are equal; whatever is open behind it,
  // ours or a library's, is closed.
  int error = ::posix_spawn_file_actions_adddup2(&settings.actions, theirs.get(), kSuccessorFd);
  if (error == 0) {
    error = ::posix_spawn_file_actions_addclosefrom_np(&settings.actions, kSuccessorFd + 1);
  }
  if (error != 0) {
    return SysErr("cannot prepare to start " + executable, error);
  }
  sigset_t none;
  sigemptyset(&none);
  sigset_t ignored_here;  // exec gives what is caught its default back, but not what is ignored
  sigemptyset(&ignored_here);
  sigaddset(&ignored_here, SIGPIPE);
  ::posix_spawnattr_setsigmask(&settings.attributes, &none);
  ::posix_spawnattr_setsigdefault(&settings.attributes, &ignored_here);
  ::posix_spawnattr_setflags(&settings.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::vector<std::string> arguments = argv;
  std::vector<std::string> environment = EnvironmentOfSuccessor();
  error = ::posix_spawn(&spawned.pid, executable.c_str(), &settings.actions, &settings.attributes,
                        Pointers(arguments).data(), Pointers(environment).data());
  if (error != 0) {
    return SysErr("cannot start " + executable, error);
  }
  return spawned;
}

std::string ExecutablePath() {
  constexpr const char* kSelf = "/proc/self/exe";
  // What exec was given. It may be relative, or a path that leads nowhere when the file was opened
  // before it was executed.
  // NOLINTNEXTLINE(performance-no-int-to-ptr): so the kernel passes it, getauxval(3).
  if (const auto* given = reinterpret_cast<const char*>(::getauxval(AT_EXECFN))) {
    std::string path = given;
    if (!path.empty() && path.front() != '/') {
      path = LinkTarget("/proc/self/cwd") + "/" + path;
    }
    if (SameFile(path, kSelf)) {
      return path;
    }
  }
  std::string path = LinkTarget(kSelf);
  constexpr std::string_view kDeleted = " (deleted)";
  if (path.size() > kDeleted.size() &&
      path.compare(path.size() - kDeleted.size(), kDeleted.size(), kDeleted) == 0) {
    path.resize(path.size() - kDeleted.size());
  }
  return path;
}

}  // namespace sluice::takeover
