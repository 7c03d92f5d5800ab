// The exit statuses of every subcommand.
#pragma once

#include <sysexits.h>

namespace sluice::cli {

inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;          // while running
inline constexpr int kUsage = 2;           // an unknown flag, or a value that makes no sense
inline constexpr int kConfig = EX_CONFIG;  // 78: the configuration cannot be used, which includes
                                           // an address that is taken

}  // namespace sluice::cli
