// How the command line shows numbers, tables and progress. Pure: text out of values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::cli {

// "0s", "59s", "3m 5s", "2h 10m", "4d 1h": the two largest units.
[[nodiscard]] std::string FormatSeconds(double seconds);

// "0 B", "999 B", "1.5 KiB", "12 MiB".
[[nodiscard]] std::string FormatBytes(std::uint64_t bytes);

// Control characters become '?', so that nothing a server answers steers a terminal.
[[nodiscard]] std::string Printable(std::string_view text);

struct Column {
  std::string_view title;
  bool right = false;  // aligned so, as numbers are
};

// Lines of aligned columns, two spaces apart, a title line first, none with spaces at its end.
// REQUIRES: every row has as many cells as there are columns.
[[nodiscard]] std::string FormatTable(const std::vector<Column>& columns,
                                      const std::vector<std::vector<std::string>>& rows);

// How far a drain has come.
struct Progress {
  std::size_t total = 0;
  std::size_t remaining = 0;
  std::size_t forced = 0;  // of those that are closed
  double rate = 0;         // closes per second
  std::optional<double> eta_seconds;

  bool operator==(const Progress&) const = default;
};

// "62 % 124 of 200 closed, 4.1/s, about 18s left", and how many were cut, if any.
[[nodiscard]] std::string ProgressText(const Progress& progress);

// "[#######----] " before that text, cut to `columns` characters.
[[nodiscard]] std::string ProgressBar(const Progress& progress, std::size_t columns);

}  // namespace sluice::cli
