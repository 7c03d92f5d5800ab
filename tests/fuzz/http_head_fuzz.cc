// Compares the head parsers with llhttp in its strict mode: whatever we take, llhttp takes too and
// reads the same method, target, fields, framing and size. And with themselves: the verdict is the
// same whole, byte by byte and in pieces.
// Input: a head. One that starts with "HTTP/" goes to the response parser.
#include <llhttp.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/base/bytes.h"
#include "proxy/http/parser.h"

#include "tests/fuzz/pieces.h"
#include "tests/unit/http/feed.h"

namespace {

using namespace sluice;

[[noreturn]] void Fail(const char* what, const std::string& ours, const std::string& theirs) {
  std::fprintf(stderr, "%s\n  ours:   %s\n  theirs: %s\n", what, ours.c_str(), theirs.c_str());
  std::abort();
}

void RequireEqual(const char* what, const std::string& ours, const std::string& theirs) {
  if (ours != theirs) {
    Fail(what, ours, theirs);
  }
}

// What llhttp made of a head.
struct Reading {
  std::string first;  // the target, or the reason
  std::vector<std::pair<std::string, std::string>> fields;
  bool field_open = false;
  bool complete = false;
};

Reading& ReadingOf(llhttp_t* parser) {
  return *static_cast<Reading*>(parser->data);
}

int OnFirst(llhttp_t* parser, const char* at, std::size_t length) {
  ReadingOf(parser).first.append(at, length);
  return 0;
}

int OnName(llhttp_t* parser, const char* at, std::size_t length) {
  Reading& reading = ReadingOf(parser);
  if (!reading.field_open) {
    reading.fields.emplace_back();
    reading.field_open = true;
  }
  reading.fields.back().first.append(at, length);
  return 0;
}

int OnValue(llhttp_t* parser, const char* at, std::size_t length) {
  ReadingOf(parser).fields.back().second.append(at, length);
  return 0;
}

int OnValueComplete(llhttp_t* parser) {
  ReadingOf(parser).field_open = false;
  return 0;
}

int OnHeadersComplete(llhttp_t* parser) {
  ReadingOf(parser).complete = true;
  return HPE_PAUSED;
}

const llhttp_settings_t kSettings = [] {
  llhttp_settings_t settings;
  llhttp_settings_init(&settings);
  settings.on_url = OnFirst;
  settings.on_status = OnFirst;
  settings.on_header_field = OnName;
  settings.on_header_value = OnValue;
  settings.on_header_value_complete = OnValueComplete;
  settings.on_headers_complete = OnHeadersComplete;
  return settings;
}();

// llhttp takes only the methods it knows; ours takes any token. A method that it does not know is
// compared as GET.
bool IsKnownToLlhttp(std::string_view method) {
#define SLUICE_IS_METHOD(number, name, string) \
  if (method == #string) {                     \
    return true;                               \
  }
  HTTP_METHOD_MAP(SLUICE_IS_METHOD)
#undef SLUICE_IS_METHOD
  return false;
}

// llhttp takes no tab behind the value of these three, though RFC 9110 section 5.5 allows it; a
// space it takes. `text` is a copy of the bytes at `begin`, which `head` looks into.
template <class Head>
void BlankTabs(const Head& head, const char* begin, std::string& text) {
  for (const http::Field& field : head.fields) {
    if (http::EqualsIgnoreCase(field.name, "Connection") ||
        http::EqualsIgnoreCase(field.name, "Content-Length") ||
        http::EqualsIgnoreCase(field.name, "Transfer-Encoding")) {
      std::size_t at = static_cast<std::size_t>(field.value.data() + field.value.size() - begin);
      for (; text[at] != '\r'; ++at) {
        text[at] = ' ';
      }
    }
  }
}

template <class Head>
void CompareHead(const Head& head, std::string_view bytes, std::string text, llhttp_type_t type,
                 std::string_view first) {
  Reading reading;
  llhttp_t parser;
  llhttp_init(&parser, type, &kSettings);
  parser.data = &reading;
  const llhttp_errno_t error = llhttp_execute(&parser, text.data(), text.size());
  const std::string ours = std::to_string(text.size()) + " bytes: " + std::string(bytes);
  if (error != HPE_PAUSED || !reading.complete) {
    const char* reason = llhttp_get_error_reason(&parser);
    Fail("llhttp refuses what we take", ours,
         std::string(llhttp_errno_name(error)) + ": " + (reason == nullptr ? "" : reason));
  }
  RequireEqual("size", std::to_string(text.size()),
               std::to_string(llhttp_get_error_pos(&parser) - text.data()));
  RequireEqual("target or reason", std::string(first), reading.first);
  RequireEqual("minor version", std::to_string(head.minor_version),
               std::to_string(parser.http_minor));
  RequireEqual("field count", std::to_string(head.fields.size()),
               std::to_string(reading.fields.size()));
  for (std::size_t i = 0; i < head.fields.size(); ++i) {
    RequireEqual("field name", std::string(head.fields[i].name), reading.fields[i].first);
    RequireEqual("field value", std::string(head.fields[i].value),
                 std::string(http::Trim(reading.fields[i].second)));
  }
  const bool chunked = http::Count(head.fields, http::FieldId::kTransferEncoding) > 0;
  RequireEqual("chunked", std::to_string(chunked), std::to_string((parser.flags & F_CHUNKED) != 0));
  RequireEqual("has a length",
               std::to_string(http::Count(head.fields, http::FieldId::kContentLength)),
               std::to_string((parser.flags & F_CONTENT_LENGTH) != 0 ? 1 : 0));
  RequireEqual("length", std::to_string(head.content_length),
               std::to_string(parser.content_length));

  // llhttp reads Proxy-Connection as Connection and takes no tab between the elements; of both
  // keep-alive and close it believes keep-alive in HTTP/1.0.
  for (const http::Field& field : head.fields) {
    if (http::EqualsIgnoreCase(field.name, "Proxy-Connection") ||
        (http::EqualsIgnoreCase(field.name, "Connection") &&
         field.value.find('\t') != std::string_view::npos)) {
      return;
    }
  }
  if (head.minor_version == 0 && http::HasToken(head.fields, http::FieldId::kConnection, "close")) {
    return;
  }
  RequireEqual("keep alive", std::to_string(head.keep_alive),
               std::to_string(llhttp_should_keep_alive(&parser) != 0));
}

void Compare(const http::RequestParser& parser, std::string_view bytes) {
  const http::RequestHead& head = parser.head();
  std::string text(bytes.substr(0, parser.head_size()));
  BlankTabs(head, bytes.data(), text);
  if (!IsKnownToLlhttp(head.method)) {
    const std::size_t method_begin = static_cast<std::size_t>(head.method.data() - bytes.data());
    text.replace(method_begin, head.method.size(), "GET");
  }
  CompareHead(head, bytes, std::move(text), HTTP_REQUEST, head.target);

  // What llhttp does not tell.
  if (head.target.starts_with("/")) {
    const std::string joined = std::string(head.path) +
                               (head.target.find('?') == std::string_view::npos ? "" : "?") +
                               std::string(head.query);
    RequireEqual("path and query", joined, std::string(head.target));
  } else if (head.method != "CONNECT" && head.path != "*" && !head.path.starts_with("/")) {
    Fail("path", std::string(head.path), "starts with /");
  }
}

void Compare(const http::ResponseParser& parser, std::string_view bytes) {
  const http::ResponseHead& head = parser.head();
  std::string text(bytes.substr(0, parser.head_size()));
  BlankTabs(head, bytes.data(), text);
  CompareHead(head, bytes, std::move(text), HTTP_RESPONSE, head.reason);
}

// `parse(parser, bytes)` feeds one kind of parser.
template <class Parser, class Parse>
void Check(std::string_view bytes, Parse parse) {
  Parser whole;
  const std::string verdict =
      http::Feed(whole, {bytes}, [&](std::string_view received) { return parse(whole, received); });
  const bool done = verdict.starts_with("done ");

  // Byte by byte, where the bytes stay.
  Parser dribbled;
  ParseStatus status = ParseStatus::kNeedMore;
  std::size_t fed = 0;
  while (fed < bytes.size() && status == ParseStatus::kNeedMore) {
    status = parse(dribbled, bytes.substr(0, ++fed));
  }
  if (status == ParseStatus::kDone) {
    RequireEqual("size, byte by byte", std::to_string(fed), std::to_string(dribbled.head_size()));
  }
  RequireEqual("label, byte by byte",
               status == ParseStatus::kBad ? std::string(dribbled.fault().label) : "",
               verdict.starts_with("bad ") ? std::string(whole.fault().label) : "");
  RequireEqual("done, byte by byte", std::to_string(status == ParseStatus::kDone),
               std::to_string(done));

  // In pieces, where the bytes move.
  std::vector<std::string_view> pieces;
  std::size_t begin = 0;
  for (const std::size_t end : fuzz::PieceEnds(bytes, 64)) {
    pieces.push_back(bytes.substr(begin, end - begin));
    begin = end;
  }
  Parser pieced;
  RequireEqual("verdict in pieces",
               http::Feed(pieced, pieces,
                          [&](std::string_view received) { return parse(pieced, received); }),
               bytes.empty() ? "more" : verdict);

  if (done) {
    Parser again;
    if (parse(again, bytes) != ParseStatus::kDone) {
      Fail("done the second time", "", verdict);
    }
    Compare(again, bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = AsText(std::as_bytes(std::span(data, size)));
  if (bytes.starts_with("HTTP/")) {
    Check<http::ResponseParser>(bytes, [](http::ResponseParser& parser, std::string_view received) {
      return parser.Parse(received, false);
    });
  } else {
    Check<http::RequestParser>(bytes, [](http::RequestParser& parser, std::string_view received) {
      return parser.Parse(received);
    });
  }
  return 0;
}
