#include "tests/desync/request.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <string_view>

#include "tests/desync/answer.h"
#include "tests/desync/digest.h"
#include "tests/desync/mutations.h"

namespace sluice::desync {
namespace {

using storm::Dice;

std::string Noise(std::size_t size, Dice& dice) {
  std::string text;
  while (text.size() < size) {
    text += static_cast<char>(dice.Next() & 0xFFU);
  }
  return text;
}

// A name means the same in any case.
std::string AnyCase(std::string name, Dice& dice) {
  switch (dice.Below(4)) {
    case 0:
      std::transform(name.begin(), name.end(), name.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      break;
    case 1:
      std::transform(name.begin(), name.end(), name.begin(),
                     [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      break;
    default:
      break;
  }
  return name;
}

// Blanks around a value are not of it.
std::string Field(const std::string& name, const std::string& value, Dice& dice) {
  constexpr std::array<const char*, 4> kBlanks = {" ", "", "  ", "\t "};
  return AnyCase(name, dice) + ":" + kBlanks[dice.Below(kBlanks.size())] + value +
         (dice.Percent(10) ? " \t\r\n" : "\r\n");
}

std::string HiddenRequest(std::uint64_t pair) {
  return "GET /hidden HTTP/1.1\r\nHost: lab.example\r\nX-Id: " +
         std::to_string(Ledger::IdOf(pair, Role::kHidden)) + "\r\n\r\n";
}

// Odd shapes that are right all the same. Each is added to what the request is by then.

void AddManyFields(Parts& parts, Dice& dice) {
  for (std::uint64_t i = dice.Between(20, 70); i > 0; --i) {
    parts.lines.push_back(Field("X-Many-" + std::to_string(i), "v", dice));
  }
}

void AddConnectionNames(Parts& parts, Dice& dice) {
  constexpr std::array<const char*, 5> kLists = {"X-Drop", "X-Drop, keep-alive", ", ,x-drop,,",
                                                 "Content-Length, X-Drop, Host",
                                                 "Transfer-Encoding,X-Drop"};
  parts.lines.push_back(Field("Connection", kLists[dice.Below(kLists.size())], dice));
  parts.lines.push_back(Field("X-Drop", "1", dice));
}

void AddHopByHop(Parts& parts, Dice& dice) {
  parts.lines.push_back(Field("Keep-Alive", "timeout=5", dice));
  parts.lines.push_back(Field("Proxy-Connection", "keep-alive", dice));
  parts.lines.push_back(Field("Trailer", "X-Trailer", dice));
  parts.lines.push_back(Field("TE", "trailers", dice));
}

void AddOddValues(Parts& parts, Dice& dice) {
  parts.lines.push_back(Field("X-Empty", "", dice));
  parts.lines.push_back(Field("X-Lists", ", ,a,,b , ,", dice));
  parts.lines.push_back(Field("X-High", "\xC3\xA4\xFF", dice));
  parts.lines.push_back(Field("X-Long", std::string(dice.Between(100, 5000), 'l'), dice));
}

void AddClose(Parts& parts, Dice& dice) {
  parts.lines.push_back(Field("Connection", dice.Percent(50) ? "close" : ", Close ,", dice));
  parts.ends = true;
}

// A request that is served as it is. Returns what to call it.
std::string MakeShape(Parts& parts, std::uint64_t pair, Dice& dice) {
  constexpr std::array<const char*, 6> kBare = {"GET", "DELETE", "OPTIONS", "HEAD", "GET", "HEAD"};
  constexpr std::array<const char*, 6> kWith = {"POST",     "PUT", "PATCH",
                                                "PROPFIND", "GET", "REPORT"};
  parts.hidden = HiddenRequest(pair);
  std::string kind;
  if (dice.Percent(40)) {
    parts.method = kBare[dice.Below(kBare.size())];
    kind = "bare";
  } else {
    parts.method = kWith[dice.Below(kWith.size())];
    parts.content =
        dice.Percent(50)
            ? parts.hidden
            : Noise(dice.Percent(95) ? dice.Below(400) : dice.Between(400, 60'000), dice);
    kind = "content";
  }
  std::string wire_target = parts.target;
  const std::uint64_t form = dice.Below(100);
  if (form < 10) {
    wire_target = (form < 5 ? "http://lab.example" : "HTTP://LAB.example") + parts.target;
    kind = "absolute-form";
  } else if (form < 14 && parts.method == "OPTIONS") {
    parts.target = wire_target = "*";
    kind = "asterisk";
  }
  if (dice.Percent(4)) {
    parts.http10 = parts.ends = true;
    kind = "http10";
  }
  parts.SetRequestLine(wire_target, parts.http10 ? "HTTP/1.0" : "HTTP/1.1");
  if (kind != "bare" && (!parts.content.empty() || dice.Percent(50))) {
    if (!parts.http10 && dice.Percent(50)) {
      constexpr std::array<const char*, 4> kTrailers = {
          "", "X-Trailer: t\r\n", "Content-Length: 3\r\nHost: other.example\r\n",
          "Transfer-Encoding: gzip\r\nX-Id: 999999999\r\n"};
      parts.UseChunks(dice, kTrailers[dice.Below(kTrailers.size())]);
    } else {
      parts.UseLength();
    }
    parts.expects = !parts.http10 && dice.Percent(10);
  } else if (dice.Percent(20)) {
    parts.UseLength();  // of 0
  }
  if (parts.expects) {
    parts.lines.push_back(Field("Expect", "100-continue", dice));
    kind = "expect";
  }
  using Add = void (*)(Parts&, Dice&);
  constexpr std::array<std::pair<Add, unsigned>, 5> kAdditions = {{{AddManyFields, 5},
                                                                   {AddConnectionNames, 10},
                                                                   {AddHopByHop, 10},
                                                                   {AddOddValues, 10},
                                                                   {AddClose, 4}}};
  for (const auto& [add, percent] : kAdditions) {
    if (dice.Percent(percent)) {
      add(parts, dice);
    }
  }
  if (dice.Percent(3)) {
    parts.request_line.insert(0, "\r\n");
    kind = "empty-line-first";
  }
  return kind;
}

std::string Render(Parts& parts, Dice& dice) {
  parts.lines.push_back(parts.host);
  if (!parts.framing.empty()) {
    parts.lines.push_back(parts.framing);
  }
  // RFC 9110 section 5.3: the order of fields with different names has no meaning.
  for (std::size_t i = parts.lines.size(); i > 1; --i) {
    std::swap(parts.lines[i - 1], parts.lines[dice.Below(i)]);
  }
  std::string bytes = parts.request_line;
  for (const std::string& line : parts.lines) {
    bytes += line;
  }
  return bytes + parts.end;
}

void Finish(Request& request, Parts& parts, Dice& dice) {
  request.answer_seed = dice.Next();
  if (parts.whole_only) {
    request.answer_seed |= kWholeOnly;
  }
  const std::uint64_t digest = DigestOf(parts.method, parts.target, Digest(parts.content));
  parts.lines.push_back(Field("X-Id", std::to_string(request.id), dice));
  parts.lines.push_back(Field("X-Answer", std::to_string(request.answer_seed), dice));
  parts.lines.push_back(Field("X-Digest", std::to_string(digest), dice));
  request.bytes = Render(parts, dice);
  if (parts.expects && dice.Percent(50)) {
    request.waits_at = request.bytes.size();
  }
  request.bytes += parts.body + parts.behind;
  request.garbage_behind = !parts.behind.empty();
  request.is_head = parts.method == "HEAD";
  request.is_repeatable = parts.content.empty() && parts.framing.empty() &&
                          (request.is_head || parts.method == "GET" || parts.method == "OPTIONS");
  request.expects = parts.expects;
  request.ends = request.ends || parts.ends;
  request.http10 = parts.http10;
}

}  // namespace

void Parts::UseLength() {
  framing = "Content-Length: " + std::to_string(content.size()) + "\r\n";
  body = content;
}

void Parts::UseChunks(Dice& dice, const std::string& trailers) {
  constexpr std::array<const char*, 5> kExtensions = {"", "", ";a", ";a=b;c", ";a=\"b;c\""};
  framing = dice.Percent(50) ? "Transfer-Encoding: chunked\r\n" : "transfer-encoding:CHUNKED\r\n";
  body.clear();
  for (std::size_t at = 0; at < content.size();) {
    const std::size_t left = content.size() - at;
    const std::size_t most = dice.Percent(50) ? std::max<std::size_t>(left / 3, 20) : left;
    const std::size_t size = dice.Between(1, std::min(most, left));
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), dice.Percent(50) ? "%0*zx" : "%0*zX",
                  dice.Percent(10) ? 12 : 1, size);
    body += text.data();
    body += kExtensions[dice.Below(kExtensions.size())];
    body += "\r\n" + content.substr(at, size) + "\r\n";
    at += size;
  }
  body += dice.Percent(20) ? "000;last\r\n" : "0\r\n";
  body += trailers + "\r\n";
}

Pair MakePair(std::uint64_t seed, std::uint64_t number) {
  Dice dice(Digest(std::to_string(seed) + "/" + std::to_string(number)));
  Pair pair;
  pair.pipelined = dice.Percent(60);

  Parts parts;
  pair.subject.id = Ledger::IdOf(number, Role::kSubject);
  parts.target = "/d/" + std::to_string(pair.subject.id);
  constexpr std::array<const char*, 5> kQueries = {"", "?", "?a=b&c", "?%0d%0aX:y", "//x/.y;z"};
  parts.target += kQueries[dice.Below(kQueries.size())];
  if (dice.Percent(50)) {
    pair.subject.kind = MakeShape(parts, number, dice);
  } else {
    const std::span<const Mutation> all = Mutations();
    const Mutation& mutation = all[dice.Below(all.size())];
    parts.method = "POST";
    parts.hidden = parts.content = HiddenRequest(number);
    parts.SetRequestLine(parts.target);
    parts.UseLength();
    pair.subject.kind = mutation.name;
    pair.subject.fate = mutation.fate;
    pair.subject.status = mutation.status;
    pair.subject.ends = mutation.ends;
    mutation.apply(parts, dice);
    pair.subject.is_upgrade =
        pair.subject.fate == Fate::kServed && pair.subject.kind.starts_with("upgrade");
  }
  Finish(pair.subject, parts, dice);

  Parts marker;
  pair.marker.id = Ledger::IdOf(number, Role::kMarker);
  pair.marker.kind = "marker";
  marker.method = "GET";
  marker.target = "/m/" + std::to_string(pair.marker.id);
  marker.SetRequestLine(marker.target);
  marker.whole_only = true;
  Finish(pair.marker, marker, dice);
  return pair;
}

}  // namespace sluice::desync
