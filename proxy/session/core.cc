#include "proxy/session/core.h"

#include "proxy/tls/tls_transport.h"

namespace sluice::session {

namespace {

const std::shared_ptr<balance::BackendState>& StateOf(const Core& core, const RequestFacts& facts) {
  return core.pool(facts).backends.backends()[facts.backend].state;
}

}  // namespace

void Core::NoteFailure(const RequestFacts& facts, metrics::BackendFailure why) noexcept {
  const auto& state = StateOf(*this, facts);
  if (state->failures.AddFailure(pool(facts).config.outlier.failures)) {
    services.owner.OnFailing(state, why);
  }
}

void Core::NoteSuccess(const RequestFacts& facts) noexcept {
  StateOf(*this, facts)->failures.EndFailures();
}

void Core::NoteLoss(const RequestFacts& facts, metrics::BackendFailure why) noexcept {
  const auto& state = StateOf(*this, facts);
  if (state->failures.AddLoss(pool(facts).config.outlier.failures, services.loop.now())) {
    services.owner.OnFailing(state, why);
  }
}

void Core::NoteOrderlyEnd(const RequestFacts& facts) noexcept {
  StateOf(*this, facts)->failures.EndLosses();
}

log::AccessRecord BaseRecord(const Core& core, const RequestFacts& facts, Instant now) {
  const auto text = [&facts](FactText which) { return facts.texts.Get(which); };
  log::AccessRecord record;
  record.conn_id = core.id;
  record.client_ip = text(FactText::kClientIp);
  record.client_port = core.peer.port();
  if (const Introduction* introduction = core.introduction()) {
    record.proxy = introduction->proxy;
  }
  record.listener = core.listener->name;
  if (const auto* tls = dynamic_cast<const tls::TlsTransport*>(core.client.transport())) {
    record.tls_version = tls->version();
    record.tls_resumed = tls->resumed();
    record.sni = tls->server_name();
    record.alpn = tls->alpn();
  }
  record.method = text(FactText::kMethod);
  record.host = text(FactText::kHost);
  record.path = text(FactText::kPath);
  record.query = text(FactText::kQuery);
  record.origin = text(FactText::kOrigin);
  record.forwarded_for = text(FactText::kForwardedFor);
  record.user_agent = text(FactText::kUserAgent);
  record.request_id = text(FactText::kRequestId);
  record.status = facts.status;
  if (facts.has_route) {
    record.route = core.route(facts).config.name;
    record.pool = core.pool(facts).config.name;
    if (facts.has_backend) {
      record.backend = core.pool(facts).config.backends[facts.backend].name;
    }
  }
  record.affinity = text(FactText::kAffinity);
  record.attempts = facts.attempts;
  record.subprotocol = text(FactText::kSubprotocol);
  record.extensions = text(FactText::kExtensions);
  record.duration = std::chrono::duration_cast<Millis>(now - facts.began);
  record.handshake = facts.handshake;
  record.backend_connect = facts.backend_connect;
  return record;
}

}  // namespace sluice::session
