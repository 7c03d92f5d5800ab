#include "proxy/session/request_facts.h"

#include <utility>

namespace sluice::session {
namespace {

constexpr std::size_t kTexts = static_cast<std::size_t>(FactText::kCount);

}  // namespace

void FactTexts::Store(const Views& views) {
  std::size_t bytes = 0;
  for (const std::string_view view : views) {
    bytes += view.size();
  }
  const std::size_t words = (bytes + sizeof(std::uint32_t) - 1) / sizeof(std::uint32_t);
  std::unique_ptr<std::uint32_t[]> block(new std::uint32_t[kTexts + words]);
  char* const texts = reinterpret_cast<char*>(block.get() + kTexts);
  std::size_t end = 0;
  for (std::size_t i = 0; i < kTexts; ++i) {
    end += views[i].copy(texts + end, views[i].size());
    block[i] = static_cast<std::uint32_t>(end);
  }
  block_ = std::move(block);
}

std::string_view FactTexts::Get(FactText which) const noexcept {
  if (!block_) {
    return {};
  }
  const auto index = static_cast<std::size_t>(which);
  const std::uint32_t begin = index == 0 ? 0 : block_[index - 1];
  const char* const texts = reinterpret_cast<const char*>(block_.get() + kTexts);
  return {texts + begin, block_[index] - begin};
}

FactTexts::Views FactTexts::All() const noexcept {
  Views views;
  for (std::size_t i = 0; i < kTexts; ++i) {
    views[i] = Get(static_cast<FactText>(i));
  }
  return views;
}

}  // namespace sluice::session
