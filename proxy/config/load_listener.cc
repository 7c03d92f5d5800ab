// Listeners, with their TLS and redirects. Part of Loader.
#include <utility>

#include "proxy/config/loader.h"
#include "proxy/config/values.h"

namespace sluice::config {

void Loader::ReadListeners() {
  const auto tables =
      root_.Tables("listener", "listener", "an array of tables, each written [[listener]]");
  if (root_.IsAbsentOrEmpty("listener")) {
    root_.AddMistake("listener", "there is no listener; write [[listener]] and an address");
  }
  Claims names("listener name");
  Claims addresses("address");
  for (const TableReader& in : tables) {
    Listener out;
    std::string shown;
    bool address_free = false;
    if (!in.Has("address")) {
      in.AddMistake("address",
                    "is missing; allowed: a numeric address and a port, such as "
                    "\"0.0.0.0:8080\" or \"[::]:8080\"");
    } else if (const auto text = in.Text("address")) {
      auto parsed = ParseHostPort(text->text);
      if (!parsed) {
        in.AddMistake("address", parsed.error().message);
      } else if (!parsed->numeric) {
        in.AddMistake("address", Quoted(text->text) +
                                     " is not numeric; allowed: a numeric address and a port, "
                                     "such as \"0.0.0.0:8080\" or \"[::]:8080\"");
      } else {
        shown = parsed->Text();
        out.host = std::move(parsed->host);
        out.port = parsed->port;
        // Port 0 is a different port every time.
        address_free = out.port == 0 ||
                       addresses.Claim(report_, shown, in.LineOf("address"), in.PathOf("address"));
      }
    }
    out.name = shown;
    in.ReadParsed("name", out.name, ParseName);
    if (!out.name.empty() && (in.Has("name") || address_free)) {
      names.Claim(report_, out.name, in.LineOf("name"), in.PathOf("name"));
    }
    if (const auto tls = in.Table("tls", "listener.tls", "a table")) {
      ReadTls(*tls, "listener.tls.certificates", out.tls);
      if (const auto ca = tls->Text("client_ca"); ca && !ca->text.empty()) {
        ReadFilePath(*tls, "client_ca", kPemFile, out.tls.client_ca);
      }
    }
    if (in.Read("proxy_protocol", out.proxy_protocol) && out.proxy_protocol &&
        config_.server.trusted_proxies.empty()) {
      in.AddMistake("proxy_protocol",
                    "true lets nobody in while server.trusted_proxies names no proxy that may say "
                    "who its clients are; allowed: false, or true together with trusted_proxies");
    }
    ReadRedirect(in, out.redirect);
    config_.listeners.push_back(std::move(out));
    listener_places_.push_back({in.LineOf("address"), in.PathOf("address")});
  }
}

void Loader::ReadTls(const TableReader& in, std::string_view certificates_path, ListenerTls& out) {
  out.line = in.LineOf("certificates");
  constexpr std::string_view kForm =
      "an array of tables, such as [{ chain = \"chain.pem\", key = \"key.pem\" }]";
  const auto tables = in.Tables("certificates", certificates_path, kForm);
  Claims chains("certificate chain");
  for (const TableReader& entry : tables) {
    Certificate certificate;
    if (ReadFilePath(entry, "chain", kPemFile, certificate.chain)) {
      chains.Claim(report_, certificate.chain, entry.LineOf("chain"), entry.PathOf("chain"));
    }
    ReadFilePath(entry, "key", kPemFile, certificate.key);
    out.certificates.push_back(std::move(certificate));
  }
  // A listener that names TLS settings and then speaks plain TCP is the worst of all surprises.
  if (!in.Has("certificates")) {
    in.AddMistake("certificates", "is missing, and without it the listener is plain; allowed: " +
                                      std::string(kForm) + ", or no tls at all");
  } else if (in.IsAbsentOrEmpty("certificates")) {
    in.AddMistake("certificates",
                  "must not be empty; leave tls out altogether for a plain listener");
  }
  in.ReadWord("min_version", out.min_version, {"1.2", "1.3"}, {TlsVersion::k12, TlsVersion::k13});
}

void Loader::ReadRedirect(const TableReader& listener, std::optional<Redirect>& out) {
  constexpr std::string_view kForm = "\"https\" or a table, such as { port = 443, status = 308 }";
  if (!listener.Has("redirect")) {
    return;
  }
  if (listener.Has("tls")) {
    listener.AddMistake("redirect",
                        "sends clients to https, and this listener has tls itself; allowed: either "
                        "redirect or tls");
  }
  Redirect redirect;
  if (listener.IsText("redirect")) {
    if (const auto word = listener.Text("redirect"); word->text != "https") {
      listener.AddMistake("redirect",
                          Quoted(word->text) + " is not known; allowed: " + std::string(kForm));
      return;
    }
  } else if (const auto in = listener.Table("redirect", "listener.redirect", kForm)) {
    in->ReadCount("port", redirect.port, 1, 65535);
    in->ReadCode(
        "status", redirect.status,
        [](std::uint16_t status) {
          return status == 301 || status == 302 || status == 307 || status == 308;
        },
        "is no status that sends clients to another URL", "301, 302, 307, 308");
  } else {
    return;
  }
  out = redirect;
}

}  // namespace sluice::config
