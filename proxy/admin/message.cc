#include "proxy/admin/message.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "proxy/config/values.h"
#include "proxy/http/reply.h"

namespace sluice::admin {

AdminReply ProblemReply(const Problem& problem) {
  nlohmann::ordered_json document = {
      {"type", "about:blank"},
      {"title",
       problem.title.empty() ? std::string(http::ReasonPhrase(problem.status)) : problem.title},
      {"status", problem.status},
      {"detail", problem.detail},
  };
  if (!problem.mistakes.empty()) {
    document["mistakes"] = problem.mistakes;
  }
  AdminReply reply;
  reply.status = problem.status;
  reply.content_type = kProblemJson;
  // Whatever a detail quotes: bytes that are not UTF-8 are replaced, nothing throws.
  reply.body = document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return reply;
}

std::string LogValue(std::string_view text) {
  const bool plain =
      !text.empty() && text.size() <= 128 && std::all_of(text.begin(), text.end(), [](char c) {
        return c > 0x20 && c < 0x7F && c != '"' && c != '=';
      });
  return plain ? std::string(text) : config::Quoted(text);
}

}  // namespace sluice::admin
