#include "proxy/session/own_answer.h"

#include <algorithm>
#include <vector>

namespace sluice::session {

std::string OwnAnswer(const Core& core, const RequestFacts& facts, http::Reply reply) {
  reply.date = core.services.date.Text(core.services.loop.now());
  if (!facts.has_route) {
    return http::Serialize(reply);
  }
  const Route& route = core.route(facts);
  std::string fields(reply.extra_fields);
  fields += route.heads.own_answer(core.listener->is_tls());
  reply.extra_fields = fields;
  const std::vector<config::ErrorPage>& pages = route.config.error_pages;
  const auto page = std::find_if(pages.begin(), pages.end(), [&](const config::ErrorPage& one) {
    return static_cast<int>(one.status) == reply.status;
  });
  if (page != pages.end()) {
    reply.type = page->type;
    reply.content = page->content;
  }
  return http::Serialize(reply);
}

}  // namespace sluice::session
