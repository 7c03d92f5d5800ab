// Operations that remember what they were asked and answer what the test has put there.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proxy/admin/operations.h"

namespace sluice::admin {

class FakeOperations final : public Operations {
 public:
  std::string MetricsText() override { return "up 1\n"; }
  ReadinessInfo Readiness() override { return readiness; }
  std::string ConfigJson() override { return "{\"admin\":{}}"; }
  StatusInfo Status() override { return status; }
  std::vector<BackendInfo> Backends() override { return backends; }

  Outcome<BackendInfo> StartDrain(std::string_view pool, std::string_view backend,
                                  const DrainOrder& order) override {
    calls.push_back("drain " + std::string(pool) + " " + std::string(backend));
    drain_order = order;
    return Find(pool, backend);
  }

  Outcome<BackendInfo> Undrain(std::string_view pool, std::string_view backend) override {
    calls.push_back("undrain " + std::string(pool) + " " + std::string(backend));
    return Find(pool, backend);
  }

  void Sessions(const SessionFilter& filter, std::function<void(SessionList)> done) override {
    calls.emplace_back("sessions");
    list_filter = filter;
    if (hold) {
      held.push_back([this, done = std::move(done)] { done(sessions); });
    } else {
      done(sessions);
    }
  }

  void Kick(const KickOrder& order, std::function<void(std::size_t)> done) override {
    calls.emplace_back("kick");
    kick_order = order;
    done(kicked);
  }

  Outcome<ReloadReport> Reload() override {
    calls.emplace_back("reload");
    return reload;
  }

  void StartProcessDrain() override { calls.emplace_back("drain process"); }

  ReadinessInfo readiness;
  StatusInfo status;
  std::vector<BackendInfo> backends;
  SessionList sessions;
  std::size_t kicked = 0;
  Outcome<ReloadReport> reload;
  bool hold = false;  // Sessions answers when the test calls what is in `held`

  std::vector<std::string> calls;
  std::vector<std::function<void()>> held;
  std::optional<DrainOrder> drain_order;
  std::optional<SessionFilter> list_filter;
  std::optional<KickOrder> kick_order;

 private:
  Outcome<BackendInfo> Find(std::string_view pool, std::string_view name) const {
    for (const BackendInfo& backend : backends) {
      if (backend.pool == pool && backend.name == name) {
        return backend;
      }
    }
    Problem problem;
    problem.status = 404;
    problem.detail = "There is no such backend.";
    return tl::unexpected<Problem>(std::move(problem));
  }
};

}  // namespace sluice::admin
