#include "proxy/session/admission.h"

#include <algorithm>
#include <utility>

#include "proxy/routing/json_member.h"
#include "proxy/session/affinity_cookie.h"
#include "proxy/session/token_lesson.h"

namespace sluice::session {
namespace {

using metrics::UpgradeOutcome;

bool IsOriginAllowed(const http::RequestHead& head, const config::Route& route) {
  if (route.origins.empty()) {
    return true;
  }
  const http::Field* origin = Find(head.fields, http::FieldId::kOrigin);
  if (origin == nullptr) {
    return !route.require_origin;  // not a browser: no cross-site request to fear
  }
  if (Count(head.fields, http::FieldId::kOrigin) > 1) {
    return false;
  }
  return std::any_of(route.origins.begin(), route.origins.end(), [&](const std::string& allowed) {
    return http::EqualsIgnoreCase(allowed, origin->value);
  });
}

std::string_view Name(routing::AffinityRule::Source source) noexcept {
  using Source = routing::AffinityRule::Source;
  switch (source) {
    case Source::kCookie:
      return "cookie";
    case Source::kHeader:
      return "header";
    case Source::kQuery:
      return "query";
    case Source::kPath:
      return "path";
    case Source::kIp:
      return "ip";
  }
  return "ip";
}

bool IsOwnCookie(const routing::AffinityRule& rule, const Route& route) noexcept {
  return rule.source == routing::AffinityRule::Source::kCookie &&
         rule.name == route.config.affinity_cookie;
}

// Takes the first affinity key that is present.
void FindKey(const http::RequestHead& head, const Route& route, std::string_view client_ip,
             Admission& admission) {
  const std::string& own_cookie = route.config.affinity_cookie;
  admission.issue_cookie = !own_cookie.empty() && CookieValue(head.fields, own_cookie).empty();
  std::string_view key = client_ip;
  admission.key_source = "ip";
  admission.sticky = false;
  bool awaits_cookie = false;  // the rule of the cookie that is to be issued was passed
  for (const routing::AffinityRule& rule : route.affinity) {
    if (rule.source == routing::AffinityRule::Source::kIp) {
      break;
    }
    const bool own = IsOwnCookie(rule, route);
    awaits_cookie = awaits_cookie || (own && admission.issue_cookie);
    const std::string_view found = routing::AffinityKey({&rule, 1}, head, "");
    if (!found.empty()) {
      key = found;
      admission.key_source = Name(rule.source);
      admission.sticky = own;
      break;
    }
  }
  // A client that gets its cookie now may start anywhere. By its address it would not: everybody
  // behind one NAT would begin, and by the cookie stay, on one backend.
  const bool anywhere = awaits_cookie && admission.key_source == "ip";
  if (anywhere) {
    const IdText id = RandomId();
    admission.key_hash = balance::HashKey({id.data(), id.size()});
    admission.key_source = "cookie";
  } else {
    admission.key_hash = balance::HashKey(key);
  }
}

// The sessions of a backend that drains end spread over the window, each at an instant that its
// token draws. It is told by what asks for more: a poll, or the next transport. What a client sends
// besides may belong to a stream that is still open, and is taken to the end of the window.
double DrainPart(const http::RequestHead& head, std::uint64_t token) noexcept {
  return head.method == "GET" ? static_cast<double>(token >> 11U) * 0x1.0p-53 : 1.0;
}

// Finds the first affinity key that is a token that was learned. The cookie that Sluice issues
// knows the backend as well: behind it nothing is looked for.
void FindLearned(const http::RequestHead& head, const Snapshot& snapshot, const Route& route,
                 Instant now, Admission& admission) {
  // Each byte of a token may be sent as three.
  constexpr std::size_t kMostSent = 3 * routing::JsonMember::kMostValue;
  const auto& backends = snapshot.pools[route.pool]->backends.backends();
  std::string decoded;
  for (const routing::AffinityRule& rule : route.affinity) {
    const std::string_view found = routing::AffinityKey({&rule, 1}, head, "");
    if (found.empty()) {
      continue;
    }
    if (IsOwnCookie(rule, route)) {
      return;
    }
    if (found.size() > kMostSent) {
      continue;
    }
    const std::uint64_t token = balance::HashKey(routing::DecodePercent(found, decoded));
    const auto known = route.learned->Find(token, backends, now);
    if (!known) {
      continue;
    }
    using Home = LearnedTokens::Home;
    admission.left = admission.left || known->home == Home::kLeft || known->home == Home::kGone;
    if (known->home == Home::kLeft) {
      continue;
    }
    admission.key_source = "learned";
    admission.token = token;
    if (known->home == Home::kHere) {
      admission.learned = known->index;
      admission.drain_part = DrainPart(head, token);
    } else {
      admission.ended = true;
    }
    return;
  }
}

}  // namespace

std::string RetryAfter(Random& random, unsigned least) {
  return "Retry-After: " + std::to_string(least + random.Next() % 5) + "\r\n";
}

std::string RetryAfter(Random& random, std::chrono::nanoseconds wait) {
  constexpr std::uint64_t kMostSeconds = balance::ComebackQueue::kLongest / 1'000'000'000;
  const bool behind = wait.count() >= balance::ComebackQueue::kLongest;
  // Whole seconds: a part of one is drawn as often as it is long.
  const double drawn = std::chrono::duration<double>(wait).count() + random.Unit();
  const std::uint64_t seconds =
      behind ? random.Next() % kMostSeconds : static_cast<std::uint64_t>(drawn);
  return "Retry-After: " + std::to_string(std::min(1 + seconds, kMostSeconds)) + "\r\n";
}

Admission FindRoute(const http::RequestHead& head, const Snapshot& snapshot) {
  Admission admission;
  const bool names_a_path = head.method != "CONNECT";
  if (names_a_path) {
    admission.route = snapshot.table.Match(head.host, head.path);
  }
  constexpr std::string_view kAllow = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";
  if (!names_a_path || head.method == "TRACE") {
    admission.refusal =
        Refusal{405, "This method is not served here.", kAllow, "method", std::nullopt, 0};
    return admission;
  }
  if (!admission.route) {
    admission.refusal =
        Refusal{404, "No route serves this host and path.", "", "no_route", std::nullopt, 0};
  } else if (http::MaxForwards(head) == 0) {
    // Who sends it asks about the proxy itself (RFC 9110 section 7.6.2).
    admission.refusal = Refusal{200,          "The request was to go no further than here.",
                                kAllow,       "max_forwards",
                                std::nullopt, 0};
  }
  return admission;
}

Admission Admit(const http::RequestHead& head, const Snapshot& snapshot, Intake intake,
                std::string_view client_ip, Instant now) {
  Admission admission = FindRoute(head, snapshot);
  if (admission.refusal) {
    return admission;
  }
  const Route& route = snapshot.routes[*admission.route];

  ws::UpgradeVerdict verdict = ws::CheckUpgradeRequest(head);
  if (verdict.kind == ws::UpgradeVerdict::Kind::kRefuse) {
    admission.refusal = Refusal{verdict.status,
                                verdict.text,
                                verdict.extra_fields,
                                verdict.label,
                                UpgradeOutcome::kBadRequest,
                                0};
    return admission;
  }
  if (verdict.kind == ws::UpgradeVerdict::Kind::kUpgrade) {
    admission.upgrade = true;
    if (!route.config.upgrades) {
      admission.refusal = Refusal{403,
                                  "This route takes no WebSocket upgrades.",
                                  "",
                                  "upgrades_off",
                                  UpgradeOutcome::kNotAllowed,
                                  0};
      return admission;
    }
    if (!IsOriginAllowed(head, route.config)) {
      admission.refusal = Refusal{403,
                                  "This Origin is not on the route's list.",
                                  "",
                                  "origin_denied",
                                  UpgradeOutcome::kOriginDenied,
                                  0};
      return admission;
    }
    if (intake == Intake::kRefuseUpgrades || intake == Intake::kClosing) {
      admission.refusal =
          Refusal{503, "This server is draining.", "", "draining", UpgradeOutcome::kDraining, 1};
      return admission;
    }
    admission.offer = std::move(verdict.offer);
  }

  ChooseKey(head, snapshot, client_ip, now, admission);
  return admission;
}

void ChooseKey(const http::RequestHead& head, const Snapshot& snapshot, std::string_view client_ip,
               Instant now, Admission& admission) {
  const Route& route = snapshot.routes[*admission.route];
  FindKey(head, route, client_ip, admission);
  admission.learned.reset();
  admission.token = 0;
  admission.left = admission.ended = false;
  if (route.learned) {
    FindLearned(head, snapshot, route, now, admission);
    // Who brings a token of the backend is not given one: a poll of a session is not looked at.
    admission.may_teach = !admission.upgrade && !admission.learned && MayTeach(head, route);
  }
}

}  // namespace sluice::session
