#include "tests/deploy/client/options.h"

#include "tests/deploy/address.h"
#include "tests/deploy/decimal.h"

namespace sluice::deploy {
namespace {

using bench::Die;
using bench::Number;

Nanoseconds Milliseconds(const std::string& text) {
  return static_cast<Nanoseconds>(Number(text)) * kMillisecond;
}

// immediate, fixed:MS, exponential, exponential:BASE,CAP or jitter:LEAST,MOST
Policy ParsePolicy(const std::string& text) {
  Policy policy;
  const std::size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  const std::string rest = colon == std::string::npos ? "" : text.substr(colon + 1);
  const std::size_t comma = rest.find(',');
  if (kind == "immediate" && rest.empty()) {
    policy.kind = Policy::Kind::kImmediate;
  } else if (kind == "fixed" && !rest.empty()) {
    policy.kind = Policy::Kind::kFixed;
    policy.base = Milliseconds(rest);
  } else if (kind == "exponential" && (rest.empty() || comma != std::string::npos)) {
    policy.kind = Policy::Kind::kExponential;
    if (!rest.empty()) {
      policy.base = Milliseconds(rest.substr(0, comma));
      policy.cap = Milliseconds(rest.substr(comma + 1));
    }
  } else if (kind == "jitter" && comma != std::string::npos) {
    policy.kind = Policy::Kind::kJitter;
    policy.base = Milliseconds(rest.substr(0, comma));
    policy.cap = std::max(policy.base, Milliseconds(rest.substr(comma + 1)));
  } else {
    Die("not a policy: '" + text + "'");
  }
  return policy;
}

}  // namespace

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--tls") {
      options.tls = true;
      continue;
    }
    if (i + 1 == argc) {
      Die(name + " lacks its value");
    }
    const std::string value = argv[++i];
    if (name == "--connect") {
      options.address = AddressOf(value);
    } else if (name == "--path") {
      options.path = value;
    } else if (name == "--report") {
      options.report = value;
    } else if (name == "--sessions") {
      options.sessions = Number(value);
    } else if (name == "--first-uid") {
      options.first_uid = static_cast<std::uint32_t>(Number(value));
    } else if (name == "--rate") {
      options.rate = Decimal(value);
    } else if (name == "--ramp") {
      options.ramp = Decimal(value);
    } else if (name == "--connects-per-second") {
      options.connects_per_second = Decimal(value);
    } else if (name == "--policy") {
      options.policy = ParsePolicy(value);
    } else if (name == "--seconds") {
      options.seconds = Decimal(value);
    } else if (name == "--size") {
      options.size = Number(value);
    } else if (name == "--connect-timeout") {
      options.connect_timeout = Milliseconds(value);
    } else if (name == "--close-timeout") {
      options.close_timeout = Milliseconds(value);
    } else {
      Die("there is no option " + name);
    }
  }
  if (options.address.sin_port == 0) {
    Die("--connect is missing");
  }
  if (options.sessions == 0 || options.first_uid == 0 || options.ramp <= 0) {
    Die("--sessions, --first-uid and --ramp are more than 0");
  }
  if (options.size < kNumberedSize || options.size > kMaxMessage) {
    Die("--size is 32 to 65536");
  }
  return options;
}

}  // namespace sluice::deploy
