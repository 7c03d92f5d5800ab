#include "tests/desync/mutations.h"

#include <array>
#include <string>
#include <string_view>

namespace sluice::desync {
namespace {

using storm::Dice;

// One of these.
template <std::size_t size>
std::string OneOf(const std::array<std::string_view, size>& ones, Dice& dice) {
  return std::string(ones[dice.Below(size)]);
}

std::string Length(const Parts& parts) {
  return "Content-Length: " + std::to_string(parts.content.size()) + "\r\n";
}

// Whichever of two field lines comes first may be the one that is believed.
void UseBoth(Parts& parts, const std::string& one, const std::string& other, Dice& dice) {
  parts.framing = dice.Percent(50) ? one + other : other + one;
}

// Chunked content that begins well, and then goes on with `rest`.
void UseBrokenChunks(Parts& parts, const std::string& rest, Dice& dice) {
  parts.framing = "Transfer-Encoding: chunked\r\n";
  parts.body = (dice.Percent(50) ? "3\r\nabc\r\n" : "") + rest + parts.hidden;
}

constexpr const char* kUpgradeFields =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

// A right upgrade, without content.
void UseUpgrade(Parts& parts) {
  parts.method = "GET";
  parts.content.clear();
  parts.framing.clear();
  parts.body.clear();
  parts.SetRequestLine(parts.target);
  parts.lines.emplace_back(kUpgradeFields);
  parts.whole_only = true;
}

// Lines that cannot be: put in the middle of the head, so that what follows decides.
void InsertLine(Parts& parts, const std::string& line) {
  parts.lines.push_back("X-Before: b\r\n" + line + "X-Behind: b\r\n");
}

constexpr std::array kAll = {
    // Where the content ends, said twice or badly (RFC 9112 sections 6.1 to 6.3).
    Mutation{"length-and-encoding", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               UseBoth(p, "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", d);
               p.body = "0\r\n\r\n" + p.hidden;
             }},
    Mutation{"whole-length-and-encoding", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.body = "0\r\n\r\n" + p.hidden;
               p.content = p.body;
               UseBoth(p, Length(p), "Transfer-Encoding: chunked\r\n", d);
             }},
    Mutation{"two-lengths", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) { UseBoth(p, "Content-Length: 0\r\n", Length(p), d); }},
    Mutation{"two-equal-lengths", Fate::kNever, 400, true,
             [](Parts& p, Dice&) { p.framing = Length(p) + Length(p); }},
    Mutation{"odd-length", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.framing = "Content-Length: " +
                           OneOf<12>({"+5", "-5", "5,5", "5, 5", "0x5", "5 5", "", "5;", "five",
                                      "5.0", "0\t5", "\"5\""},
                                     d) +
                           "\r\n";
             }},
    Mutation{"length-overflow", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.framing = "Content-Length: " +
                           OneOf<3>({"18446744073709551621", "9223372036854775808",
                                     "0000000000000000000000000000000000000099999999999999999999"},
                                    d) +
                           "\r\n";
             }},
    Mutation{"odd-encoding", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.framing = "Transfer-Encoding: " +
                           OneOf<14>({"chunked, chunked", "gzip, chunked", "identity", "chunked;q",
                                      "\"chunked\"", "xchunked", "chunked,", ",chunked", "",
                                      "chunked, identity", "chunked\tx", "chunked\\", "deflate",
                                      "chun ked"},
                                     d) +
                           "\r\n";
               p.body = "0\r\n\r\n" + p.hidden;
             }},
    Mutation{"odd-encoding-and-length", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               UseBoth(p,
                       "Transfer-Encoding: " +
                           OneOf<4>({"identity", "xchunked", "cow", "\x0B"
                                                                    "chunked"},
                                    d) +
                           "\r\n",
                       Length(p), d);
             }},
    Mutation{"two-encodings", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               UseBoth(p, "Transfer-Encoding: chunked\r\n",
                       "Transfer-Encoding: " + OneOf<3>({"cow", "chunked", ""}, d) + "\r\n", d);
               p.body = "0\r\n\r\n" + p.hidden;
             }},
    Mutation{"encoding-in-http10", Fate::kNever, 400, true,
             [](Parts& p, Dice&) {
               p.SetRequestLine(p.target, "HTTP/1.0");
               p.framing = "Transfer-Encoding: chunked\r\n";
               p.body = "0\r\n\r\n" + p.hidden;
             }},

    // Field lines (RFC 9112 section 5).
    Mutation{"blank-before-colon", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.framing =
                   OneOf<4>({"Content-Length : 5\r\n", "Transfer-Encoding : chunked\r\n",
                             "Content-Length\t: 5\r\n", "Transfer-Encoding \t: chunked\r\n"},
                            d);
             }},
    Mutation{"folded-line", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               InsertLine(p, OneOf<4>({" folded\r\n", "\tTransfer-Encoding: chunked\r\n",
                                       " Content-Length: 5\r\n", " \r\n"},
                                      d));
             }},
    Mutation{"folded-first-line", Fate::kNever, 400, true,
             [](Parts& p, Dice&) { p.request_line += " X-Folded: 1\r\n"; }},
    Mutation{"folded-encoding", Fate::kNever, 400, true,
             [](Parts& p, Dice&) {
               p.framing = "Transfer-Encoding:\r\n chunked\r\n";
               p.body = "0\r\n\r\n" + p.hidden;
             }},
    Mutation{"bare-lf", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               switch (d.Below(4)) {
                 case 0:
                   p.request_line = p.method + " " + p.target + " HTTP/1.1\n";
                   break;
                 case 1:
                   p.end = "\n";
                   break;
                 case 2:
                   InsertLine(p, "X: a\nTransfer-Encoding: chunked\r\n");
                   break;
                 default:
                   InsertLine(p, "X: a\n");
                   break;
               }
             }},
    Mutation{"bare-cr", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               InsertLine(p, OneOf<3>({"X: a\rTransfer-Encoding: chunked\r\n", "X: a\r\r\n",
                                       "X\r: a\r\n"},
                                      d));
             }},
    Mutation{"end-by-bare-bytes", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.lines.clear();
               p.end = OneOf<3>({"\n\r\n", "\r\r\n", "\n\n"}, d) + p.hidden;
             }},
    Mutation{"nul", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               using std::string_view_literals::operator""sv;
               InsertLine(p, OneOf<4>({"X: a\0b\r\n"sv, "X\0: a\r\n"sv, "\0: a\r\n"sv,
                                       "Transfer-Encoding: chunked\0\r\n"sv},
                                      d));
             }},
    Mutation{"control-byte", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               constexpr std::string_view kOnes = "\x01\x02\x07\x08\x0B\x0C\x0E\x1B\x1F\x7F";
               const std::string byte(1, kOnes[d.Below(kOnes.size())]);
               InsertLine(p, d.Percent(50) ? "X: a" + byte + "b\r\n" : "X" + byte + ": a\r\n");
             }},
    Mutation{"odd-name", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               InsertLine(p, OneOf<9>({": a\r\n", "Transfer-Encoding chunked\r\n", "X(: a\r\n",
                                       "Transfer-Encoding[]: chunked\r\n", "X/Y: a\r\n",
                                       "Transfer-Encod\xC4\xB1ng: chunked\r\n", "\"X\": a\r\n",
                                       "X{: a\r\n", "nocolon\r\n"},
                                      d));
             }},
    Mutation{"too-many-fields", Fate::kNever, 431, true,
             [](Parts& p, Dice& d) {
               for (std::uint64_t i = d.Between(120, 300); i > 0; --i) {
                 p.Line("x: y");
               }
             }},
    Mutation{"too-large-head", Fate::kNever, 431, true,
             [](Parts& p, Dice& d) {
               p.Line("X: " + std::string(d.Between(33'000, 40'000), 'x'));
             }},

    // Request lines and hosts (RFC 9112 section 3).
    Mutation{"odd-request-line", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.request_line = OneOf<14>({"POST  / HTTP/1.1\r\n", "POST / HTTP/1.1 \r\n",
                                           "POST\t/ HTTP/1.1\r\n", "POST / HTTP/1.2\r\n",
                                           "POST / HTTP/2.0\r\n", "POST / http/1.1\r\n",
                                           "POST /\r\n", "POST / HTTP/1.1x\r\n",
                                           " POST / HTTP/1.1\r\n", "PO ST / HTTP/1.1\r\n",
                                           "POST / HTTP/11\r\n", "POST / HTTP/1.1\r\r\n",
                                           "P@ST / HTTP/1.1\r\n", "POST / /x HTTP/1.1\r\n"},
                                          d);
             }},
    Mutation{"odd-target", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.SetRequestLine(OneOf<9>({"/a#b", "/\xC3\xA4", "x", "*", "ftp://lab.example/",
                                          "http://u@lab.example/", "http:///a", "//\x7F", "?a"},
                                         d));
             }},
    Mutation{"long-target", Fate::kNever, 414, true,
             [](Parts& p, Dice& d) {
               p.SetRequestLine("/" + std::string(d.Between(9'000, 20'000), 'a'));
             }},
    Mutation{"odd-host", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.host = OneOf<9>({"", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n",
                                  "Host: a/b\r\n", "Host: a@b\r\n", "Host: a b\r\n",
                                  "Host: a,b\r\n", "Host:\r\n", "Host: a:70000\r\n"},
                                 d);
             }},
    Mutation{"host-differs-from-target", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               p.SetRequestLine(OneOf<3>({"http://other.example/", "http://lab.example:81/",
                                          "http://lab.example.other/"},
                                         d));
             }},
    Mutation{"trace-or-connect", Fate::kNever, 405, true,
             [](Parts& p, Dice& d) {
               p.method = d.Percent(50) ? "TRACE" : "CONNECT";
               p.host = "Host: lab.example:80\r\n";
               p.SetRequestLine(p.method == "TRACE" ? p.target : "lab.example:80");
             }},

    // Chunks and trailers (RFC 9112 section 7.1). Their head is right and goes on.
    Mutation{"odd-chunk-size", Fate::kBroken, 400, true,
             [](Parts& p, Dice& d) {
               using std::string_view_literals::operator""sv;
               UseBrokenChunks(p,
                               OneOf<12>({"+5"sv, "-5"sv, "0x5"sv, " 5"sv, "5 "sv, ""sv, "5\t"sv,
                                          "5,"sv, "g"sv, "5\0"sv, "10000000000000005"sv,
                                          "0000000000000000000005"sv},
                                         d) +
                                   "\r\nhello\r\n0\r\n\r\n",
                               d);
             }},
    Mutation{"odd-chunk-extension", Fate::kBroken, 400, true,
             [](Parts& p, Dice& d) {
               using std::string_view_literals::operator""sv;
               UseBrokenChunks(p,
                               "5;" +
                                   OneOf<10>({"a b"sv, "a\rb"sv, "a\nb"sv, ""sv, "a=\"b"sv,
                                              "a=\"\\\"\""sv, "a=b c"sv, "=b"sv, " a"sv, "a\0"sv},
                                             d) +
                                   "\r\nhello\r\n0\r\n\r\n",
                               d);
             }},
    Mutation{"long-chunk-extension", Fate::kBroken, 400, true,
             [](Parts& p, Dice& d) {
               UseBrokenChunks(
                   p, "5;" + std::string(d.Between(257, 2000), 'e') + "\r\nhello\r\n0\r\n\r\n", d);
             }},
    Mutation{"odd-chunk-end", Fate::kBroken, 400, true,
             [](Parts& p, Dice& d) {
               UseBrokenChunks(p,
                               OneOf<8>({"5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n",
                                         "5\r\nhelloX\r\n0\r\n\r\n", "5\rhello\r\n0\r\n\r\n",
                                         "5\r\nhello\r0\r\n\r\n", "5\r\nhello0\r\n\r\n",
                                         "5\r\r\nhello\r\n0\r\n\r\n", "0\n\r\n"},
                                        d),
                               d);
             }},
    Mutation{"odd-trailer", Fate::kBroken, 400, true,
             [](Parts& p, Dice& d) {
               using std::string_view_literals::operator""sv;
               UseBrokenChunks(p,
                               "0\r\n" + OneOf<9>({"X : a\r\n\r\n"sv, " X: a\r\n\r\n"sv,
                                                   "X: a\n\r\n"sv, ": a\r\n\r\n"sv,
                                                   "X: a\r\n b\r\n\r\n"sv, "X: \0\r\n\r\n"sv,
                                                   "nocolon\r\n\r\n"sv, "\n"sv, "X: a\r\n\n"sv},
                                                  d),
                               d);
             }},
    Mutation{"long-trailer", Fate::kBroken, 400, true,
             [](Parts& p, Dice& d) {
               UseBrokenChunks(p, "0\r\nX:" + std::string(d.Between(9000, 9999), 't') + "\r\n\r\n",
                               d);
             }},

    // What is right, and must be taken off or put right before anybody else reads it.
    Mutation{"trailers-of-framing", Fate::kServed, 0, false,
             [](Parts& p, Dice& d) {
               p.UseChunks(d, "Content-Length: 5\r\nTransfer-Encoding: identity\r\nX-Drop: 1\r\n");
             }},
    Mutation{"connection-names-framing", Fate::kServed, 0, false,
             [](Parts& p, Dice& d) {
               p.Line("Connection: " + OneOf<4>({"Content-Length", "content-length, Host", "X-Id",
                                                 "Transfer-Encoding, Content-Length"},
                                                d));
               if (p.lines.back().find("X-Id") != std::string::npos) {
                 p.lines.back() = "Connection: X-Drop\r\nX-Drop: 1\r\n";
               }
             }},
    Mutation{"names-like-framing", Fate::kServed, 0, false,
             [](Parts& p, Dice& d) {
               p.Line(OneOf<5>({"Transfer_Encoding: chunked", "Content_Length: 0",
                                "Transfer-Encodin: chunked", "XTransfer-Encoding: chunked",
                                "Content-Length-: 0"},
                               d));
             }},
    Mutation{"length-with-zeros", Fate::kServed, 0, false,
             [](Parts& p, Dice&) {
               p.framing = "Content-Length: 000" + std::to_string(p.content.size()) + "\r\n";
             }},
    Mutation{"half-of-an-upgrade", Fate::kServed, 0, false,
             [](Parts& p, Dice& d) {
               p.Line(OneOf<4>({"Upgrade: websocket", "Connection: Upgrade",
                                "Connection: x\r\nUpgrade: websocket", "Upgrade: h2c"},
                               d));
             }},
    Mutation{"h2c", Fate::kServed, 0, false,
             [](Parts& p, Dice& d) {
               const std::string settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
               p.lines.push_back(
                   settings +
                   OneOf<4>({"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
                             "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket\r\n"
                             "Upgrade: h2c\r\n",
                             "Connection: HTTP2-Settings\r\nConnection: Upgrade\r\nUpgrade: h2\r\n"
                             "Upgrade: c\r\n",
                             "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket, h2c\r\n"},
                            d));
             }},

    // Upgrades that end without a tunnel.
    Mutation{"upgrade-answered-otherwise", Fate::kServed, 0, false,
             [](Parts& p, Dice&) { UseUpgrade(p); }},
    Mutation{"upgrade-with-bytes-behind", Fate::kServed, 0, false,
             [](Parts& p, Dice& d) {
               UseUpgrade(p);
               p.behind = d.Percent(50) ? std::string("\x81\x85\x01\x02\x03\x04hello", 11)
                                        : std::string("\x88\x80\0\0\0\0", 6);
               p.behind += "\r\n" + p.hidden;
             }},
    Mutation{"of-another-version", Fate::kNever, 426, false,
             [](Parts& p, Dice&) {
               UseUpgrade(p);
               p.lines.back() =
                   "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 7777\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
             }},
    Mutation{"post-that-upgrades", Fate::kNever, 405, true,
             [](Parts& p, Dice&) { p.lines.emplace_back(kUpgradeFields); }},
    Mutation{"get-with-content-that-upgrades", Fate::kNever, 400, true,
             [](Parts& p, Dice& d) {
               const std::string content = p.hidden;
               UseUpgrade(p);
               p.content = content;
               if (d.Percent(50)) {
                 p.UseLength();
               } else {
                 p.UseChunks(d);
               }
             }},
};

}  // namespace

std::span<const Mutation> Mutations() {
  return kAll;
}

}  // namespace sluice::desync
