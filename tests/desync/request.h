// The requests of a pair: one with an odd shape, or one that is broken on purpose, and a plain one
// behind it, the marker. Both carry an id, the seed of the answer that they want and a digest of
// what the backend must see. Drawn from the seed of the run and the number of the pair alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/deploy/storm/dice.h"
#include "tests/desync/ledger.h"

namespace sluice::desync {

// A request as it is written, before it is bytes. A mutation changes what it likes.
struct Parts {
  // As the backend must see them.
  std::string method;
  std::string target;
  std::string content;

  // As they are sent; each line with its end.
  std::string request_line;
  std::string host = "Host: lab.example\r\n";
  std::vector<std::string> lines;
  std::string framing;  // those that tell where the content ends
  std::string end = "\r\n";
  std::string body;
  std::string behind;  // bytes of no request, behind it

  std::string hidden;  // a whole request that nobody may take for one
  bool expects = false;
  bool ends = false;        // the client's connection ends behind the answer
  bool http10 = false;      // gets no interim answers
  bool whole_only = false;  // wants an answer that is whole

  void Line(const std::string& line) { lines.push_back(line + "\r\n"); }
  void SetRequestLine(const std::string& wire_target, const std::string& version = "HTTP/1.1") {
    request_line = method + " " + wire_target + " " + version + "\r\n";
  }
  void UseLength();
  // In chunks of every kind; `trailers`: whole lines.
  void UseChunks(storm::Dice& dice, const std::string& trailers = "");
};

struct Request {
  std::uint64_t id = 0;
  std::string kind;
  Fate fate = Fate::kServed;
  int status = 0;  // of Sluice's own answer, unless it is served
  std::string bytes;
  std::size_t waits_at = 0;  // sends on behind a 100 Continue; 0: does not wait
  bool garbage_behind = false;
  bool is_head = false;
  bool is_upgrade = false;
  bool is_repeatable = false;  // may be sent again without being asked
  bool expects = false;
  bool ends = false;
  bool http10 = false;
  std::uint64_t answer_seed = 0;
};

struct Pair {
  Request subject;
  Request marker;
  bool pipelined = false;
};

// Announces nothing.
Pair MakePair(std::uint64_t seed, std::uint64_t number);

}  // namespace sluice::desync
