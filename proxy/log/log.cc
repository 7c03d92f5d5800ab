#include "proxy/log/log.h"

#include <memory>
#include <utility>

#include <spdlog/sinks/stdout_sinks.h>

namespace sluice::log {

namespace {

spdlog::level::level_enum NumberOf(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void Setup(Level level) {
  auto logger =
      std::make_shared<spdlog::logger>("sluice", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->set_level(NumberOf(level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

void SetLevel(Level level) {
  spdlog::default_logger_raw()->set_level(NumberOf(level));
}

}  // namespace sluice::log
