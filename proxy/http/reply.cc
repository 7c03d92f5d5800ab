#include "proxy/http/reply.h"

namespace sluice::http {

std::string_view ReasonPhrase(int status) noexcept {
  switch (status) {
    case 100:
      return "Continue";
    case 101:
      return "Switching Protocols";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 203:
      return "Non-Authoritative Information";
    case 204:
      return "No Content";
    case 205:
      return "Reset Content";
    case 206:
      return "Partial Content";
    case 300:
      return "Multiple Choices";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 305:
      return "Use Proxy";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 402:
      return "Payment Required";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 407:
      return "Proxy Authentication Required";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 426:
      return "Upgrade Required";
    case 429:  // RFC 6585 section 4
      return "Too Many Requests";
    case 431:  // RFC 6585 section 5
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

void AppendField(std::string& out, std::string_view name, std::string_view value) {
  // One growth and four copies instead of four growths: a head has some twenty fields.
  std::size_t at = out.size();
  out.resize(at + name.size() + value.size() + 4);
  at += name.copy(&out[at], name.size());
  out[at++] = ':';
  out[at++] = ' ';
  at += value.copy(&out[at], value.size());
  out[at++] = '\r';
  out[at] = '\n';
}

std::string Serialize(const Reply& reply) {
  std::string out;
  const std::size_t length = reply.content ? reply.content->size() : reply.text.size() + 1;
  out.reserve(256 + reply.extra_fields.size() + (reply.head_only ? 0 : length));
  out.append("HTTP/1.1 ").append(std::to_string(reply.status)).append(" ");
  out.append(ReasonPhrase(reply.status)).append("\r\n");
  if (!reply.date.empty()) {
    AppendField(out, "Date", reply.date);
  }
  AppendField(out, "Content-Type", reply.type);
  AppendField(out, "Content-Length", std::to_string(length));
  if (!reply.lasting) {
    AppendField(out, "Cache-Control", "no-store");
  }
  out.append(reply.extra_fields);
  if (reply.close) {
    AppendField(out, "Connection", "close");
  }
  out.append("\r\n");
  if (reply.head_only) {
    return out;
  }
  if (reply.content) {
    out.append(*reply.content);
  } else {
    out.append(reply.text).append("\n");
  }
  return out;
}

}  // namespace sluice::http
