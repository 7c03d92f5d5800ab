// The clients of a run, in one of its two kinds.
#pragma once

#include <string>

namespace sluice::deploy {

class Crowd {
 public:
  Crowd() = default;
  virtual ~Crowd() = default;
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;

  // No session begins any more; the open ones are closed with 1000, those that close anyway end.
  virtual void Stop() = 0;
  // After Stop: whether the last session has ended.
  [[nodiscard]] virtual bool is_done() const = 0;
  // Of everything until now, as one JSON object.
  [[nodiscard]] virtual std::string Summary() const = 0;
};

}  // namespace sluice::deploy
