#include "proxy/session/core.h"

#include "proxy/tls/tls_transport.h"

namespace sluice::session {

log::AccessRecord BaseRecord(const Core& core, const RequestFacts& facts,
                             const std::string& peer_ip, Instant now) {
  log::AccessRecord record;
  record.conn_id = core.id;
  record.client_ip = facts.client_ip.empty() ? std::string_view(peer_ip) : facts.client_ip;
  record.client_port = core.peer.port();
  record.listener = core.listener_config().name;
  if (const auto* tls = dynamic_cast<const tls::TlsTransport*>(core.client.transport())) {
    record.tls_version = tls->version();
    record.tls_resumed = tls->resumed();
    record.sni = tls->server_name();
    record.alpn = tls->alpn();
  }
  record.method = facts.method;
  record.host = facts.host;
  record.path = facts.path;
  record.query = facts.query;
  record.origin = facts.origin;
  record.forwarded_for = facts.forwarded_for;
  record.user_agent = facts.user_agent;
  record.request_id = facts.request_id;
  record.status = facts.status;
  if (facts.has_route) {
    record.route = core.route(facts).config.name;
    record.pool = core.pool(facts).config.name;
    if (facts.has_backend) {
      record.backend = core.pool(facts).config.backends[facts.backend].name;
    }
  }
  record.affinity = facts.affinity;
  record.attempts = facts.attempts;
  record.subprotocol = facts.subprotocol;
  record.extensions = facts.extensions;
  record.duration = std::chrono::duration_cast<Millis>(now - facts.began);
  record.handshake = facts.handshake;
  record.backend_connect = facts.backend_connect;
  return record;
}

}  // namespace sluice::session
