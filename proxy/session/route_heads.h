// What one route changes in heads, made into text and names once, when the configuration is loaded.
// Immutable and a part of the Snapshot: all workers share it.
#pragma once

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
  [[nodiscard]] HeadChange response() const noexcept { return response_.view(); }

  // Whole field lines for the answers that Sluice itself gives: what is added to responses, but for
  // the fields that such an answer has already.
  [[nodiscard]] std::string_view own_answer() const noexcept { return own_answer_; }

 private:
  struct Change {
    std::vector<std::string> removed;
    std::string added;

    [[nodiscard]] HeadChange view() const noexcept { return {removed, added}; }
  };

  Change request_;
  Change response_;
  std::string own_answer_;
};

}  // namespace sluice::session
