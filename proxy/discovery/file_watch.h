// Notices that a file has become another: written in place, replaced by a rename, removed, or
// exchanged by way of a symbolic link on its path, as Kubernetes does with the files of a
// ConfigMap. inotify(7) watches the folder that the path names and the one where the file really
// is; besides, the file is looked at now and then, for file systems that tell nothing and folders
// that come and go. Belongs to the loop's thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "proxy/base/clock.h"
#include "proxy/base/unique_fd.h"
#include "proxy/net/event.h"
#include "proxy/net/loop.h"

namespace sluice::discovery {

class FileWatch {
 public:
  // How often the file is looked at anyway; what is noticed so is told at the second look.
  static constexpr Millis kPoll{2'500};

  // Begins to watch; the owner reads the file for the first time itself, after this. `changed` is
  // called from the loop, a moment after the file has become another than it was then, or is gone;
  // it does not end the watch. `loop` outlives it.
  FileWatch(net::Loop& loop, std::string path, std::function<void()> changed, Millis poll = kPoll);
  ~FileWatch() = default;

  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

 private:
  // What tells one content of the file from another; all zero: there is none.
  struct Identity {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t modified_ns = 0;
    std::int64_t changed_ns = 0;

    bool operator==(const Identity&) const = default;
  };

  struct Folder {
    int watch;         // of inotify
    std::string name;  // of the file in it
  };

  [[nodiscard]] Identity Look() const;
  void WatchFolders();
  void WatchFolder(const std::string& path, std::vector<Folder>& folders) const;
  void Settle();
  void OnInotify(short what) noexcept;
  void OnSettled(short what) noexcept;
  void OnPoll(short what) noexcept;

  net::Loop& loop_;
  std::string path_;
  std::function<void()> changed_;
  Millis poll_;
  UniqueFd inotify_;  // not valid where the system has no more: then polling has to do
  net::Event event_;
  std::vector<Folder> folders_;
  net::Timer settle_timer_;
  bool settling_ = false;
  bool written_ = false;  // the file itself was, since it was looked at
  net::Timer poll_timer_;
  Identity known_;   // as the owner has read it
  Identity polled_;  // as the last poll found it
};

}  // namespace sluice::discovery
