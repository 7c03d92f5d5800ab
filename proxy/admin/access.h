// Who may use the admin interface, decided from a request's head alone and before anything else.
//
// Three dangers: somebody who can reach the port and has no token; a page of another site that
// makes its visitor's browser send requests here; and a name of that site that resolves to a
// loopback address, which makes such a page look like one of ours (DNS rebinding). Pure.
#pragma once

#include <optional>
#include <string>

#include "proxy/admin/operations.h"
#include "proxy/http/head.h"

namespace sluice::admin {

struct AdminAccess {
  std::string token = {};  // of `Authorization: Bearer`; empty: none is wanted
};

// Nothing: the request may go on. 403: a browser sends it for another site, or, where no token
// protects, the Host is a name that another site may own. 401: it lacks the token; the
// answer owes a WWW-Authenticate field. The token is compared in constant time.
[[nodiscard]] std::optional<Problem> RefuseAccess(const AdminAccess& access,
                                                  const http::RequestHead& head);

}  // namespace sluice::admin
