#include "tests/pressure/crowd/script.h"

#include <array>
#include <random>

#include "tests/bench/load/tls.h"
#include "tests/bench/websocket.h"

namespace sluice::pressure {
namespace {

std::string UpgradeRequest(const Options& options, std::size_t index) {
  return "GET " + options.path + "?uid=" + std::to_string(options.first_uid + index) +
         "&n=1 HTTP/1.1\r\nHost: pressure.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
}

// The first flight of a client of TLS, as OpenSSL makes it.
std::string ClientHello() {
  const bench::SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  const bench::SslPtr ssl(SSL_new(context.get()));
  BIO* const to_nobody = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), to_nobody);
  SSL_connect(ssl.get());
  std::array<char, 4096> bytes{};
  const int size = BIO_read(to_nobody, bytes.data(), static_cast<int>(bytes.size()));
  if (size <= 0) {
    bench::Die("OpenSSL makes no ClientHello");
  }
  return {bytes.data(), static_cast<std::size_t>(size)};
}

class Dice {
 public:
  Dice(std::uint64_t seed, std::size_t index) : random_(seed * 1'000'003 + index) {}

  std::size_t UpTo(std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(0, most)(random_);
  }
  unsigned char Byte() { return static_cast<unsigned char>(UpTo(255)); }
  std::string Bytes(std::size_t count) {
    std::string bytes(count, '\0');
    for (char& one : bytes) {
      one = static_cast<char>(Byte());
    }
    return bytes;
  }

 private:
  std::mt19937_64 random_;
};

// Frames whose headers hold together and whose contents mean nothing.
std::string RandomFrames(Dice& dice) {
  std::string frames;
  for (std::size_t i = dice.UpTo(20) + 1; i > 0; --i) {
    const std::string payload = dice.Bytes(dice.UpTo(300));
    const bench::MaskKey key{dice.Byte(), dice.Byte(), dice.Byte(), dice.Byte()};
    std::array<unsigned char, bench::kMaxHeader> header{};
    const std::size_t size = bench::WriteHeader(header.data(), dice.Byte(), payload.size(),
                                                dice.UpTo(3) == 0 ? nullptr : &key);
    frames.append(reinterpret_cast<const char*>(header.data()), size);
    frames += payload;
  }
  return frames;
}

Script Garbage(const Options& options, std::size_t index) {
  Dice dice(options.seed, index);
  Script script;
  std::string request = UpgradeRequest(options, index);
  switch (index % 5) {
    case 0:
      script.begin = dice.Bytes(dice.UpTo(4096) + 1);
      break;
    case 1:
      script.begin = request.substr(0, dice.UpTo(request.size() - 2));
      break;
    case 2:
      for (std::size_t i = dice.UpTo(3) + 1; i > 0; --i) {
        request[dice.UpTo(request.size() - 1)] = static_cast<char>(dice.Byte());
      }
      script.begin = request;
      break;
    case 3:
      script.begin = request + dice.Bytes(dice.UpTo(4096) + 1);
      break;
    default:
      script.begin = request + RandomFrames(dice);
  }
  script.ends = dice.UpTo(1) == 0;
  return script;
}

}  // namespace

bool IsKind(const std::string& kind) {
  return kind == "silent" || kind == "slow-head" || kind == "half-hello" || kind == "slow-reader" ||
         kind == "garbage";
}

Script MakeScript(const Options& options, std::size_t index) {
  Script script;
  if (options.kind == "slow-head") {
    script.rest = UpgradeRequest(options, index);
    script.every = options.every;
  } else if (options.kind == "half-hello") {
    static const std::string hello = ClientHello();
    script.begin = hello.substr(0, hello.size() / 2);
  } else if (options.kind == "slow-reader") {
    script.begin = UpgradeRequest(options, index);
    script.read_rate = options.read_rate;
  } else if (options.kind == "garbage") {
    return Garbage(options, index);
  }
  return script;
}

}  // namespace sluice::pressure
