// The answer that a request asks for by its own fields: framing, size, what comes before and behind
// it. Both ends draw it from the same seed, so that each knows it without being told.
#pragma once

#include <cstdint>
#include <string>

namespace sluice::desync {

struct Answer {
  // What the client gets of it.
  enum class Worth : std::uint8_t {
    kWhole,
    kBad,  // its head is none that may be passed on: 502
    kCut,  // it breaks off inside its content, and so does the client's connection; or 502, and
           // that ends
  };

  Worth worth = Worth::kWhole;
  int status = 200;
  unsigned interim = 0;       // answers of status 1xx before it, beside 100
  std::uint64_t content = 0;  // digest of what the client gets
  std::string bytes;          // all of it
  std::size_t end = 0;        // where it ends in `bytes`; what lies behind belongs to nobody
  bool closes = false;        // the backend ends the connection behind it
  bool silently = false;      // and neither Connection nor the framing has said so

  // Whether another request may come on the backend's connection.
  [[nodiscard]] bool SpoilsConnection() const {
    return closes || worth != Worth::kWhole || end < bytes.size();
  }
};

// Seeds that have this bit get whole answers only.
inline constexpr std::uint64_t kWholeOnly = 1;

Answer MakeAnswer(std::uint64_t seed, std::uint64_t id, bool to_head, bool to_upgrade);

}  // namespace sluice::desync
