// The few system calls on sockets that the rest of the proxy needs, with their errno mapped.
#pragma once

#include <cstddef>
#include <span>

#include "proxy/base/bytes.h"
#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"
#include "proxy/net/address.h"
#include "proxy/net/io_result.h"

namespace sluice::net {

// One recv(2) and one send(2), restarted on EINTR. Never raise SIGPIPE.
[[nodiscard]] IoResult Receive(int fd, std::span<std::byte> into) noexcept;
[[nodiscard]] IoResult Send(int fd, Bytes bytes) noexcept;

// As Receive, but what it returns stays in the socket to be read again.
[[nodiscard]] IoResult Peek(int fd, std::span<std::byte> into) noexcept;

// How many bytes wait in the socket to be received.
[[nodiscard]] std::size_t Readable(int fd) noexcept;

// From now on the socket is told to be readable when so many bytes wait in it, or its end has come.
void WakeFrom(int fd, std::size_t bytes) noexcept;

// A listening socket: non-blocking, SO_REUSEPORT, and with TCP_NODELAY and keepalive probes that
// accepted sockets inherit, so that accepting costs one system call.
[[nodiscard]] Result<UniqueFd> Listen(const Address& address);

// Fails when somebody already listens on `address`. SO_REUSEPORT alone would let a second process
// of the same user join silently and take half of the connections.
[[nodiscard]] Result<void> CheckFree(const Address& address);

// One more descriptor of the same socket.
[[nodiscard]] Result<UniqueFd> Duplicate(int fd);

// Starts a connection. The socket becomes writable when it is made or has failed; then
// ConnectError() tells which. IsConnected() tells whether it is made already.
[[nodiscard]] Result<UniqueFd> StartConnect(const Address& address);
[[nodiscard]] bool IsConnected(int fd) noexcept;

// True for an error of StartConnect that says nothing about the other end: this process is out of
// descriptors, memory or ports.
[[nodiscard]] bool IsOwnShortage(int sys_errno) noexcept;

// The pending error of a socket (SO_ERROR), 0 if there is none.
[[nodiscard]] int ConnectError(int fd) noexcept;

// Waits until `fd` is ready for `events` (of poll(2)); false when the deadline comes first. Blocks:
// only where there is no loop.
[[nodiscard]] bool Await(int fd, short events, Instant deadline) noexcept;

}  // namespace sluice::net
