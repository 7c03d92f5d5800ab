# Writes OUTPUT, the C++ source that defines what page.h declares, from the bytes of INPUT. They go
# through as hexadecimal numbers, so nothing in the page needs escaping.
file(READ ${INPUT} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes
       "${bytes}")
file(WRITE ${OUTPUT} "#include \"proxy/demo/page.h\"

#include \"proxy/base/bytes.h\"

namespace sluice::demo {
namespace {

constexpr unsigned char kPage[] = {
${bytes}
};

}  // namespace

std::string_view Page() noexcept { return AsText(std::as_bytes(std::span(kPage))); }

}  // namespace sluice::demo
")
