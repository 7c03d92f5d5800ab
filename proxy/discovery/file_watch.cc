#include "proxy/discovery/file_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

namespace sluice::discovery {
namespace {

// A change comes as several events: what follows within this is one.
constexpr Millis kSettle{50};

// Not IN_MODIFY: a file that is being written is looked at when its writer closes it.
constexpr std::uint32_t kEvents = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_TO |
                                  IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

std::int64_t Nanoseconds(const timespec& time) noexcept {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

FileWatch::FileWatch(net::Loop& loop, std::string path, std::function<void()> changed, Millis poll)
    : loop_(loop),
      path_(std::move(path)),
      changed_(std::move(changed)),
      poll_(poll),
      inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  if (inotify_.valid()) {
    event_.Add<&FileWatch::OnInotify>(loop_.base(), inotify_.get(), EV_READ | EV_PERSIST, this);
  }
  WatchFolders();
  known_ = Look();  // after that: what happens in between is told
  polled_ = known_;
  poll_timer_.Arm<&FileWatch::OnPoll>(loop_.base(), poll_, this);
}

FileWatch::Identity FileWatch::Look() const {
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0) {
    return {};
  }
  return {status.st_dev, status.st_ino, status.st_size, Nanoseconds(status.st_mtim),
          Nanoseconds(status.st_ctim)};
}

void FileWatch::WatchFolder(const std::string& path, std::vector<Folder>& folders) const {
  const std::filesystem::path file(path);
  const std::string folder = file.has_parent_path() ? file.parent_path().string() : ".";
  // For a folder that is watched already this is the same watch again.
  const int watch = ::inotify_add_watch(inotify_.get(), folder.c_str(), kEvents);
  if (watch >= 0) {
    folders.push_back({watch, file.filename().string()});
  }
}

void FileWatch::WatchFolders() {
  if (!inotify_.valid()) {
    return;
  }
  std::vector<Folder> folders;
  WatchFolder(path_, folders);
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path_, error);
  if (!error) {
    WatchFolder(real.string(), folders);
  }
  for (const Folder& old : folders_) {
    const bool stays = std::any_of(folders.begin(), folders.end(),
                                   [&](const Folder& one) { return one.watch == old.watch; });
    if (!stays) {
      // Fails for a folder that is gone, whose watch has gone with it.
      static_cast<void>(::inotify_rm_watch(inotify_.get(), old.watch));
    }
  }
  folders_ = std::move(folders);
}

void FileWatch::OnInotify(short) noexcept {
  alignas(inotify_event) std::array<char, 4096> buffer;
  const ssize_t got = ::read(inotify_.get(), buffer.data(), buffer.size());
  for (std::size_t at = 0;
       got > 0 && at + sizeof(inotify_event) <= static_cast<std::size_t>(got);) {
    inotify_event one{};
    std::memcpy(&one, buffer.data() + at, sizeof(one));
    const std::string_view name(one.len > 0 ? buffer.data() + at + sizeof(one) : "");
    at += sizeof(one) + one.len;
    const auto is_it = [&](const Folder& f) { return f.watch == one.wd && f.name == name; };
    written_ = written_ || (one.mask & IN_Q_OVERFLOW) != 0 ||
               std::any_of(folders_.begin(), folders_.end(), is_it);
  }
  Settle();
}

// Also after an event of another file, which may be a link on the way to ours.
void FileWatch::Settle() {
  if (!settling_) {
    settling_ = true;
    settle_timer_.Arm<&FileWatch::OnSettled>(loop_.base(), kSettle, this);
  }
}

void FileWatch::OnSettled(short) noexcept {
  settling_ = false;
  const bool written = std::exchange(written_, false);
  WatchFolders();
  const Identity now = Look();
  // Where only its neighbours changed, the same file in another state is one that is being written.
  const bool another = now.device != known_.device || now.inode != known_.inode;
  if (another || (written && now != known_)) {
    known_ = now;
    polled_ = now;
    changed_();
  }
}

void FileWatch::OnPoll(short) noexcept {
  poll_timer_.Arm<&FileWatch::OnPoll>(loop_.base(), poll_, this);
  WatchFolders();
  const Identity now = Look();
  // Twice the same, so that nobody is writing it just now.
  if (now != known_ && now == polled_) {
    known_ = now;
    changed_();
  }
  polled_ = now;
}

}  // namespace sluice::discovery
