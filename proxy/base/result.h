// The outcome of an operation that can fail: a value, or an Error that says in one sentence what
// went wrong. Ordinary socket I/O does not use it (see net/io_result.h), nor do the parsers (see
// parse_status.h): those outcomes are not failures of ours.
#pragma once

#include <cstring>
#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace sluice {

struct Error {
  std::string message;  // one sentence, lower case, no full stop; names what it is about
  int sys_errno = 0;    // errno when the kernel said no, else 0
};

// Spelled like std::expected, which g++ 12 offers only as C++23.
template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> Err(std::string message) {
  return tl::unexpected<Error>(Error{std::move(message), 0});
}

// Appends the errno text to `message`.
[[nodiscard]] inline tl::unexpected<Error> SysErr(std::string message, int sys_errno) {
  message += ": ";
  message += std::strerror(sys_errno);
  return tl::unexpected<Error>(Error{std::move(message), sys_errno});
}

}  // namespace sluice
