// Every key that a configuration file may hold, table by table. The loader refuses what is not
// here, and the tests hold config/sluice.schema.json against it, so that neither can drift.
#pragma once

#include <span>
#include <string_view>

namespace sluice::config {

struct KeyTable {
  // Dotted path of the table; elements of an array of tables carry no index, and `*` stands for a
  // name that the user chooses: "route.limits", "pool.*.backends".
  std::string_view path;
  std::span<const std::string_view> keys;
};

// All tables; the root is the one with the empty path.
[[nodiscard]] std::span<const KeyTable> AllKeyTables() noexcept;

// What stands for the root of a file that `discover.file` names; not among AllKeyTables(), which
// are those of the configuration.
inline constexpr std::string_view kBackendsFileKeys = "(backends file)";

// REQUIRES: `path` is one of AllKeyTables(), or kBackendsFileKeys.
[[nodiscard]] const KeyTable& KeysOf(std::string_view path) noexcept;

}  // namespace sluice::config
