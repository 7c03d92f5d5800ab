// Owns what a C library hands out. One pointer wide: the function that releases it is part of the
// type.
#pragma once

#include <memory>

namespace sluice {

template <auto Release>
struct ReleaseHandle {
  // Release may answer something, as BIO_free does; an owner that ends cannot act on it.
  void operator()(auto* handle) const noexcept { static_cast<void>(Release(handle)); }
};

template <class Handle, auto Release>
using CHandle = std::unique_ptr<Handle, ReleaseHandle<Release>>;

}  // namespace sluice
