#include "proxy/session/own_answer.h"

namespace sluice::session {

std::string OwnAnswer(const Core& core, const RequestFacts& facts, http::Reply reply) {
  if (!facts.has_route) {
    return http::Serialize(reply);
  }
  const Route& route = core.route(facts);
  std::string fields(reply.extra_fields);
  fields += route.heads.own_answer(core.listener->is_tls());
  reply.extra_fields = fields;
  return http::Serialize(reply);
}

}  // namespace sluice::session
