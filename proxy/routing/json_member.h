// Finds one string among the members of a JSON object (RFC 8259) that comes in pieces: the token in
// the answer of a backend that hands one out. Strict about everything up to there, and blind to
// what follows. Bounded, whatever comes; pure.
//
// A reader of our own and no library: the token has to be known before the bytes that end it go to
// the client, who may use it at once, and a library wants the whole text, whose end is not seen
// until it is there. So nothing is held back, and only the token is copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "proxy/base/parse_status.h"

namespace sluice::routing {

class JsonMember {
 public:
  // Bytes that are looked at; a member behind them is not found.
  static constexpr std::size_t kMostBytes = 16 * 1024;
  // Bytes that may stand before the object, such as the type of an engine.io packet.
  static constexpr std::size_t kMostPreamble = 16;
  // Bytes of the string; a longer one is none.
  static constexpr std::size_t kMostValue = 512;
  static constexpr unsigned kMostDepth = 64;

  // `name` outlives this.
  explicit JsonMember(std::string_view name) noexcept : name_(name) {}

  // Takes the next bytes of the text. kDone: the object has a member of that name, and value() is
  // its string. kBad: it will not be found; this is no such object, or it has no such member of 1
  // to kMostValue bytes. REQUIRES: nothing but kNeedMore was returned so far.
  [[nodiscard]] ParseStatus Advance(std::string_view bytes);

  // As UTF-8, with the escapes taken off. The first one, where several have the name.
  [[nodiscard]] const std::string& value() const noexcept { return text_; }

 private:
  enum class State : std::uint8_t {
    kPreamble,      // before the object
    kFirstName,     // behind "{": a name or "}"
    kName,          // behind "," in an object
    kColon,         // behind a name
    kFirstElement,  // behind "[": a value or "]"
    kValue,
    kAfterValue,  // "," or the end of what the value is in
    kString,
    kEscape,  // behind a backslash
    kHex,     // in the digits of \u
    kLowBackslash,
    kLowU,
    kLiteral,   // in true, false or null
    kMinus,     // a digit has to follow
    kZero,      // no digit may follow
    kInteger,   // digits before a point
    kPoint,     // a digit has to follow
    kFraction,  // digits behind the point
    kExponent,  // a sign or a digit has to follow
    kSign,      // a digit has to follow
    kPower,     // digits of the exponent
  };
  enum class Keep : std::uint8_t { kNothing, kName, kValue };  // what becomes of a string

  [[nodiscard]] ParseStatus Take(char c);
  [[nodiscard]] ParseStatus TakeInString(char c);
  [[nodiscard]] ParseStatus TakeEscaped(char c);
  [[nodiscard]] ParseStatus TakeHex(char c);
  [[nodiscard]] ParseStatus TakeInNumber(char c);
  [[nodiscard]] ParseStatus BeginValue(char c);
  [[nodiscard]] ParseStatus Open(bool array);
  [[nodiscard]] ParseStatus Close(char c);
  [[nodiscard]] ParseStatus EndString();
  void BeginString(Keep keep);
  void Append(char c);
  void AppendCodePoint(std::uint32_t point);

  std::string_view name_;
  std::string text_;          // of the string that is kept
  std::string_view literal_;  // the rest of it
  std::uint64_t arrays_ = 0;  // by depth: what is open there is an array
  std::size_t seen_ = 0;      // bytes, up to kMostBytes
  std::uint32_t unit_ = 0;    // of UTF-16, from \u
  std::uint32_t high_ = 0;    // the first half of a surrogate pair, or 0
  unsigned depth_ = 0;        // of open objects and arrays
  unsigned digits_ = 0;       // of \u so far
  State state_ = State::kPreamble;
  Keep keep_ = Keep::kNothing;
  bool is_name_ = false;   // the string is the name of a member
  bool matches_ = false;   // the next value is the one that is wanted
  bool too_long_ = false;  // the string is longer than what could be wanted
};

}  // namespace sluice::routing
