#include "proxy/routing/json_member.h"

#include <utility>

#include "proxy/routing/hex.h"

namespace sluice::routing {
namespace {

bool IsSpace(char c) noexcept {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool IsDigit(char c) noexcept {
  return c >= '0' && c <= '9';
}

}  // namespace

ParseStatus JsonMember::Advance(std::string_view bytes) {
  for (const char c : bytes) {
    if (++seen_ > kMostBytes) {
      return ParseStatus::kBad;
    }
    if (const ParseStatus status = Take(c); status != ParseStatus::kNeedMore) {
      return status;
    }
  }
  return ParseStatus::kNeedMore;
}

ParseStatus JsonMember::Take(char c) {
  switch (state_) {
    case State::kPreamble:
      if (c == '{') {
        return Open(false);
      }
      // The first object inside an array is not the text itself.
      return c == '[' || seen_ > kMostPreamble ? ParseStatus::kBad : ParseStatus::kNeedMore;
    case State::kString:
      return TakeInString(c);
    case State::kEscape:
      return TakeEscaped(c);
    case State::kHex:
      return TakeHex(c);
    case State::kLowBackslash:
      state_ = State::kLowU;
      return c == '\\' ? ParseStatus::kNeedMore : ParseStatus::kBad;
    case State::kLowU:
      state_ = State::kHex;
      return c == 'u' ? ParseStatus::kNeedMore : ParseStatus::kBad;
    case State::kLiteral:
      if (c != literal_.front()) {
        return ParseStatus::kBad;
      }
      literal_.remove_prefix(1);
      if (literal_.empty()) {
        state_ = State::kAfterValue;
      }
      return ParseStatus::kNeedMore;
    case State::kMinus:
    case State::kZero:
    case State::kInteger:
    case State::kPoint:
    case State::kFraction:
    case State::kExponent:
    case State::kSign:
    case State::kPower:
      return TakeInNumber(c);
    default:
      break;
  }
  // Between tokens.
  if (IsSpace(c)) {
    return ParseStatus::kNeedMore;
  }
  switch (state_) {
    case State::kFirstName:
    case State::kName:
      if (c == '"') {
        is_name_ = true;
        BeginString(depth_ == 1 ? Keep::kName : Keep::kNothing);
        return ParseStatus::kNeedMore;
      }
      return state_ == State::kFirstName ? Close(c) : ParseStatus::kBad;
    case State::kColon:
      state_ = State::kValue;
      return c == ':' ? ParseStatus::kNeedMore : ParseStatus::kBad;
    case State::kFirstElement:
      return c == ']' ? Close(c) : BeginValue(c);
    case State::kValue:
      return BeginValue(c);
    default:  // kAfterValue
      if (c == ',') {
        state_ = (arrays_ >> (depth_ - 1) & 1U) != 0 ? State::kValue : State::kName;
        return ParseStatus::kNeedMore;
      }
      return Close(c);
  }
}

ParseStatus JsonMember::BeginValue(char c) {
  const bool wanted = std::exchange(matches_, false);
  switch (c) {
    case '"':
      is_name_ = false;
      BeginString(wanted ? Keep::kValue : Keep::kNothing);
      return ParseStatus::kNeedMore;
    case '{':
      return Open(false);
    case '[':
      return Open(true);
    case 't':
      literal_ = "rue";
      break;
    case 'f':
      literal_ = "alse";
      break;
    case 'n':
      literal_ = "ull";
      break;
    case '-':
      state_ = State::kMinus;
      return ParseStatus::kNeedMore;
    default:
      state_ = c == '0' ? State::kZero : State::kInteger;
      return IsDigit(c) ? ParseStatus::kNeedMore : ParseStatus::kBad;
  }
  state_ = State::kLiteral;
  return ParseStatus::kNeedMore;
}

ParseStatus JsonMember::Open(bool array) {
  if (depth_ == kMostDepth) {
    return ParseStatus::kBad;
  }
  const std::uint64_t bit = std::uint64_t{1} << depth_++;
  arrays_ = array ? arrays_ | bit : arrays_ & ~bit;
  state_ = array ? State::kFirstElement : State::kFirstName;
  return ParseStatus::kNeedMore;
}

// `c` has to end the innermost array or object. The end of the outermost ends the search.
ParseStatus JsonMember::Close(char c) {
  const bool array = (arrays_ >> (depth_ - 1) & 1U) != 0;
  state_ = State::kAfterValue;
  return c == (array ? ']' : '}') && --depth_ > 0 ? ParseStatus::kNeedMore : ParseStatus::kBad;
}

void JsonMember::BeginString(Keep keep) {
  state_ = State::kString;
  keep_ = keep;
  text_.clear();
  too_long_ = false;
}

ParseStatus JsonMember::TakeInString(char c) {
  if (c == '"') {
    return EndString();
  }
  if (c == '\\') {
    state_ = State::kEscape;
    return ParseStatus::kNeedMore;
  }
  if (static_cast<unsigned char>(c) < 0x20) {
    return ParseStatus::kBad;
  }
  Append(c);
  return ParseStatus::kNeedMore;
}

ParseStatus JsonMember::TakeEscaped(char c) {
  constexpr std::string_view kLetters = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (c == 'u') {
    state_ = State::kHex;
    return ParseStatus::kNeedMore;
  }
  const std::size_t at = kLetters.find(c);
  if (at == std::string_view::npos) {
    return ParseStatus::kBad;
  }
  state_ = State::kString;
  Append(kMeanings[at]);
  return ParseStatus::kNeedMore;
}

ParseStatus JsonMember::TakeHex(char c) {
  const int digit = HexValue(c);
  if (digit < 0) {
    return ParseStatus::kBad;
  }
  unit_ = unit_ << 4 | static_cast<std::uint32_t>(digit);
  if (++digits_ < 4) {
    return ParseStatus::kNeedMore;
  }
  digits_ = 0;
  const std::uint32_t unit = std::exchange(unit_, 0);
  const std::uint32_t high = std::exchange(high_, 0);
  const bool is_high = unit >= 0xD800 && unit < 0xDC00;
  const bool is_low = unit >= 0xDC00 && unit < 0xE000;
  // Half a pair is no character, and has no UTF-8.
  if (is_low != (high != 0)) {
    return ParseStatus::kBad;
  }
  if (is_high) {
    high_ = unit;
    state_ = State::kLowBackslash;
    return ParseStatus::kNeedMore;
  }
  state_ = State::kString;
  AppendCodePoint(is_low ? 0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00) : unit);
  return ParseStatus::kNeedMore;
}

ParseStatus JsonMember::EndString() {
  if (is_name_) {
    matches_ = keep_ == Keep::kName && !too_long_ && text_ == name_;
    state_ = State::kColon;
    return ParseStatus::kNeedMore;
  }
  state_ = State::kAfterValue;
  if (keep_ != Keep::kValue) {
    return ParseStatus::kNeedMore;
  }
  return too_long_ || text_.empty() ? ParseStatus::kBad : ParseStatus::kDone;
}

void JsonMember::Append(char c) {
  if (keep_ == Keep::kNothing) {
    return;
  }
  if (text_.size() < (keep_ == Keep::kName ? name_.size() : kMostValue)) {
    text_ += c;
  } else {
    too_long_ = true;
  }
}

void JsonMember::AppendCodePoint(std::uint32_t point) {
  const auto append = [this](std::uint32_t byte) { Append(static_cast<char>(byte)); };
  const auto append_rest = [&](unsigned shift) { append(0x80 | (point >> shift & 0x3F)); };
  if (point < 0x80) {
    append(point);
  } else if (point < 0x800) {
    append(0xC0 | point >> 6);
    append_rest(0);
  } else if (point < 0x10000) {
    append(0xE0 | point >> 12);
    append_rest(6);
    append_rest(0);
  } else {
    append(0xF0 | point >> 18);
    append_rest(12);
    append_rest(6);
    append_rest(0);
  }
}

ParseStatus JsonMember::TakeInNumber(char c) {
  const bool digit = IsDigit(c);
  const bool exponent = c == 'e' || c == 'E';
  switch (state_) {
    case State::kMinus:
      state_ = c == '0' ? State::kZero : State::kInteger;
      return digit ? ParseStatus::kNeedMore : ParseStatus::kBad;
    case State::kPoint:
      state_ = State::kFraction;
      return digit ? ParseStatus::kNeedMore : ParseStatus::kBad;
    case State::kExponent:
      state_ = digit ? State::kPower : State::kSign;
      return digit || c == '+' || c == '-' ? ParseStatus::kNeedMore : ParseStatus::kBad;
    case State::kSign:
      state_ = State::kPower;
      return digit ? ParseStatus::kNeedMore : ParseStatus::kBad;
    default:
      break;
  }
  if (digit && state_ != State::kZero) {
    return ParseStatus::kNeedMore;
  }
  if (c == '.' && (state_ == State::kZero || state_ == State::kInteger)) {
    state_ = State::kPoint;
    return ParseStatus::kNeedMore;
  }
  if (exponent && state_ != State::kPower) {
    state_ = State::kExponent;
    return ParseStatus::kNeedMore;
  }
  // Nothing else ends a number: what comes behind it does.
  state_ = State::kAfterValue;
  return Take(c);
}

}  // namespace sluice::routing
