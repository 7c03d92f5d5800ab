#include "proxy/config/table_reader.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdio>

#include "proxy/config/values.h"

namespace sluice::config {
namespace {

std::string_view TypeName(const toml::node& node) noexcept {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a floating-point number";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time:
      return "a date or time";
    case toml::node_type::none:
      break;
  }
  return "nothing";
}

// "0.25", "1000000", "1e+15".
std::string NumberText(double number) {
  std::array<char, 32> text{};
  const int size = std::snprintf(text.data(), text.size(), "%.10g", number);
  return {text.data(), static_cast<std::size_t>(size)};
}

std::string NumberText(const toml::node& node) {
  if (const auto* const integer = node.as_integer()) {
    return std::to_string(integer->get());
  }
  return NumberText(node.value_or(0.0));
}

// "1 to 16", for what is allowed.
std::string Range(std::string_view least, std::string_view most) {
  return std::string(least) + " to " + std::string(most);
}

std::string OutOfRange(std::string_view value, std::string_view range) {
  return std::string(value) + " is out of range; allowed: " + std::string(range);
}

// "0s (off) or ", for what is allowed besides a range; `meaning` may be empty: nothing is.
std::string OrZero(std::string_view zero, std::string_view meaning) {
  return meaning.empty() ? "" : std::string(zero) + " (" + std::string(meaning) + ") or ";
}

// The table that a key which is unknown in `where` belongs to, if it is a key of exactly one table
// inside of that, or of exactly one at all.
std::optional<std::string_view> HomeOf(std::string_view key, std::string_view where) {
  std::vector<std::string_view> homes;
  std::vector<std::string_view> inside;
  for (const KeyTable& table : AllKeyTables()) {
    if (std::find(table.keys.begin(), table.keys.end(), key) == table.keys.end()) {
      continue;
    }
    homes.push_back(table.path);
    if (table.path.starts_with(std::string(where) + ".")) {
      inside.push_back(table.path);
    }
  }
  const std::vector<std::string_view>& found = inside.size() == 1 ? inside : homes;
  return found.size() == 1 ? std::optional(found.front()) : std::nullopt;
}

}  // namespace

void Report::AddMistake(std::size_t line, std::string key, std::string what) {
  mistakes_.push_back({line, std::move(key), std::move(what)});
}

void Report::AddWarning(std::size_t line, std::string key, std::string what) {
  warnings_.push_back({line, std::move(key), std::move(what)});
}

std::vector<Mistake> Report::Take(std::vector<Entry>& entries) const {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.line < b.line; });
  std::vector<Mistake> out;
  out.reserve(entries.size());
  for (Entry& entry : entries) {
    out.push_back(
        {name_ + ":" + std::to_string(entry.line), std::move(entry.key), std::move(entry.what)});
  }
  entries.clear();
  return out;
}

TableReader::TableReader(Report& report, const toml::table& table, std::string_view keys_path,
                         std::string path)
    : report_(report), table_(table), keys_(KeysOf(keys_path)), path_(std::move(path)) {
  ReportUnknownKeys();
}

void TableReader::ReportUnknownKeys() const {
  for (const auto& [key, node] : table_) {
    const std::string_view name = key.str();
    if (std::find(keys_.keys.begin(), keys_.keys.end(), name) != keys_.keys.end()) {
      continue;
    }
    std::string what = "unknown key; ";
    if (const auto nearest = Nearest(name, keys_.keys)) {
      what += "did you mean " + Quoted(*nearest) + "? ";
    } else if (const auto home = HomeOf(name, keys_.path); home && !home->empty()) {
      what += "it belongs to \"" + std::string(*home) + "\"; ";
    }
    what += "allowed here: " + Joined(keys_.keys);
    report_.AddMistake(key.source().begin.line, PathOf(name), std::move(what));
  }
}

std::size_t TableReader::LineOf(const toml::node& node) noexcept {
  // The root of a document without a single key has no place of its own.
  return std::max<std::size_t>(1, node.source().begin.line);
}

const toml::node* TableReader::Find(std::string_view key) const {
  assert(std::find(keys_.keys.begin(), keys_.keys.end(), key) != keys_.keys.end() &&
         "keys.cc lacks a key that the loader reads");
  return table_.get(key);
}

bool TableReader::Has(std::string_view key) const {
  return Find(key) != nullptr;
}

bool TableReader::IsAbsentOrEmpty(std::string_view key) const {
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return true;
  }
  const toml::array* const array = node->as_array();
  const toml::table* const table = node->as_table();
  return (array != nullptr && array->empty()) || (table != nullptr && table->empty());
}

bool TableReader::IsInteger(std::string_view key) const {
  const toml::node* const node = Find(key);
  return node != nullptr && node->is_integer();
}

bool TableReader::IsText(std::string_view key) const {
  const toml::node* const node = Find(key);
  return node != nullptr && node->is_string();
}

std::size_t TableReader::LineOf(std::string_view key) const {
  const toml::node* const node = Find(key);
  return node != nullptr ? LineOf(*node) : line();
}

std::string TableReader::PathOf(std::string_view key) const {
  // A key that needs quotes in the file keeps them here; so does one that would break the line.
  const bool bare = std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  const std::string name = bare && !key.empty() ? std::string(key) : Quoted(key);
  return path_.empty() ? name : path_ + "." + name;
}

void TableReader::AddMistake(std::string_view key, std::string what) const {
  report_.AddMistake(LineOf(key), PathOf(key), std::move(what));
}

void TableReader::AddWarning(std::string_view key, std::string what) const {
  report_.AddWarning(LineOf(key), PathOf(key), std::move(what));
}

void TableReader::ReportType(std::string_view key, const toml::node& node, std::string_view want,
                             std::string_view allowed) const {
  std::string what = "must be " + std::string(want) + ", not " + std::string(TypeName(node));
  if (!allowed.empty()) {
    what.append("; allowed: ").append(allowed);
  }
  AddMistake(key, std::move(what));
}

bool TableReader::Read(std::string_view key, bool& out) const {
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return false;
  }
  const auto* const value = node->as_boolean();
  if (value == nullptr) {
    ReportType(key, *node, "true or false");
    return false;
  }
  out = value->get();
  return true;
}

bool TableReader::Read(std::string_view key, std::string& out) const {
  const auto item = Text(key);
  if (item) {
    out = item->text;
  }
  return item.has_value();
}

std::optional<TextItem> TableReader::Text(std::string_view key) const {
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return std::nullopt;
  }
  const auto* const value = node->as_string();
  if (value == nullptr) {
    ReportType(key, *node, "a string");
    return std::nullopt;
  }
  return TextItem{value->get(), LineOf(*node), PathOf(key)};
}

bool TableReader::ReadDuration(std::string_view key, Millis& out, Millis least, Millis most,
                               std::string_view zero) const {
  const toml::node* const node = Find(key);
  if (node != nullptr && node->is_number()) {
    const std::string number = NumberText(*node);
    AddMistake(key, number + " has no unit; write it as a string with ms, s, m, h or d, such as " +
                        (node->is_integer() ? Quoted(number + "s") : "\"500ms\""));
    return false;
  }
  const std::string range = OrZero("0s", zero) + Range(FormatDuration(least), FormatDuration(most));
  if (node != nullptr && !node->is_string()) {
    ReportType(key, *node, "a string", range);
    return false;
  }
  Millis value{};
  if (!ReadParsed(key, value, ParseDuration)) {
    return false;
  }
  const bool is_zero = value.count() == 0 && !zero.empty();
  if (!is_zero && (value < least || value > most)) {
    AddMistake(key, OutOfRange(Quoted(Text(key)->text), range));
    return false;
  }
  out = value;
  return true;
}

std::optional<std::uint64_t> TableReader::Size(std::string_view key, std::uint64_t least,
                                               std::uint64_t most, std::string_view zero) const {
  const toml::node* const node = Find(key);
  if (node != nullptr && node->is_number()) {
    const std::string number = NumberText(*node);
    AddMistake(key, number +
                        " has no unit; write it as a string with B, KB, KiB, MB, MiB, GB or "
                        "GiB, such as " +
                        (node->is_integer() ? Quoted(number + "B") : "\"64KiB\""));
    return std::nullopt;
  }
  const std::string range = OrZero("0B", zero) + Range(FormatSize(least), FormatSize(most));
  if (node != nullptr && !node->is_string()) {
    ReportType(key, *node, "a string", range);
    return std::nullopt;
  }
  std::uint64_t value = 0;
  if (!ReadParsed(key, value, ParseSize)) {
    return std::nullopt;
  }
  const bool is_zero = value == 0 && !zero.empty();
  if (!is_zero && (value < least || value > most)) {
    AddMistake(key, OutOfRange(Quoted(Text(key)->text), range));
    return std::nullopt;
  }
  return value;
}

std::optional<std::int64_t> TableReader::Integer(std::string_view key,
                                                 std::string_view allowed) const {
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return std::nullopt;
  }
  const auto* const value = node->as_integer();
  if (value == nullptr) {
    ReportType(key, *node, "an integer", allowed);
    return std::nullopt;
  }
  return value->get();
}

std::optional<std::uint64_t> TableReader::Count(std::string_view key, std::uint64_t least,
                                                std::uint64_t most) const {
  const std::string range = Range(std::to_string(least), std::to_string(most));
  const auto number = Integer(key, range);
  if (!number) {
    return std::nullopt;
  }
  if (*number < 0 || static_cast<std::uint64_t>(*number) < least ||
      static_cast<std::uint64_t>(*number) > most) {
    AddMistake(key, OutOfRange(std::to_string(*number), range));
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(*number);
}

bool TableReader::ReadNumber(std::string_view key, double& out, double least, double most,
                             std::string_view zero) const {
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return false;
  }
  const auto value = node->is_number() ? node->value<double>() : std::nullopt;
  const std::string range = OrZero("0", zero) + Range(NumberText(least), NumberText(most));
  if (!value || !std::isfinite(*value)) {
    ReportType(key, *node, "a finite number", range);
    return false;
  }
  const bool is_zero = *value == 0 && !zero.empty();
  if (!is_zero && (*value < least || *value > most)) {
    AddMistake(key, OutOfRange(NumberText(*value), range));
    return false;
  }
  out = *value;
  return true;
}

std::optional<std::size_t> TableReader::Word(std::string_view key,
                                             std::span<const std::string_view> words) const {
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return std::nullopt;
  }
  const auto* const value = node->as_string();
  if (value == nullptr) {
    ReportType(key, *node, "a string", Joined(words));
    return std::nullopt;
  }
  const auto found = std::find(words.begin(), words.end(), value->get());
  if (found == words.end()) {
    std::string what = Quoted(value->get()) + " is not known; ";
    if (const auto nearest = Nearest(value->get(), words)) {
      what += "did you mean " + Quoted(*nearest) + "? ";
    }
    AddMistake(key, what + "allowed: " + Joined(words));
    return std::nullopt;
  }
  return static_cast<std::size_t>(found - words.begin());
}

std::vector<TextItem> TableReader::Texts(std::string_view key) const {
  std::vector<TextItem> out;
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return out;
  }
  if (const auto* const single = node->as_string()) {
    out.push_back({single->get(), LineOf(*node), PathOf(key)});
    return out;
  }
  const toml::array* const array = node->as_array();
  if (array == nullptr) {
    ReportType(key, *node, "an array of strings");
    return out;
  }
  for (std::size_t i = 0; i < array->size(); ++i) {
    const toml::node& element = (*array)[i];
    std::string path = PathOf(key) + "[" + std::to_string(i) + "]";
    if (const auto* const text = element.as_string()) {
      out.push_back({text->get(), LineOf(element), std::move(path)});
    } else {
      report_.AddMistake(LineOf(element), std::move(path),
                         "must be a string, not " + std::string(TypeName(element)));
    }
  }
  return out;
}

std::optional<TableReader> TableReader::Table(std::string_view key, std::string_view keys_path,
                                              std::string_view form) const {
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return std::nullopt;
  }
  const toml::table* const table = node->as_table();
  if (table == nullptr) {
    ReportType(key, *node, form);
    return std::nullopt;
  }
  return std::optional<TableReader>(std::in_place, report_, *table, keys_path, PathOf(key));
}

std::vector<TableReader> TableReader::Tables(std::string_view key, std::string_view keys_path,
                                             std::string_view form) const {
  std::vector<TableReader> out;
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return out;
  }
  const toml::array* const array = node->as_array();
  if (array == nullptr) {
    ReportType(key, *node, form);
    return out;
  }
  for (std::size_t i = 0; i < array->size(); ++i) {
    const toml::node& element = (*array)[i];
    std::string path = PathOf(key) + "[" + std::to_string(i) + "]";
    if (const toml::table* const table = element.as_table()) {
      out.emplace_back(report_, *table, keys_path, std::move(path));
    } else {
      report_.AddMistake(LineOf(element), std::move(path),
                         "must be a table, not " + std::string(TypeName(element)));
    }
  }
  return out;
}

std::vector<TableReader::Named> TableReader::AllNamed(std::string_view key,
                                                      std::string_view form) const {
  const toml::node* const node = Find(key);
  if (node == nullptr) {
    return {};
  }
  const toml::table* const table = node->as_table();
  if (table == nullptr) {
    ReportType(key, *node, form);
    return {};
  }
  std::vector<std::pair<toml::source_position, Named>> found;
  for (const auto& [name, child] : *table) {
    const std::string text(name.str());
    const bool bare = IsToken(text) && text.find('.') == std::string::npos;
    found.push_back(
        {name.source().begin, {text, PathOf(key) + "." + (bare ? text : Quoted(text)), &child}});
  }
  // The parser keeps tables by name; the file's order is what a user sees in every list.
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Named> out;
  for (auto& [place, named] : found) {
    out.push_back(std::move(named));
  }
  return out;
}

std::vector<std::pair<std::string, TextItem>> TableReader::NamedTexts(std::string_view key,
                                                                      std::string_view form) const {
  std::vector<std::pair<std::string, TextItem>> out;
  for (Named& entry : AllNamed(key, form)) {
    const std::size_t line = LineOf(*entry.node);
    if (const auto* const text = entry.node->as_string()) {
      out.emplace_back(std::move(entry.name), TextItem{text->get(), line, std::move(entry.path)});
    } else {
      report_.AddMistake(line, std::move(entry.path),
                         "must be a string, not " + std::string(TypeName(*entry.node)));
    }
  }
  return out;
}

std::vector<std::pair<std::string, TableReader>> TableReader::NamedTables(
    std::string_view key, std::string_view keys_path, std::string_view form) const {
  std::vector<std::pair<std::string, TableReader>> out;
  for (Named& entry : AllNamed(key, form)) {
    if (const toml::table* const child = entry.node->as_table()) {
      out.emplace_back(std::move(entry.name),
                       TableReader(report_, *child, keys_path, std::move(entry.path)));
    } else {
      report_.AddMistake(
          LineOf(*entry.node), std::move(entry.path),
          "must be " + std::string(form) + ", not " + std::string(TypeName(*entry.node)));
    }
  }
  return out;
}

}  // namespace sluice::config
