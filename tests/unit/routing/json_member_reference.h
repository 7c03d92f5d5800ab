// A second reading of the texts that JsonMember reads, by nlohmann-json, for comparing the two.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "proxy/routing/json_member.h"

namespace sluice::routing {

// Ends at the first string of that name in the object, and where none is to be found any more.
class JsonMemberSax : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit JsonMemberSax(std::string_view name) : name_(name) {}

  // Empty: none.
  [[nodiscard]] const std::string& found() const { return found_; }
  // The two need not agree about this text: it has a number beyond double, or bad UTF-8.
  [[nodiscard]] bool incomparable() const { return incomparable_; }

  bool null() override { return Pass(); }
  bool boolean(bool) override { return Pass(); }
  bool number_integer(number_integer_t) override { return Pass(); }
  bool number_unsigned(number_unsigned_t) override { return Pass(); }
  bool number_float(number_float_t, const string_t&) override { return Pass(); }
  bool binary(binary_t&) override { return Pass(); }
  bool string(string_t& value) override {
    if (wanted_ && value.size() <= JsonMember::kMostValue) {
      found_ = value;
    }
    return !wanted_;
  }
  bool key(string_t& name) override {
    wanted_ = depth_ == 1 && name == name_;
    return true;
  }
  bool start_object(std::size_t) override { return Open(); }
  bool start_array(std::size_t) override { return Open(); }
  bool end_object() override { return --depth_ > 0; }
  bool end_array() override { return --depth_ > 0; }
  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::detail::exception& error) override {
    constexpr int kOutOfRange = 406;
    incomparable_ = error.id == kOutOfRange ||
                    std::string_view(error.what()).find("UTF-8") != std::string_view::npos;
    return false;
  }

 private:
  bool Pass() {
    wanted_ = false;
    return true;
  }
  bool Open() {
    wanted_ = false;
    return ++depth_ <= JsonMember::kMostDepth;
  }

  std::string_view name_;
  std::string found_;
  unsigned depth_ = 0;
  bool wanted_ = false;
  bool incomparable_ = false;
};

// The string that the other reading finds in `text`, which begins with its object, or an empty one.
// Nothing where the two need not agree.
[[nodiscard]] inline std::optional<std::string> ReferenceFinds(std::string_view text,
                                                               std::string_view name) {
  JsonMemberSax sax(name);
  nlohmann::json::sax_parse(text, &sax, nlohmann::json::input_format_t::json, false);
  return sax.incomparable() ? std::nullopt : std::optional(sax.found());
}

// What JsonMember says of a text that comes in these pieces, and what it finds.
struct JsonFinding {
  ParseStatus status = ParseStatus::kNeedMore;
  std::string value;

  bool operator==(const JsonFinding&) const = default;
};

[[nodiscard]] inline JsonFinding FindingOf(const std::vector<std::string_view>& pieces,
                                           std::string_view name) {
  JsonMember member(name);
  for (const std::string_view piece : pieces) {
    const ParseStatus status = member.Advance(piece);
    if (status != ParseStatus::kNeedMore) {
      return {status, status == ParseStatus::kDone ? member.value() : std::string()};
    }
  }
  return {};
}

}  // namespace sluice::routing
