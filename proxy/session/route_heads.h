// What one route changes in heads, made into text and names once, when the configuration is loaded.
// Immutable and a part of the Snapshot: all workers share it.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/config/config.h"
#include "proxy/session/rewrite.h"

namespace sluice::session {

class RouteHeads {
 public:
  explicit RouteHeads(const config::Route& route);

  // Views that live as long as this.
  [[nodiscard]] HeadChange request() const noexcept { return request_.view(); }
  // `tls`: it goes out over TLS (RFC 6797 section 7.2); also below.
  [[nodiscard]] HeadChange response(bool tls) const noexcept { return response_[tls].view(); }

  // Whole field lines for the answers that Sluice itself gives: what is added to responses, but for
  // the fields that such an answer has already.
  [[nodiscard]] std::string_view own_answer(bool tls) const noexcept { return own_answer_[tls]; }

 private:
  struct Change {
    std::vector<std::string> removed;
    std::string added;

    [[nodiscard]] HeadChange view() const noexcept { return {removed, added}; }
  };

  Change request_;
  std::array<Change, 2> response_;         // [it goes out over TLS]
  std::array<std::string, 2> own_answer_;  // the same
};

}  // namespace sluice::session
