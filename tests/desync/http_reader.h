// Where messages end, as llhttp tells it in its strict mode: the second opinion of this laboratory,
// for requests at its backend and for answers at its client.
#pragma once

#include <llhttp.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/desync/digest.h"

namespace sluice::desync {

struct Message {
  int status = 0;                                           // of an answer
  std::string method;                                       // of a request
  std::string target;                                       // of a request
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case
  std::uint64_t content = kNoBytes;                         // its digest
  bool head_complete = false;
  bool has_trailers = false;
  bool keep_alive = false;  // the connection may carry another one

  // The value of the first one; null: there is none.
  [[nodiscard]] const std::string* Field(std::string_view name) const;
  // The decimal number in it, or 0.
  [[nodiscard]] std::uint64_t NumberIn(std::string_view name) const;
};

class HttpReader {
 public:
  explicit HttpReader(llhttp_type_t type);
  HttpReader(const HttpReader&) = delete;
  HttpReader& operator=(const HttpReader&) = delete;

  // One more answer will come; to a HEAD it has no content, whatever its head says.
  void ExpectAnswer(bool to_head) { to_head_.push_back(to_head); }

  // False: that is not HTTP; why() tells.
  [[nodiscard]] bool Feed(std::string_view bytes);
  // The stream has ended, which is the end of an answer that announced none.
  [[nodiscard]] bool End();

  // The next message that is complete.
  std::optional<Message> Take();

  // No message has begun that is not complete.
  [[nodiscard]] bool is_between() const { return !begun_; }
  // The one that has begun.
  [[nodiscard]] const Message& open() const { return open_; }
  [[nodiscard]] const std::string& why() const { return why_; }

 private:
  static const llhttp_settings_t& Settings();
  static HttpReader& Of(llhttp_t* parser) { return *static_cast<HttpReader*>(parser->data); }
  int OnHeadersComplete();
  int OnMessageComplete();

  llhttp_t parser_{};
  Message open_;
  bool begun_ = false;
  bool value_follows_ = true;  // the last piece of a field was of its value
  std::deque<Message> complete_;
  std::deque<bool> to_head_;
  std::string why_;
};

}  // namespace sluice::desync
