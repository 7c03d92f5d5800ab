// What an end still has to send, cut at random. Each turn of the loop sends one piece, so that it
// may be read as one.
#pragma once

#include <sys/socket.h>

#include <cerrno>
#include <deque>
#include <string>
#include <string_view>

#include "tests/deploy/storm/dice.h"

namespace sluice::desync {

class Pieces {
 public:
  // What lies behind `cut_before` stays in one piece with the byte before it.
  void Add(std::string_view bytes, std::size_t cut_before, storm::Dice& dice) {
    const std::uint64_t cuts = dice.Percent(60) ? 0 : dice.Between(1, 6);
    for (std::uint64_t i = 0; i < cuts && cut_before > 1; ++i) {
      // As often near the front, where heads end and contents begin, as anywhere.
      const std::uint64_t most = dice.Percent(50) ? cut_before - 1 : (cut_before + 3) / 4;
      const std::size_t size = dice.Between(1, std::min<std::uint64_t>(most, cut_before - 1));
      pieces_.emplace_back(bytes.substr(0, size));
      bytes.remove_prefix(size);
      cut_before -= size;
    }
    if (!bytes.empty()) {
      pieces_.emplace_back(bytes);
    }
  }

  [[nodiscard]] bool empty() const { return pieces_.empty(); }
  void Clear() { pieces_.clear(); }

  // False: nobody takes any more.
  [[nodiscard]] bool SendOne(int fd) {
    std::string& piece = pieces_.front();
    const ssize_t sent = ::send(fd, piece.data(), piece.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      return errno == EAGAIN;
    }
    if (static_cast<std::size_t>(sent) == piece.size()) {
      pieces_.pop_front();
    } else {
      piece.erase(0, static_cast<std::size_t>(sent));
    }
    return true;
  }

 private:
  std::deque<std::string> pieces_;
};

}  // namespace sluice::desync
