#include "tests/deploy/storm/admin.h"

#include <utility>

#include "tests/bench/websocket.h"

namespace sluice::storm {

void Admin::Ask(std::string request, Done done) {
  queue_.push_back({std::move(request), std::move(done)});
  if (!busy_) {
    SendNext();
  }
}

void Admin::SendNext() {
  if (!fd_.valid()) {
    fd_ = bench::Connect(ntohs(address_.sin_port));
    bench::SetNonBlocking(fd_.get());
    loop_.Add(fd_.get(), EPOLLIN, *this);
  }
  busy_ = true;
  const std::string text = queue_.front().request + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
  if (::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(text.size())) {
    bench::DieErrno("the admin connection");
  }
}

void Admin::OnEvent(std::uint32_t /*events*/) {
  std::array<char, 16384> buffer;
  const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0 && errno == EAGAIN) {
    return;
  }
  if (got <= 0) {
    if (busy_) {
      bench::Die("the admin connection ended before its answer");
    }
    fd_.Reset();
    return;
  }
  answer_.append(buffer.data(), static_cast<std::size_t>(got));
  const std::size_t end = answer_.find("\r\n\r\n");
  if (end == std::string::npos) {
    return;
  }
  const std::string_view head = std::string_view(answer_).substr(0, end + 4);
  const std::size_t size = bench::Number(std::string(bench::FieldValue(head, "content-length")));
  if (answer_.size() < head.size() + size) {
    return;
  }
  const std::string whole = std::exchange(answer_, {});
  const bool closes = bench::FieldValue(head, "connection") == "close";
  const Done done = std::move(queue_.front().done);
  queue_.pop_front();
  busy_ = false;
  if (closes) {
    fd_.Reset();
  }
  done(std::atoi(whole.c_str() + 9), std::string_view(whole).substr(whole.size() - size));
  if (!busy_ && !queue_.empty()) {
    SendNext();
  }
}

}  // namespace sluice::storm
