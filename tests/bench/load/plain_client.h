// A client that asks for pages or streams without an upgrade, one request at a time.
#pragma once

#include <string>
#include <string_view>

#include "tests/bench/load/client.h"

namespace sluice::bench {

class PlainClient : public Client {
 public:
  using Client::Client;

  // Opens it, waiting, and registers it with `epoll`, which outlives it.
  void OpenAndWatch(int epoll);
  // Sends a GET for the target with these field lines besides those of a browser.
  void Ask(std::string_view fields = {});

  void OnEvent(std::uint32_t events) override;

 protected:
  // What has come of the answer, which grows until it is taken. May ask for the next one when the
  // answer is whole.
  virtual void OnBytes(std::string_view answer) = 0;
  // The answer is whole: what comes next is another one.
  void TakeAnswer() { answer_.clear(); }

 private:
  std::string request_;
  std::string answer_;
};

}  // namespace sluice::bench
