// A well-behaved WebSocket backend in a thread of its own: upgrades, echoes, answers ping and
// CLOSE, and remembers what it saw, over TLS if it is told so. A plain request is answered 200 with
// "NAME METHOD TARGET\n".
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "proxy/base/unique_fd.h"

#include "tests/support/deadline.h"
#include "tests/support/http_message.h"
#include "tests/support/tls_server.h"

namespace sluice::test {

class EchoBackend {
 public:
  // `tls`, if given, outlives the backend. Listens on `host`, any address of 127.0.0.0/8; port 0:
  // any free one.
  explicit EchoBackend(std::string name = "echo", const TlsServer* tls = nullptr,
                       const std::string& host = "127.0.0.1", std::uint16_t port = 0);
  ~EchoBackend();

  EchoBackend(const EchoBackend&) = delete;
  EchoBackend& operator=(const EchoBackend&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

  // What it saw. Any thread.
  [[nodiscard]] std::size_t accepts() const;
  [[nodiscard]] std::uint64_t bytes() const;  // received, all connections
  [[nodiscard]] std::size_t open() const;     // connections open now
  [[nodiscard]] std::vector<HttpMessage> heads() const;
  [[nodiscard]] std::vector<std::uint16_t> closes() const;  // codes of CLOSE frames that came
  [[nodiscard]] std::vector<TlsFacts> handshakes() const;   // of connections that sent a head

  // Wait for what will happen; false when it did not in time.
  [[nodiscard]] bool AwaitAccepts(std::size_t count, Deadline deadline = Deadline());
  [[nodiscard]] bool AwaitCloses(std::size_t count, Deadline deadline = Deadline());
  [[nodiscard]] bool AwaitOpen(std::size_t count, Deadline deadline = Deadline());

  // Sends bytes as they are to every upgraded connection, from its own thread.
  void Broadcast(std::string bytes);

 private:
  struct SslFree {
    void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
  };

  struct Peer {
    std::unique_ptr<SSL, SslFree> ssl;  // null: plain
    std::string in;
    std::string out;
    bool upgraded = false;
    bool closing = false;   // CLOSE went out, or the answer to a plain request: end after `out`
    bool finished = false;  // our FIN is out
  };

  void Run();
  void AcceptAll();
  bool Serve(int fd, Peer& peer, short events);  // false: the connection is over
  void Take(Peer& peer);
  // As recv(2) and send(2), also over TLS.
  static ssize_t Receive(int fd, Peer& peer, char* into, std::size_t size);
  static ssize_t Send(int fd, Peer& peer);
  template <class Condition>
  bool Await(Deadline deadline, Condition&& condition);

  std::string name_;
  const TlsServer* tls_;
  UniqueFd listener_;
  UniqueFd wake_;
  std::uint16_t port_ = 0;
  std::map<int, Peer> peers_;  // of the thread

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t accepts_ = 0;
  std::size_t open_ = 0;
  std::uint64_t bytes_ = 0;
  std::vector<HttpMessage> heads_;
  std::vector<std::uint16_t> closes_;
  std::vector<TlsFacts> handshakes_;
  std::string broadcast_;
  bool stop_ = false;

  std::thread thread_;
};

}  // namespace sluice::test
