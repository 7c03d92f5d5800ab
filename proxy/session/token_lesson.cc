#include "proxy/session/token_lesson.h"

#include <algorithm>

#include "proxy/balance/backend_set.h"

namespace sluice::session {
namespace {

using metrics::Unreadable;

bool IsEncoded(const http::Fields& fields) noexcept {
  return std::any_of(fields.begin(), fields.end(), [](const http::Field& field) {
    return http::EqualsIgnoreCase(field.name, "Content-Encoding") &&
           !http::EqualsIgnoreCase(field.value, "identity");
  });
}

}  // namespace

bool MayTeach(const http::RequestHead& head, const Route& route) noexcept {
  // The answer to HEAD has no content, and that to OPTIONS, before a request across origins, no
  // token.
  return route.learned != nullptr && head.method != "HEAD" && head.method != "OPTIONS" &&
         head.path.ends_with(route.config.learn->from);
}

std::unique_ptr<TokenLesson> TokenLesson::Begin(const http::ResponseHead& head, const Route& route,
                                                std::shared_ptr<balance::BackendState> teacher,
                                                metrics::RouteBlock& block) {
  if (head.status < 200 || head.status > 299) {
    return nullptr;
  }
  if (IsEncoded(head.fields)) {
    block.unreadable[Unreadable::kEncoded].Add();
    return nullptr;
  }
  return std::make_unique<TokenLesson>(route, std::move(teacher), block);
}

void TokenLesson::Take(Bytes content, Instant now) {
  if (over_) {
    return;
  }
  switch (member_.Advance(AsText(content))) {
    case ParseStatus::kNeedMore:
      return;
    case ParseStatus::kBad:
      block_.unreadable[Unreadable::kNoToken].Add();
      break;
    case ParseStatus::kDone:
      block_.learned.Add();
      if (!route_.learned->Learn(balance::HashKey(member_.value()), teacher_, now)) {
        block_.learned_evicted.Add();
      }
      break;
  }
  over_ = true;
}

void TokenLesson::End() noexcept {
  if (!over_) {
    over_ = true;
    block_.unreadable[Unreadable::kNoToken].Add();
  }
}

}  // namespace sluice::session
