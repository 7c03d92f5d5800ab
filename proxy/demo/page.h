// The demo page (page.html) as it was compiled in.
#pragma once

#include <string_view>

namespace sluice::demo {

// The whole document, UTF-8. The view is static.
[[nodiscard]] std::string_view Page() noexcept;

}  // namespace sluice::demo
