// Reads one TOML table key by key, and turns everything odd about it into a Mistake: unknown keys
// (when it is made), wrong types, values out of range. What the keys mean is loader.h's.
// A reader borrows its table and its Report; both outlive it. Single-threaded.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <toml++/toml.h>

#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/config/keys.h"
#include "proxy/config/load.h"

namespace sluice::config {

// Collects what is wrong with a file, and hands it out in the order of its lines.
class Report {
 public:
  // `name` stands for the file in messages.
  explicit Report(std::string name) : name_(std::move(name)) {}

  void AddMistake(std::size_t line, std::string key, std::string what);
  void AddWarning(std::size_t line, std::string key, std::string what);

  [[nodiscard]] std::vector<Mistake> TakeMistakes() { return Take(mistakes_); }
  [[nodiscard]] std::vector<Mistake> TakeWarnings() { return Take(warnings_); }

 private:
  struct Entry {
    std::size_t line;
    std::string key;
    std::string what;
  };

  [[nodiscard]] std::vector<Mistake> Take(std::vector<Entry>& entries) const;

  std::string name_;
  std::vector<Entry> mistakes_;
  std::vector<Entry> warnings_;
};

// One string of the file and where it stands.
struct TextItem {
  std::string_view text;  // lives as long as the parsed document
  std::size_t line;
  std::string key;  // "route[0].origins[1]"
};

class TableReader {
 public:
  // `keys_path` names the table in keys.h, `path` is what messages call it ("route[0]").
  // Reports the keys that do not belong here.
  TableReader(Report& report, const toml::table& table, std::string_view keys_path,
              std::string path);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::size_t line() const noexcept { return LineOf(table_); }
  [[nodiscard]] bool Has(std::string_view key) const;
  // True for an absent key, an empty array and an empty table; false for anything else, so that
  // a value of the wrong type is not reported as missing too.
  [[nodiscard]] bool IsAbsentOrEmpty(std::string_view key) const;

  // For a key that may be a number or a text, or a text or a table.
  [[nodiscard]] bool IsInteger(std::string_view key) const;
  [[nodiscard]] bool IsText(std::string_view key) const;

  // Where a mistake about `key` is reported: its value, or the table when it is absent.
  [[nodiscard]] std::size_t LineOf(std::string_view key) const;
  [[nodiscard]] std::string PathOf(std::string_view key) const;

  void AddMistake(std::string_view key, std::string what) const;
  void AddWarning(std::string_view key, std::string what) const;

  // Each of these leaves `out` alone when the key is absent or wrong, reports what is wrong, and
  // returns whether `out` was set.
  bool Read(std::string_view key, bool& out) const;
  bool Read(std::string_view key, std::string& out) const;
  // `zero`, unless empty, is what 0 means where it is allowed in spite of `least`; also below.
  bool ReadDuration(std::string_view key, Millis& out, Millis least, Millis most,
                    std::string_view zero = {}) const;

  // `parse` is one of the functions of values.h: text in, Result<T> out.
  template <class T, class Parse>
  bool ReadParsed(std::string_view key, T& out, Parse parse) const {
    const auto item = Text(key);
    if (!item) {
      return false;
    }
    auto value = parse(item->text);
    if (!value) {
      AddMistake(key, std::move(value.error().message));
      return false;
    }
    out = std::move(*value);
    return true;
  }

  template <std::unsigned_integral T>
  bool ReadCount(std::string_view key, T& out, std::uint64_t least, std::uint64_t most) const {
    const auto value = Count(key, least, most);
    out = value ? static_cast<T>(*value) : out;
    return value.has_value();
  }

  // A number that has a meaning of its own, as a status has: `is_good` tells which there are and
  // `allowed` says so; `why_not` is what is wrong with any other, to stand behind it.
  template <std::unsigned_integral T, class Predicate>
  bool ReadCode(std::string_view key, T& out, Predicate is_good, std::string_view why_not,
                std::string_view allowed) const {
    const auto value = Integer(key, allowed);
    if (!value) {
      return false;
    }
    if (!std::in_range<T>(*value) || !is_good(static_cast<T>(*value))) {
      AddMistake(
          key,
          std::to_string(*value).append(" ").append(why_not).append("; allowed: ").append(allowed));
      return false;
    }
    out = static_cast<T>(*value);
    return true;
  }

  template <std::unsigned_integral T>
  bool ReadSize(std::string_view key, T& out, std::uint64_t least, std::uint64_t most,
                std::string_view zero = {}) const {
    const auto value = Size(key, least, most, zero);
    out = value ? static_cast<T>(*value) : out;
    return value.has_value();
  }

  // An integer or a floating-point number, finite.
  bool ReadNumber(std::string_view key, double& out, double least, double most,
                  std::string_view zero = {}) const;

  // `words` and `values` correspond by index.
  template <class E, std::size_t N>
  bool ReadWord(std::string_view key, E& out, const std::string_view (&words)[N],
                const E (&values)[N]) const {
    const auto index = Word(key, words);
    out = index ? values[*index] : out;
    return index.has_value();
  }

  // The string at `key`; nothing when it is absent or no string.
  [[nodiscard]] std::optional<TextItem> Text(std::string_view key) const;

  // An array of strings, or a single string as an array of one.
  [[nodiscard]] std::vector<TextItem> Texts(std::string_view key) const;

  // The table at `key`. `form` says how to write it, for the message when it is something else.
  [[nodiscard]] std::optional<TableReader> Table(std::string_view key, std::string_view keys_path,
                                                 std::string_view form) const;

  // The tables of an array.
  [[nodiscard]] std::vector<TableReader> Tables(std::string_view key, std::string_view keys_path,
                                                std::string_view form) const;

  // All strings inside the table at `key`, whose names the user chose, in file order.
  [[nodiscard]] std::vector<std::pair<std::string, TextItem>> NamedTexts(
      std::string_view key, std::string_view form) const;

  // All tables inside the table at `key`, whose names the user chose, in file order.
  [[nodiscard]] std::vector<std::pair<std::string, TableReader>> NamedTables(
      std::string_view key, std::string_view keys_path, std::string_view form) const;

 private:
  // What is inside a table whose names the user chose.
  struct Named {
    std::string name;
    std::string path;
    const toml::node* node;
  };

  // In file order; none when there is no table at `key`.
  [[nodiscard]] std::vector<Named> AllNamed(std::string_view key, std::string_view form) const;
  [[nodiscard]] static std::size_t LineOf(const toml::node& node) noexcept;
  [[nodiscard]] const toml::node* Find(std::string_view key) const;
  void ReportUnknownKeys() const;
  // `allowed`: the values that are; empty when the type says it.
  void ReportType(std::string_view key, const toml::node& node, std::string_view want,
                  std::string_view allowed = {}) const;
  // `allowed` is told when there is something else than an integer.
  [[nodiscard]] std::optional<std::int64_t> Integer(std::string_view key,
                                                    std::string_view allowed) const;
  [[nodiscard]] std::optional<std::uint64_t> Count(std::string_view key, std::uint64_t least,
                                                   std::uint64_t most) const;
  [[nodiscard]] std::optional<std::uint64_t> Size(std::string_view key, std::uint64_t least,
                                                  std::uint64_t most, std::string_view zero) const;
  [[nodiscard]] std::optional<std::size_t> Word(std::string_view key,
                                                std::span<const std::string_view> words) const;

  Report& report_;
  const toml::table& table_;
  const KeyTable& keys_;
  std::string path_;
};

}  // namespace sluice::config
