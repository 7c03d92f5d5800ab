#include "proxy/admin/client.h"

#include <poll.h>

#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include "proxy/http/chunked.h"
#include "proxy/http/parser.h"
#include "proxy/http/reply.h"
#include "proxy/net/socket.h"

namespace sluice::admin {
namespace {

// A connection to one endpoint, plain or TLS, that fails when its deadline passes.
class Connection {
 public:
  explicit Connection(Instant deadline) : deadline_(deadline) {}

  [[nodiscard]] Result<void> Open(const AdminEndpoint& endpoint) {
    auto fd = net::StartConnect(endpoint.address);
    if (!fd) {
      return tl::unexpected(fd.error());
    }
    fd_ = std::move(*fd);
    if (!net::Await(fd_.get(), POLLOUT, deadline_)) {
      return Err("no answer in time");
    }
    if (const int error = net::ConnectError(fd_.get()); error != 0) {
      return SysErr("cannot connect", error);
    }
    if (endpoint.tls) {
      auto tls = tls::BlockingClient::Connect(fd_.get(), *endpoint.tls, deadline_);
      if (!tls) {
        return tl::unexpected(tls.error());
      }
      tls_ = std::move(*tls);
    }
    return {};
  }

  [[nodiscard]] Result<void> Write(Bytes bytes) {
    if (tls_) {
      return tls_->Write(bytes, deadline_);
    }
    while (!bytes.empty()) {
      const net::IoResult sent = net::Send(fd_.get(), bytes);
      if (sent.status == net::IoStatus::kError) {
        return Err("the connection has ended");
      }
      bytes = bytes.subspan(sent.bytes);
      if (!bytes.empty() && !net::Await(fd_.get(), POLLOUT, deadline_)) {
        return Err("no answer in time");
      }
    }
    return {};
  }

  // 0: the end of the stream.
  [[nodiscard]] Result<std::size_t> Read(std::span<std::byte> into) {
    if (tls_) {
      return tls_->Read(into, deadline_);
    }
    for (;;) {
      const net::IoResult got = net::Receive(fd_.get(), into);
      switch (got.status) {
        case net::IoStatus::kOk:
          return got.bytes;
        case net::IoStatus::kEof:
          return 0;
        case net::IoStatus::kError:
          return Err("the connection has ended");
        case net::IoStatus::kWouldBlock:
          break;
      }
      if (!net::Await(fd_.get(), POLLIN, deadline_)) {
        return Err("no answer in time");
      }
    }
  }

 private:
  Instant deadline_;
  UniqueFd fd_;
  std::unique_ptr<tls::BlockingClient> tls_;  // after fd_, which it uses
};

std::string Serialize(const AdminEndpoint& endpoint, const ClientRequest& request) {
  std::string out = request.method + " " + request.target + " HTTP/1.1\r\n";
  http::AppendField(out, "Host", endpoint.host);
  http::AppendField(out, "User-Agent", "sluice");
  if (!endpoint.token.empty()) {
    http::AppendField(out, "Authorization", "Bearer " + endpoint.token);
  }
  if (!request.body.empty()) {
    http::AppendField(out, "Content-Type", "application/json");
  }
  if (!request.body.empty() || request.method == "POST") {
    http::AppendField(out, "Content-Length", std::to_string(request.body.size()));
  }
  http::AppendField(out, "Connection", "close");
  return out + "\r\n" + request.body;
}

// Reads one answer: its final head, then its content in whatever framing.
class AnswerReader {
 public:
  explicit AnswerReader(Connection& connection) : connection_(connection) {}

  [[nodiscard]] Result<ClientAnswer> Read(bool head_only) {
    for (;;) {
      const ParseStatus status = parser_.Parse(bytes_, head_only);
      if (status == ParseStatus::kBad) {
        return Err("does not speak HTTP");
      }
      if (status == ParseStatus::kDone) {
        if (parser_.head().status >= 200) {
          break;
        }
        bytes_.erase(0, parser_.head_size());  // an interim answer
        parser_.Reset();
        continue;
      }
      if (auto more = Fill(); !more || !*more) {
        return more ? Err("closed without an answer; does it speak TLS?")
                    : tl::unexpected(more.error());
      }
    }
    const http::ResponseHead& head = parser_.head();
    answer_.status = head.status;
    if (const http::Field* type = http::Find(head.fields, http::FieldId::kContentType)) {
      answer_.content_type = type->value;
    }
    const http::Framing framing = head.framing;
    const std::uint64_t length = head.content_length;
    bytes_.erase(0, parser_.head_size());
    if (auto content = ReadContent(framing, length); !content) {
      return tl::unexpected(content.error());
    }
    return std::move(answer_);
  }

 private:
  // False: the stream has ended.
  [[nodiscard]] Result<bool> Fill() {
    std::array<std::byte, 16 * 1024> scratch;
    const auto got = connection_.Read(scratch);
    if (!got) {
      return tl::unexpected(got.error());
    }
    bytes_ += AsText(Bytes(scratch).first(*got));
    if (bytes_.size() + answer_.body.size() > kMostAnswer) {
      return Err("answers with more than 8 MiB");
    }
    return *got > 0;
  }

  [[nodiscard]] Result<void> ReadContent(http::Framing framing, std::uint64_t length) {
    http::ChunkedDecoder chunks;
    for (;;) {
      switch (framing) {
        case http::Framing::kNone:
          return {};
        case http::Framing::kLength:
          if (bytes_.size() >= length) {
            answer_.body = bytes_.substr(0, static_cast<std::size_t>(length));
            return {};
          }
          break;
        case http::Framing::kChunked: {
          const ParseStatus status = Decode(chunks);
          if (status == ParseStatus::kDone) {
            return {};
          }
          if (status == ParseStatus::kBad) {
            return Err("does not speak HTTP");
          }
          break;
        }
        case http::Framing::kUntilClose:
          break;
      }
      const auto more = Fill();
      if (!more) {
        return tl::unexpected(more.error());
      }
      if (!*more) {
        answer_.body = framing == http::Framing::kUntilClose ? bytes_ : "";
        return framing == http::Framing::kUntilClose ? Result<void>()
                                                     : Err("closed within its answer");
      }
    }
  }

  // Moves what is decoded to the answer.
  ParseStatus Decode(http::ChunkedDecoder& chunks) {
    std::size_t used = 0;
    ParseStatus status = ParseStatus::kNeedMore;
    while (status == ParseStatus::kNeedMore && used < bytes_.size()) {
      const auto step = chunks.Next(AsBytes(bytes_).subspan(used));
      status = step.status;
      used += step.consumed;
      answer_.body += AsText(step.data);
    }
    bytes_.erase(0, used);
    return status;
  }

  Connection& connection_;
  http::ResponseParser parser_;
  std::string bytes_;  // read and not taken yet
  ClientAnswer answer_;
};

}  // namespace

Result<ClientAnswer> Ask(const AdminEndpoint& endpoint, const ClientRequest& request,
                         Millis patience) {
  const auto failed = [&](const Error& error) {
    return tl::unexpected(Error{endpoint.host + ": " + error.message, error.sys_errno});
  };
  Connection connection(Now() + patience);
  if (auto opened = connection.Open(endpoint); !opened) {
    return failed(opened.error());
  }
  if (auto written = connection.Write(AsBytes(Serialize(endpoint, request))); !written) {
    return failed(written.error());
  }
  auto answer = AnswerReader(connection).Read(request.method == "HEAD");
  if (!answer) {
    return failed(answer.error());
  }
  return answer;
}

}  // namespace sluice::admin
