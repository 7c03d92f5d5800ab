// The admin API: maps paths and parameters onto Operations and what they return onto JSON. What it
// answers is described in docs/ADMIN_API.md. Stateless; control thread only.
#pragma once

#include "proxy/admin/message.h"
#include "proxy/admin/operations.h"

namespace sluice::admin {

// An AdminHandler. Every call that may change something is logged with who asked for it, also when
// it is refused.
class Api {
 public:
  // `operations` must outlive every copy of this, and the answers that are still owed.
  explicit Api(Operations& operations) noexcept : operations_(&operations) {}

  void operator()(const AdminRequest& request, AdminResponder answer) const;

 private:
  Operations* operations_;
};

}  // namespace sluice::admin
