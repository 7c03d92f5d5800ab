#include "proxy/cli/format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace sluice::cli {
namespace {

constexpr std::size_t kMostBar = 40;
constexpr std::size_t kLeastBar = 10;

std::string OneDecimal(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f", value);
  return text.data();
}

// Only what is finished counts as 100 %.
unsigned Percent(const Progress& progress) {
  if (progress.total == 0 || progress.remaining == 0) {
    return 100;
  }
  const std::size_t closed = progress.total - std::min(progress.remaining, progress.total);
  return static_cast<unsigned>(closed * 100 / progress.total);
}

}  // namespace

std::string FormatSeconds(double seconds) {
  struct Unit {
    std::string_view name;
    std::uint64_t seconds;
  };
  constexpr Unit kUnits[] = {{"d", 86'400}, {"h", 3'600}, {"m", 60}, {"s", 1}};
  // Beyond a century it is nonsense, and the cast below would be undefined.
  const double sane = std::isfinite(seconds) ? std::clamp(seconds, 0.0, 3.2e9) : 0.0;
  auto left = static_cast<std::uint64_t>(std::llround(sane));
  for (std::size_t i = 0; i < std::size(kUnits); ++i) {
    const std::uint64_t count = left / kUnits[i].seconds;
    if (count == 0) {
      continue;
    }
    std::string out = std::to_string(count) + std::string(kUnits[i].name);
    left %= kUnits[i].seconds;
    if (i + 1 < std::size(kUnits) && left / kUnits[i + 1].seconds > 0) {
      out += " " + std::to_string(left / kUnits[i + 1].seconds) + std::string(kUnits[i + 1].name);
    }
    return out;
  }
  return "0s";
}

std::string FormatBytes(std::uint64_t bytes) {
  constexpr std::string_view kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) {
    return std::to_string(bytes) + " B";
  }
  auto value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.96 would be shown as 1024.
  while (value >= 1023.5 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  // 9.96 would be shown as 10.0.
  const std::string number = value < 9.95 ? OneDecimal(value) : std::to_string(std::llround(value));
  return number + " " + std::string(kUnits[unit]);
}

std::string Printable(std::string_view text) {
  std::string out(text);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<unsigned char>(out[i]);
    // U+0080 to U+009F are control characters too: C2 80 to C2 9F.
    const bool c1 = byte == 0xC2 && i + 1 < out.size() &&
                    static_cast<unsigned char>(out[i + 1]) >= 0x80 &&
                    static_cast<unsigned char>(out[i + 1]) < 0xA0;
    if (c1) {
      out.replace(i, 2, "?");
    } else if (byte < 0x20 || byte == 0x7F) {
      out[i] = '?';
    }
  }
  return out;
}

std::string FormatTable(const std::vector<Column>& columns,
                        const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    std::size_t width = columns[i].title.size();
    for (const auto& row : rows) {
      width = std::max(width, row[i].size());
    }
    widths.push_back(width);
  }
  std::string out;
  const auto add_line = [&](const auto& cell) {
    std::string line;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::string_view text = cell(i);
      const std::string gap(widths[i] - text.size(), ' ');
      line += i == 0 ? "" : "  ";
      line += columns[i].right ? gap : "";
      line += text;
      line += columns[i].right ? "" : gap;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  add_line([&](std::size_t i) { return columns[i].title; });
  for (const auto& row : rows) {
    add_line([&](std::size_t i) { return std::string_view(row[i]); });
  }
  return out;
}

std::string ProgressText(const Progress& progress) {
  const std::size_t closed = progress.total - std::min(progress.remaining, progress.total);
  std::string out = std::to_string(Percent(progress)) + " % " + std::to_string(closed) + " of " +
                    std::to_string(progress.total) + " closed";
  if (progress.forced > 0) {
    out += " (" + std::to_string(progress.forced) + " cut)";
  }
  if (progress.remaining > 0) {
    out += ", " + OneDecimal(progress.rate) + "/s";
    if (progress.eta_seconds) {
      out += ", about " + FormatSeconds(std::ceil(*progress.eta_seconds)) + " left";
    }
  }
  return out;
}

std::string ProgressBar(const Progress& progress, std::size_t columns) {
  const std::string text = ProgressText(progress);
  const std::size_t other = text.size() + 3;  // brackets and a space
  std::string out;
  if (columns >= other + kLeastBar) {
    const std::size_t width = std::min(columns - other, kMostBar);
    const std::size_t full = width * Percent(progress) / 100;
    out = "[" + std::string(full, '#') + std::string(width - full, '-') + "] ";
  }
  return (out + text).substr(0, columns);
}

}  // namespace sluice::cli
