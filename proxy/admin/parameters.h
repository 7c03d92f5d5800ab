// The parameters of a request to the API: from its query, percent-decoded, or from the JSON object
// that is its content, or some from each. Whatever is not expected is refused by name. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "proxy/admin/message.h"

namespace sluice::admin {

// How a value is written in JSON; in a query all are text.
enum class ParameterKind : std::uint8_t {
  kText,    // a string
  kNumber,  // a number
  kFlag,    // true or false
};

struct Parameter {
  std::string_view name;
  ParameterKind kind = ParameterKind::kText;
};

class Parameters {
 public:
  // 400: an unknown name, a name given twice, a value of the wrong type or a broken encoding;
  // 415: content that is not application/json.
  [[nodiscard]] static Outcome<Parameters> Read(const AdminRequest& request,
                                                std::span<const Parameter> allowed);

  // The value as text, or null. Lives as long as this.
  [[nodiscard]] const std::string* Find(std::string_view name) const;

  // The value as a number; 400 unless it is one and from `least` to `most`.
  [[nodiscard]] Outcome<std::optional<std::uint64_t>> Count(std::string_view name,
                                                            std::uint64_t least,
                                                            std::uint64_t most) const;

  // Above zero and at most `most`.
  [[nodiscard]] Outcome<std::optional<double>> Rate(std::string_view name, double most) const;

  // "true" or "false"; absent: false.
  [[nodiscard]] Outcome<bool> Flag(std::string_view name) const;

  // "30s"; from 0 to `most`.
  [[nodiscard]] Outcome<std::optional<Millis>> Duration(std::string_view name, Millis most) const;

  // All that were given, by name.
  [[nodiscard]] const std::map<std::string, std::string, std::less<>>& all() const noexcept {
    return values_;
  }

 private:
  [[nodiscard]] Outcome<void> ReadQuery(std::string_view query, std::span<const Parameter> allowed);
  [[nodiscard]] Outcome<void> ReadContent(const AdminRequest& request,
                                          std::span<const Parameter> allowed);
  [[nodiscard]] Outcome<void> Put(const std::string& name, const std::string& value);

  std::map<std::string, std::string, std::less<>> values_;
};

// A problem without title and mistakes, to be returned. `detail` is one sentence.
[[nodiscard]] tl::unexpected<Problem> Refused(int status, std::string detail);

// Takes the percent-encoding off (RFC 3986 section 2.1); nothing when it is broken. In a query "+"
// is a space.
[[nodiscard]] std::optional<std::string> DecodePercent(std::string_view text, bool in_query);

}  // namespace sluice::admin
