#include "tests/desync/http_reader.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

namespace sluice::desync {

const std::string* Message::Field(std::string_view name) const {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [&](const auto& field) { return field.first == name; });
  return found == fields.end() ? nullptr : &found->second;
}

std::uint64_t Message::NumberIn(std::string_view name) const {
  const std::string* value = Field(name);
  return value == nullptr ? 0 : std::strtoull(value->c_str(), nullptr, 10);
}

HttpReader::HttpReader(llhttp_type_t type) {
  llhttp_init(&parser_, type, &Settings());
  parser_.data = this;
}

const llhttp_settings_t& HttpReader::Settings() {
  static const llhttp_settings_t settings = [] {
    llhttp_settings_t made;
    llhttp_settings_init(&made);
    made.on_message_begin = [](llhttp_t* parser) {
      HttpReader& reader = Of(parser);
      reader.open_ = Message();
      reader.begun_ = true;
      reader.value_follows_ = true;
      return 0;
    };
    made.on_url = [](llhttp_t* parser, const char* at, std::size_t size) {
      Of(parser).open_.target.append(at, size);
      return 0;
    };
    made.on_header_field = [](llhttp_t* parser, const char* at, std::size_t size) {
      HttpReader& reader = Of(parser);
      reader.open_.has_trailers = reader.open_.head_complete;
      if (reader.value_follows_) {
        reader.open_.fields.emplace_back();
        reader.value_follows_ = false;
      }
      std::string& name = reader.open_.fields.back().first;
      std::transform(at, at + size, std::back_inserter(name),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      return 0;
    };
    made.on_header_value = [](llhttp_t* parser, const char* at, std::size_t size) {
      Of(parser).open_.fields.back().second.append(at, size);
      return 0;
    };
    made.on_header_value_complete = [](llhttp_t* parser) {
      Of(parser).value_follows_ = true;
      return 0;
    };
    made.on_headers_complete = [](llhttp_t* parser) { return Of(parser).OnHeadersComplete(); };
    made.on_body = [](llhttp_t* parser, const char* at, std::size_t size) {
      Message& open = Of(parser).open_;
      open.content = Digest({at, size}, open.content);
      return 0;
    };
    made.on_message_complete = [](llhttp_t* parser) { return Of(parser).OnMessageComplete(); };
    return made;
  }();
  return settings;
}

int HttpReader::OnHeadersComplete() {
  constexpr int kNoContent = 1;
  open_.head_complete = true;
  if (parser_.type == HTTP_REQUEST) {
    open_.method = llhttp_method_name(static_cast<llhttp_method_t>(parser_.method));
    return 0;
  }
  open_.status = parser_.status_code;
  if (open_.status < 200 || to_head_.empty()) {
    return 0;
  }
  const bool to_head = to_head_.front();
  to_head_.pop_front();
  // llhttp believes the Content-Length of a 304, which RFC 9112 section 6.3 does not.
  return to_head || open_.status == 304 || open_.status == 204 ? kNoContent : 0;
}

int HttpReader::OnMessageComplete() {
  open_.keep_alive = llhttp_should_keep_alive(&parser_) != 0;
  complete_.push_back(std::move(open_));
  open_ = Message();
  begun_ = false;
  return 0;
}

bool HttpReader::Feed(std::string_view bytes) {
  llhttp_errno_t error = llhttp_execute(&parser_, bytes.data(), bytes.size());
  // Behind an Upgrade that nobody has accepted HTTP goes on.
  while (error == HPE_PAUSED_UPGRADE) {
    bytes.remove_prefix(static_cast<std::size_t>(llhttp_get_error_pos(&parser_) - bytes.data()));
    llhttp_resume_after_upgrade(&parser_);
    error = bytes.empty() ? HPE_OK : llhttp_execute(&parser_, bytes.data(), bytes.size());
  }
  if (error != HPE_OK) {
    const char* reason = llhttp_get_error_reason(&parser_);
    why_ = std::string(llhttp_errno_name(error)) + " " + (reason == nullptr ? "" : reason);
  }
  return error == HPE_OK;
}

bool HttpReader::End() {
  return llhttp_finish(&parser_) == HPE_OK && is_between();
}

std::optional<Message> HttpReader::Take() {
  if (complete_.empty()) {
    return std::nullopt;
  }
  Message message = std::move(complete_.front());
  complete_.pop_front();
  return message;
}

}  // namespace sluice::desync
