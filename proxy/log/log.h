// The process log: what an operator reads on standard error. Lower case, no full stop, a message
// and then key=value pairs. error: a request was harmed; warn: we recovered; info: the life of the
// process; debug: the life of a session.
#pragma once

#include <cstdint>

#include <spdlog/spdlog.h>

namespace sluice::log {

enum class Level : std::uint8_t { kDebug, kInfo, kWarn, kError };

// Makes spdlog's default logger write to standard error at `level`. Once, before any thread runs.
void Setup(Level level);

// Any thread, at any time.
void SetLevel(Level level);

}  // namespace sluice::log
