#include "proxy/http/parser.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "proxy/http/chars.h"

namespace sluice::http {

namespace detail {

enum class Fault : std::uint8_t {
  // Request line
  kBadMethod,
  kMethodTooLong,
  kBadRequestLine,
  kBadTarget,
  kTargetFragment,
  kBadTargetForm,
  kBadAuthority,
  kHostMismatch,
  kMissingVersion,
  kBadVersion,
  kRequestLineTooLong,
  // Status line
  kBadStatusLine,
  kBadStatus,
  kStatusLineTooLong,
  // Bytes that are wrong wherever they stand
  kBareLf,
  kBareCr,
  kNulByte,
  kControlByte,
  // Field lines
  kObsFold,
  kEmptyFieldName,
  kSpaceBeforeColon,
  kBadFieldName,
  kMissingColon,
  kTooManyFields,
  kHeadTooLarge,
  // Host
  kMissingHost,
  kDuplicateHost,
  kEmptyHost,
  kBadHost,
  kBadHostPort,
  // Framing
  kBadContentLength,
  kDuplicateContentLength,
  kContentLengthOverflow,
  kLengthAndEncoding,
  kBadTransferEncoding,
  kDuplicateTransferEncoding,
  kEncodingInHttp10,
  kCount,
};

}  // namespace detail

namespace {

using detail::Fault;

constexpr std::size_t kMaxMethodBytes = 32;
constexpr std::string_view kVersionPrefix = "HTTP/1.";

// What a parser starts its memory with: a browser's upgrade request has 14 to 20 fields.
constexpr std::size_t kFirstFields = 32;

// In the order of Fault.
constexpr std::array<HeadFault, static_cast<std::size_t>(Fault::kCount)> kFaults = {{
    {400, "The method is not a token.", "bad_method"},
    {400, "The method is longer than 32 bytes.", "method_too_long"},
    {400, "The request line must be method, target and version with one space between each.",
     "bad_request_line"},
    {400, "The request target has a byte that is not visible ASCII.", "bad_target"},
    {400, "The request target has a fragment.", "target_fragment"},
    {400, "The request target must be a path, an http or https URL, or * for OPTIONS.",
     "bad_target_form"},
    {400, "The authority in the request target is not host[:port].", "bad_authority"},
    {400, "The authority in the request target differs from the Host field.", "host_mismatch"},
    {400, "The request line has no HTTP version.", "missing_version"},
    {400, "The HTTP version must be HTTP/1.0 or HTTP/1.1.", "bad_version"},
    {414, "The request line is too long.", "request_line_too_long"},

    {400, "The status line is malformed.", "bad_status_line"},
    {400, "The status code is not between 100 and 599.", "bad_status"},
    {400, "The status line is too long.", "status_line_too_long"},

    {400, "A line ends with LF alone; it must end with CRLF.", "bare_lf"},
    {400, "A CR is not followed by LF.", "bare_cr"},
    {400, "The head has a NUL byte.", "nul_byte"},
    {400, "The head has a control character.", "control_byte"},

    {400, "A field line starts with a space or a tab.", "obs_fold"},
    {400, "A field has an empty name.", "empty_field_name"},
    {400, "There is a space between a field name and its colon.", "space_before_colon"},
    {400, "A field name is not a token.", "bad_field_name"},
    {400, "A field line has no colon.", "missing_colon"},
    {431, "The head has too many fields.", "too_many_fields"},
    {431, "The head is too large.", "head_too_large"},

    {400, "The Host field is missing.", "missing_host"},
    {400, "There is more than one Host field.", "duplicate_host"},
    {400, "The Host field is empty.", "empty_host"},
    {400, "The Host field is not a valid host name or address.", "bad_host"},
    {400, "The port in the Host field is not valid.", "bad_host_port"},

    {400, "Content-Length must be digits alone.", "bad_content_length"},
    {400, "There is more than one Content-Length.", "duplicate_content_length"},
    {400, "Content-Length is too large.", "content_length_overflow"},
    {400, "Content-Length and Transfer-Encoding exclude each other.", "length_and_encoding"},
    {400, "The only transfer coding that is taken is chunked.", "bad_transfer_encoding"},
    {400, "There is more than one Transfer-Encoding.", "duplicate_transfer_encoding"},
    {400, "Transfer-Encoding does not exist in HTTP/1.0.", "encoding_in_http10"},
}};

// ChunkedDecoder's own, see chunked.cc.
constexpr std::array<std::string_view, 8> kChunkLabels = {
    "bad_chunk_size",           "chunk_size_overflow", "chunk_line_end", "bad_chunk_extension",
    "chunk_extension_too_long", "chunk_data_end",      "bad_trailer",    "trailer_too_large",
};

constexpr std::array<std::string_view, kFaults.size() + kChunkLabels.size()> kLabels = [] {
  std::array<std::string_view, kFaults.size() + kChunkLabels.size()> labels{};
  std::size_t count = 0;
  for (const HeadFault& fault : kFaults) {
    labels[count++] = fault.label;
  }
  for (const std::string_view label : kChunkLabels) {
    labels[count++] = label;
  }
  return labels;
}();

const HeadFault& Describe(Fault fault) noexcept {
  return kFaults[static_cast<std::size_t>(fault)];
}

// What to call a byte that may stand nowhere in a line; `otherwise` if it only is out of place.
Fault FaultOfByte(char c, Fault otherwise) noexcept {
  switch (c) {
    case '\n':
      return Fault::kBareLf;
    case '\r':
      return Fault::kBareCr;
    case '\0':
      return Fault::kNulByte;
    default:
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? Fault::kControlByte : otherwise;
  }
}

std::size_t SkipClass(CharClass wanted, std::string_view text, std::size_t at,
                      std::size_t end) noexcept {
  while (at < end && IsA(wanted, text[at])) {
    ++at;
  }
  return at;
}

// Marks the bytes of eight that are below 0x20 or are 0x7F, each by its top bit. The borrow of a
// hit may mark a byte of more significance too, never one of less.
std::uint64_t ControlBytes(std::uint64_t eight) noexcept {
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  constexpr std::uint64_t kTops = kOnes * 0x80;
  const std::uint64_t del = eight ^ (kOnes * 0x7F);
  return (((eight - kOnes * 0x20) & ~eight) | ((del - kOnes) & ~del)) & kTops;
}

// Values are most of a head: eight bytes a step until one of them needs a look.
std::size_t SkipValue(std::string_view text, std::size_t at) noexcept {
  while (true) {
    std::uint64_t eight = 0;
    while (text.size() - at >= sizeof(eight)) {
      std::memcpy(&eight, text.data() + at, sizeof(eight));
      const std::uint64_t marks = ControlBytes(eight);
      if (marks != 0) {
        if constexpr (std::endian::native == std::endian::little) {
          at += static_cast<std::size_t>(std::countr_zero(marks)) / 8;  // the first one is real
        }
        break;
      }
      at += sizeof(eight);
    }
    const std::size_t stop = std::min(at + sizeof(eight), text.size());
    at = SkipClass(kValueChar, text, at, stop);
    if (at < stop || at == text.size()) {
      return at;
    }
  }
}

// RFC 3986 section 3.2.2, less than it allows: a DNS name or IPv4 address, or an IPv6 address in
// brackets; the sub-delims, percent-encoding and IPvFuture never name a host in practice, and a
// comma would make two hosts of one. An empty port is refused too.
enum class AuthorityForm { kHost, kHostPort, kEmpty, kBadHost, kBadPort };

AuthorityForm CheckAuthority(std::string_view text) noexcept {
  if (text.empty()) {
    return AuthorityForm::kEmpty;
  }
  std::size_t end = 0;
  if (text.front() == '[') {
    std::size_t colons = 0;
    end = 1;
    while (end < text.size() &&
           (IsA(kHexChar, text[end]) || text[end] == ':' || text[end] == '.')) {
      colons += text[end] == ':' ? 1U : 0U;
      ++end;
    }
    if (colons < 2 || end == text.size() || text[end] != ']') {
      return AuthorityForm::kBadHost;
    }
    ++end;
  } else {
    end = SkipClass(kHostChar, text, 0, text.size());
    if (end == 0) {
      return AuthorityForm::kBadHost;
    }
  }
  if (end == text.size()) {
    return AuthorityForm::kHost;
  }
  if (text[end] != ':') {
    return AuthorityForm::kBadHost;
  }
  const std::string_view digits = text.substr(end + 1);
  if (digits.empty() || digits.size() > 5) {
    return AuthorityForm::kBadPort;
  }
  unsigned port = 0;
  for (const char c : digits) {
    if (!IsA(kDigitChar, c)) {
      return AuthorityForm::kBadPort;
    }
    port = port * 10 + HexDigit(c);
  }
  return port >= 1 && port <= 65535 ? AuthorityForm::kHostPort : AuthorityForm::kBadPort;
}

// What a message's own fields say about it.
struct Facts {
  Fault fault = Fault::kCount;  // kCount: none
  bool has_length = false;
  bool chunked = false;
  bool close = false;
  bool keep_alive = false;
  bool expect_continue = false;
  unsigned hosts = 0;
  std::string_view host;
  std::uint64_t length = 0;
};

void ReadContentLength(std::string_view value, Facts& facts) noexcept {
  if (facts.has_length) {
    facts.fault = Fault::kDuplicateContentLength;
    return;
  }
  facts.has_length = true;
  if (value.empty() || SkipClass(kDigitChar, value, 0, value.size()) != value.size()) {
    facts.fault = Fault::kBadContentLength;
    return;
  }
  // RFC 9110 section 8.6 wants overflow caught. 2^63 - 1 keeps the number inside a signed type
  // that some backend may read it into.
  constexpr std::uint64_t kMax = UINT64_MAX >> 1;
  for (const char c : value) {
    const std::uint64_t digit = HexDigit(c);
    if (facts.length > (kMax - digit) / 10) {
      facts.fault = Fault::kContentLengthOverflow;
      return;
    }
    facts.length = facts.length * 10 + digit;
  }
}

// The elements of one field's list; fields of the same name are seen one after the other.
template <class Visit>
void VisitElements(std::string_view list, Visit&& visit) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    visit(Trim(list.substr(0, comma)));
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
}

// Reads the fields that decide about framing and routing.
Facts ReadFacts(const Fields& fields, int minor_version) {
  Facts facts;
  for (const Field& field : fields) {
    switch (field.id) {
      case FieldId::kHost:
        ++facts.hosts;
        facts.host = field.value;
        break;
      case FieldId::kExpect:
        VisitElements(field.value, [&](std::string_view element) {
          facts.expect_continue =
              facts.expect_continue || EqualsIgnoreCase(element, "100-continue");
        });
        break;
      case FieldId::kConnection:
        VisitElements(field.value, [&](std::string_view element) {
          facts.close = facts.close || EqualsIgnoreCase(element, "close");
          facts.keep_alive = facts.keep_alive || EqualsIgnoreCase(element, "keep-alive");
        });
        break;
      case FieldId::kContentLength:
        ReadContentLength(field.value, facts);
        break;
      case FieldId::kTransferEncoding:
        if (facts.chunked) {
          facts.fault = Fault::kDuplicateTransferEncoding;
        } else if (!EqualsIgnoreCase(field.value, "chunked")) {
          facts.fault = Fault::kBadTransferEncoding;
        }
        facts.chunked = true;
        break;
      default:
        break;
    }
    if (facts.fault != Fault::kCount) {
      return facts;
    }
  }
  if (facts.chunked && facts.has_length) {
    facts.fault = Fault::kLengthAndEncoding;  // RFC 9112 section 6.3 item 3
  } else if (facts.chunked && minor_version == 0) {
    facts.fault = Fault::kEncodingInHttp10;  // RFC 9112 section 6.1
  }
  return facts;
}

// RFC 9112 section 3.2: exactly one valid Host field in HTTP/1.1, at most one in HTTP/1.0.
Fault CheckHost(const Facts& facts, int minor_version) noexcept {
  if (facts.hosts == 0) {
    return minor_version == 0 ? Fault::kCount : Fault::kMissingHost;
  }
  if (facts.hosts > 1) {
    return Fault::kDuplicateHost;
  }
  switch (CheckAuthority(facts.host)) {
    case AuthorityForm::kEmpty:
      return Fault::kEmptyHost;
    case AuthorityForm::kBadHost:
      return Fault::kBadHost;
    case AuthorityForm::kBadPort:
      return Fault::kBadHostPort;
    default:
      return Fault::kCount;
  }
}

void SplitPath(std::string_view path_and_query, RequestHead& head) noexcept {
  const std::size_t mark = path_and_query.find('?');
  head.path = path_and_query.substr(0, mark);
  if (mark != std::string_view::npos) {
    head.query = path_and_query.substr(mark + 1);
  }
}

std::string_view WithoutPort(std::string_view authority, std::string_view port) noexcept {
  if (authority.ends_with(port)) {
    authority.remove_suffix(port.size());
  }
  return authority;
}

// RFC 9112 section 3.2: the four forms of a request target. Sets path, query, and host where the
// target alone names it. REQUIRES: head.method, target and host are set.
Fault ReadTarget(RequestHead& head) noexcept {
  const std::string_view target = head.target;
  if (target.find('#') != std::string_view::npos) {
    return Fault::kTargetFragment;
  }
  if (head.method == "CONNECT") {  // section 3.2.3: the port is not optional
    return CheckAuthority(target) == AuthorityForm::kHostPort ? Fault::kCount
                                                              : Fault::kBadAuthority;
  }
  if (target.front() == '/') {
    SplitPath(target, head);
    return Fault::kCount;
  }
  if (target == "*") {
    if (head.method != "OPTIONS") {
      return Fault::kBadTargetForm;
    }
    head.path = target;
    return Fault::kCount;
  }
  std::size_t scheme_bytes = 0;
  for (const std::string_view scheme :
       {std::string_view("http://"), std::string_view("https://")}) {
    if (EqualsIgnoreCase(target.substr(0, scheme.size()), scheme)) {
      scheme_bytes = scheme.size();
    }
  }
  if (scheme_bytes == 0) {
    return Fault::kBadTargetForm;
  }
  const std::string_view rest = target.substr(scheme_bytes);
  const std::size_t authority_end = std::min(rest.find_first_of("/?"), rest.size());
  const std::string_view authority = rest.substr(0, authority_end);
  const AuthorityForm form = CheckAuthority(authority);
  if (form != AuthorityForm::kHost && form != AuthorityForm::kHostPort) {
    return Fault::kBadAuthority;
  }
  if (head.host.empty()) {  // HTTP/1.0 without Host
    head.host = authority;
  } else if (const std::string_view port = scheme_bytes == 7 ? ":80" : ":443";
             !EqualsIgnoreCase(WithoutPort(authority, port), WithoutPort(head.host, port))) {
    return Fault::kHostMismatch;
  }
  SplitPath(rest.substr(authority_end), head);
  if (head.path.empty()) {
    // Section 3.2.4: an OPTIONS without path and query is about the server as a whole.
    head.path = head.method == "OPTIONS" && authority_end == rest.size() ? "*" : "/";
  }
  return Fault::kCount;
}

}  // namespace

namespace detail {

ParseStatus FieldScanner::Scan(std::string_view text, std::size_t& at, std::size_t max_fields) {
  if (lines_.capacity() == 0) {
    lines_.reserve(kFirstFields);
  }
  while (at < text.size()) {
    const char c = text[at];
    switch (part_) {
      case Part::kLineStart:
        if (c == '\r') {
          part_ = Part::kEndLf;
          ++at;
          break;
        }
        if (c == ' ' || c == '\t') {
          // RFC 9112 section 5.2 for a folded line, section 2.2 for the first one.
          return Refuse(Fault::kObsFold);
        }
        if (c == ':') {
          return Refuse(Fault::kEmptyFieldName);
        }
        if (!IsA(kTokenChar, c)) {
          return Refuse(FaultOfByte(c, Fault::kBadFieldName));
        }
        if (lines_.size() == max_fields) {
          return Refuse(Fault::kTooManyFields);
        }
        line_.name_begin = static_cast<std::uint32_t>(at);
        part_ = Part::kName;
        [[fallthrough]];

      case Part::kName:
        at = SkipClass(kTokenChar, text, at, text.size());
        if (at == text.size()) {
          return ParseStatus::kNeedMore;
        }
        if (text[at] != ':') {
          if (text[at] == ' ' || text[at] == '\t') {
            return Refuse(Fault::kSpaceBeforeColon);  // RFC 9112 section 5.1
          }
          return Refuse(text[at] == '\r' ? Fault::kMissingColon
                                         : FaultOfByte(text[at], Fault::kBadFieldName));
        }
        line_.name_end = static_cast<std::uint32_t>(at);
        ++at;
        part_ = Part::kValueStart;
        [[fallthrough]];

      case Part::kValueStart:
        while (at < text.size() && (text[at] == ' ' || text[at] == '\t')) {
          ++at;
        }
        if (at == text.size()) {
          return ParseStatus::kNeedMore;
        }
        line_.value_begin = static_cast<std::uint32_t>(at);
        part_ = Part::kValue;
        [[fallthrough]];

      case Part::kValue:
        at = SkipValue(text, at);
        if (at == text.size()) {
          return ParseStatus::kNeedMore;
        }
        if (text[at] != '\r') {
          return Refuse(FaultOfByte(text[at], Fault::kControlByte));
        }
        line_.value_end = static_cast<std::uint32_t>(at);
        ++at;
        part_ = Part::kLineLf;
        break;

      case Part::kLineLf:
        if (c != '\n') {
          return Refuse(Fault::kBareCr);
        }
        ++at;
        lines_.push_back(line_);
        part_ = Part::kLineStart;
        break;

      case Part::kEndLf:
        if (c != '\n') {
          return Refuse(Fault::kBareCr);
        }
        ++at;
        return ParseStatus::kDone;
    }
  }
  return ParseStatus::kNeedMore;
}

void FieldScanner::Export(std::string_view text, Fields& fields) const {
  fields.clear();
  fields.reserve(lines_.size());
  for (const Line& line : lines_) {
    std::size_t end = line.value_end;
    while (end > line.value_begin && (text[end - 1] == ' ' || text[end - 1] == '\t')) {
      --end;
    }
    fields.emplace_back(text.substr(line.name_begin, line.name_end - line.name_begin),
                        text.substr(line.value_begin, end - line.value_begin));
  }
}

void FieldScanner::Reset() noexcept {
  lines_.clear();
  part_ = Part::kLineStart;
}

ParseStatus FieldScanner::Refuse(Fault fault) noexcept {
  fault_ = fault;
  return ParseStatus::kBad;
}

}  // namespace detail

ParseStatus RequestParser::Parse(std::string_view bytes) {
  const std::string_view text = bytes.substr(0, limits_.max_head_bytes);
  if (part_ != Part::kFields) {
    const ParseStatus line = ScanRequestLine(text);
    if (line == ParseStatus::kBad) {
      return line;
    }
  }
  if (part_ == Part::kFields) {
    switch (fields_.Scan(text, at_, limits_.max_fields)) {
      case ParseStatus::kDone:
        return Finish(text);
      case ParseStatus::kBad:
        return Refuse(fields_.fault());
      case ParseStatus::kNeedMore:
        break;
    }
  }
  return text.size() == limits_.max_head_bytes ? Refuse(Fault::kHeadTooLarge)
                                               : ParseStatus::kNeedMore;
}

ParseStatus RequestParser::ScanRequestLine(std::string_view text) noexcept {
  while (at_ < text.size()) {
    const char c = text[at_];
    switch (part_) {
      case Part::kStart:
        if (c != '\r') {
          part_ = Part::kMethodStart;
          break;
        }
        ++at_;
        part_ = Part::kStartLf;
        break;

      case Part::kStartLf:
        if (c != '\n') {
          return Refuse(Fault::kBareCr);
        }
        line_begin_ = ++at_;
        part_ = Part::kMethodStart;
        break;

      case Part::kMethodStart:
        if (!IsA(kTokenChar, c)) {
          return Refuse(FaultOfByte(c, Fault::kBadMethod));
        }
        part_ = Part::kMethod;
        [[fallthrough]];

      case Part::kMethod: {
        const std::size_t limit = std::min(text.size(), line_begin_ + kMaxMethodBytes + 1);
        at_ = SkipClass(kTokenChar, text, at_, limit);
        if (at_ - line_begin_ > kMaxMethodBytes) {
          return Refuse(Fault::kMethodTooLong);
        }
        if (at_ == text.size()) {
          return ParseStatus::kNeedMore;
        }
        if (text[at_] != ' ') {
          return Refuse(FaultOfByte(text[at_], Fault::kBadMethod));
        }
        method_end_ = at_++;
        part_ = Part::kTargetStart;
        break;
      }

      case Part::kTargetStart:
        if (!IsA(kTargetChar, c)) {
          return Refuse(c == ' ' ? Fault::kBadRequestLine : FaultOfByte(c, Fault::kBadTarget));
        }
        part_ = Part::kTarget;
        [[fallthrough]];

      case Part::kTarget: {
        const std::size_t line_end = line_begin_ + limits_.max_request_line;
        at_ = SkipClass(kTargetChar, text, at_, std::min(text.size(), line_end));
        if (at_ >= line_end) {
          return Refuse(Fault::kRequestLineTooLong);
        }
        if (at_ == text.size()) {
          return ParseStatus::kNeedMore;
        }
        if (text[at_] == '\r') {
          return Refuse(Fault::kMissingVersion);  // the request line of HTTP/0.9
        }
        if (text[at_] != ' ') {
          return Refuse(FaultOfByte(text[at_], Fault::kBadTarget));
        }
        target_end_ = at_++;
        part_ = Part::kVersion;
        break;
      }

      case Part::kVersion: {
        const std::size_t index = at_ - target_end_ - 1;
        if (index <= kVersionPrefix.size() && at_ >= line_begin_ + limits_.max_request_line) {
          return Refuse(Fault::kRequestLineTooLong);
        }
        if (index < kVersionPrefix.size()) {
          if (c != kVersionPrefix[index]) {
            return Refuse(c == ' ' ? Fault::kBadRequestLine : FaultOfByte(c, Fault::kBadVersion));
          }
        } else if (index == kVersionPrefix.size()) {
          if (c != '0' && c != '1') {
            return Refuse(FaultOfByte(c, Fault::kBadVersion));
          }
          head_.minor_version = c - '0';
        } else {
          if (c != '\r') {
            return Refuse(c == ' ' ? Fault::kBadRequestLine : FaultOfByte(c, Fault::kBadVersion));
          }
          part_ = Part::kLineLf;
        }
        ++at_;
        break;
      }

      case Part::kLineLf:
        if (c != '\n') {
          return Refuse(Fault::kBareCr);
        }
        ++at_;
        part_ = Part::kFields;
        return ParseStatus::kDone;

      case Part::kFields:
        return ParseStatus::kDone;
    }
  }
  return ParseStatus::kNeedMore;
}

ParseStatus RequestParser::Finish(std::string_view text) {
  fields_.Export(text, head_.fields);
  const Facts facts = ReadFacts(head_.fields, head_.minor_version);
  if (facts.fault != Fault::kCount) {
    return Refuse(facts.fault);
  }
  if (const Fault fault = CheckHost(facts, head_.minor_version); fault != Fault::kCount) {
    return Refuse(fault);
  }
  head_.method = text.substr(line_begin_, method_end_ - line_begin_);
  head_.target = text.substr(method_end_ + 1, target_end_ - method_end_ - 1);
  head_.host = facts.host;
  if (const Fault fault = ReadTarget(head_); fault != Fault::kCount) {
    return Refuse(fault);
  }
  // RFC 9112 section 9.3.
  head_.keep_alive = !facts.close && (head_.minor_version == 1 || facts.keep_alive);
  // RFC 9110 section 10.1.1: the expectation of an HTTP/1.0 request is ignored.
  head_.expect_continue = facts.expect_continue && head_.minor_version == 1;
  if (facts.chunked) {
    head_.framing = Framing::kChunked;
  } else if (facts.has_length) {
    head_.framing = Framing::kLength;
    head_.content_length = facts.length;
  }
  head_size_ = at_;
  return ParseStatus::kDone;
}

ParseStatus RequestParser::Refuse(Fault fault) noexcept {
  fault_ = Describe(fault);
  return ParseStatus::kBad;
}

void RequestParser::Reset() noexcept {
  Fields fields = std::move(head_.fields);
  fields.clear();
  head_ = RequestHead();
  head_.fields = std::move(fields);
  head_size_ = 0;
  fault_ = HeadFault();
  fields_.Reset();
  at_ = 0;
  line_begin_ = 0;
  part_ = Part::kStart;
}

ParseStatus ResponseParser::Parse(std::string_view bytes, bool answers_head_request) {
  const std::string_view text = bytes.substr(0, limits_.max_head_bytes);
  if (part_ != Part::kFields) {
    const ParseStatus line = ScanStatusLine(text);
    if (line == ParseStatus::kBad) {
      return line;
    }
  }
  if (part_ == Part::kFields) {
    switch (fields_.Scan(text, at_, limits_.max_fields)) {
      case ParseStatus::kDone:
        return Finish(text, answers_head_request);
      case ParseStatus::kBad:
        return Refuse(fields_.fault());
      case ParseStatus::kNeedMore:
        break;
    }
  }
  return text.size() == limits_.max_head_bytes ? Refuse(Fault::kHeadTooLarge)
                                               : ParseStatus::kNeedMore;
}

// RFC 9112 section 4: HTTP-version SP status-code SP [ reason-phrase ] CRLF.
ParseStatus ResponseParser::ScanStatusLine(std::string_view text) noexcept {
  constexpr std::size_t kStatusBegin = kVersionPrefix.size() + 2;
  while (at_ < text.size()) {
    const char c = text[at_];
    switch (part_) {
      case Part::kVersion:
        if (at_ < kVersionPrefix.size()) {
          if (c != kVersionPrefix[at_]) {
            return Refuse(FaultOfByte(c, Fault::kBadVersion));
          }
        } else if (at_ == kVersionPrefix.size()) {
          if (c != '0' && c != '1') {
            return Refuse(FaultOfByte(c, Fault::kBadVersion));
          }
          head_.minor_version = c - '0';
        } else {
          if (c != ' ') {
            return Refuse(FaultOfByte(c, Fault::kBadVersion));
          }
          part_ = Part::kStatus;
        }
        ++at_;
        break;

      case Part::kStatus:
        if (!IsA(kDigitChar, c)) {
          return Refuse(FaultOfByte(c, Fault::kBadStatus));
        }
        head_.status = head_.status * 10 + static_cast<int>(HexDigit(c));
        ++at_;
        if (at_ == kStatusBegin + 3) {
          if (head_.status < 100 || head_.status > 599) {
            return Refuse(Fault::kBadStatus);
          }
          part_ = Part::kStatusEnd;
        }
        break;

      case Part::kStatusEnd:
        // Backends that send no reason often leave out the space before it too.
        if (c != ' ' && c != '\r') {
          return Refuse(IsA(kDigitChar, c) ? Fault::kBadStatus
                                           : FaultOfByte(c, Fault::kBadStatusLine));
        }
        ++at_;
        reason_begin_ = at_;
        reason_end_ = at_;
        part_ = c == ' ' ? Part::kReason : Part::kLineLf;
        break;

      case Part::kReason:
        at_ = SkipValue(text.substr(0, limits_.max_request_line), at_);
        if (at_ >= limits_.max_request_line) {
          return Refuse(Fault::kStatusLineTooLong);
        }
        if (at_ == text.size()) {
          return ParseStatus::kNeedMore;
        }
        if (text[at_] != '\r') {
          return Refuse(FaultOfByte(text[at_], Fault::kControlByte));
        }
        reason_end_ = at_++;
        part_ = Part::kLineLf;
        break;

      case Part::kLineLf:
        if (c != '\n') {
          return Refuse(Fault::kBareCr);
        }
        ++at_;
        part_ = Part::kFields;
        return ParseStatus::kDone;

      case Part::kFields:
        return ParseStatus::kDone;
    }
  }
  return ParseStatus::kNeedMore;
}

ParseStatus ResponseParser::Finish(std::string_view text, bool answers_head_request) {
  fields_.Export(text, head_.fields);
  const Facts facts = ReadFacts(head_.fields, head_.minor_version);
  if (facts.fault != Fault::kCount) {
    return Refuse(facts.fault);
  }
  head_.reason = text.substr(reason_begin_, reason_end_ - reason_begin_);
  head_.content_length = facts.length;
  // RFC 9112 section 6.3, in its order.
  if (answers_head_request || head_.status < 200 || head_.status == 204 || head_.status == 304) {
    head_.framing = Framing::kNone;
  } else if (facts.chunked) {
    head_.framing = Framing::kChunked;
  } else if (facts.has_length) {
    head_.framing = Framing::kLength;
  } else {
    head_.framing = Framing::kUntilClose;
  }
  head_.keep_alive = head_.framing != Framing::kUntilClose && !facts.close &&
                     (head_.minor_version == 1 || facts.keep_alive);
  head_size_ = at_;
  return ParseStatus::kDone;
}

ParseStatus ResponseParser::Refuse(Fault fault) noexcept {
  fault_ = Describe(fault);
  fault_.status = 502;  // RFC 9110 section 15.6.3
  return ParseStatus::kBad;
}

void ResponseParser::Reset() noexcept {
  Fields fields = std::move(head_.fields);
  fields.clear();
  head_ = ResponseHead();
  head_.fields = std::move(fields);
  head_size_ = 0;
  fault_ = HeadFault();
  fields_.Reset();
  at_ = 0;
  part_ = Part::kVersion;
}

std::span<const std::string_view> FaultLabels() noexcept {
  return kLabels;
}

}  // namespace sluice::http
