#include "proxy/admin/parameters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "proxy/config/values.h"
#include "proxy/http/head.h"

namespace sluice::admin {
namespace {

using config::Quoted;
using nlohmann::json;

// "window, rate and force".
std::string NamesOf(std::span<const Parameter> parameters) {
  std::string names;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    names += i == 0 ? "" : i + 1 == parameters.size() ? " and " : ", ";
    names += parameters[i].name;
  }
  return names;
}

const Parameter* FindAllowed(std::span<const Parameter> allowed, std::string_view name) {
  const auto found = std::find_if(allowed.begin(), allowed.end(),
                                  [&](const auto& one) { return one.name == name; });
  return found == allowed.end() ? nullptr : &*found;
}

tl::unexpected<Problem> Unknown(std::string_view name, std::span<const Parameter> allowed) {
  const std::string what = "There is no parameter " + Quoted(name) + " here; allowed: ";
  return Refused(400, what + (allowed.empty() ? "none" : NamesOf(allowed)) + ".");
}

// The value as a query would carry it; nothing when it has the wrong type.
std::optional<std::string> TextOf(const json& value, ParameterKind kind) {
  switch (kind) {
    case ParameterKind::kText:
      return value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt;
    case ParameterKind::kNumber:
      return value.is_number() ? std::optional(value.dump()) : std::nullopt;
    case ParameterKind::kFlag:
      return value.is_boolean() ? std::optional(value.dump()) : std::nullopt;
  }
  return std::nullopt;
}

std::string_view FormOf(ParameterKind kind) {
  switch (kind) {
    case ParameterKind::kText:
      return "a string";
    case ParameterKind::kNumber:
      return "a number";
    case ParameterKind::kFlag:
      return "true or false";
  }
  return {};
}

// RFC 9110 section 8.3.1: the type has no case, and its parameters do not matter here.
bool IsJson(std::string_view content_type) {
  return http::EqualsIgnoreCase(http::Trim(content_type.substr(0, content_type.find(';'))), kJson);
}

std::optional<unsigned> HexDigit(char c) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(&c, &c + 1, value, 16);
  return error == std::errc() && end == &c + 1 ? std::optional(value) : std::nullopt;
}

}  // namespace

tl::unexpected<Problem> Refused(int status, std::string detail) {
  Problem problem;
  problem.status = status;
  problem.detail = std::move(detail);
  return tl::unexpected<Problem>(std::move(problem));
}

std::optional<std::string> DecodePercent(std::string_view text, bool in_query) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && in_query) {
      out += ' ';
    } else if (text[i] != '%') {
      out += text[i];
    } else {
      const auto high = i + 2 < text.size() ? HexDigit(text[i + 1]) : std::nullopt;
      const auto low = high ? HexDigit(text[i + 2]) : std::nullopt;
      if (!low) {
        return std::nullopt;
      }
      out += static_cast<char>(*high * 16 + *low);
      i += 2;
    }
  }
  return out;
}

Outcome<Parameters> Parameters::Read(const AdminRequest& request,
                                     std::span<const Parameter> allowed) {
  Parameters read;
  if (auto query = read.ReadQuery(request.query, allowed); !query) {
    return tl::unexpected(query.error());
  }
  if (!request.body.empty()) {
    if (auto content = read.ReadContent(request, allowed); !content) {
      return tl::unexpected(content.error());
    }
  }
  return read;
}

Outcome<void> Parameters::ReadQuery(std::string_view query, std::span<const Parameter> allowed) {
  while (!query.empty()) {
    const std::size_t end = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (pair.empty()) {
      continue;
    }
    const std::size_t equals = std::min(pair.find('='), pair.size());
    const auto name = DecodePercent(pair.substr(0, equals), true);
    const auto value = DecodePercent(pair.substr(std::min(equals + 1, pair.size())), true);
    if (!name || !value) {
      return Refused(400, "The query has a \"%\" without two hexadecimal digits behind it.");
    }
    if (FindAllowed(allowed, *name) == nullptr) {
      return Unknown(*name, allowed);
    }
    if (auto put = Put(*name, *value); !put) {
      return put;
    }
  }
  return {};
}

Outcome<void> Parameters::ReadContent(const AdminRequest& request,
                                      std::span<const Parameter> allowed) {
  if (!IsJson(request.content_type)) {
    return Refused(415,
                   "Content has to be a JSON object, sent with Content-Type: application/json.");
  }
  // Of two equal keys the parser would keep the last in silence.
  std::set<std::string> keys;
  std::optional<std::string> twice;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth == 1 && event == json::parse_event_t::key &&
        !keys.insert(parsed.get<std::string>()).second && !twice) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  const json document = json::parse(request.body, watch, /*allow_exceptions=*/false);
  if (!document.is_object()) {
    return Refused(400, "The content is not a JSON object.");
  }
  if (twice) {
    return Refused(400, "The parameter " + Quoted(*twice) + " is given twice.");
  }
  for (const auto& [name, value] : document.items()) {
    const Parameter* parameter = FindAllowed(allowed, name);
    if (parameter == nullptr) {
      return Unknown(name, allowed);
    }
    const auto text = TextOf(value, parameter->kind);
    if (!text) {
      return Refused(400, "The parameter " + name + " has to be " +
                              std::string(FormOf(parameter->kind)) + " in JSON, not " +
                              value.type_name() + ".");
    }
    if (auto put = Put(name, *text); !put) {
      return put;
    }
  }
  return {};
}

Outcome<void> Parameters::Put(const std::string& name, const std::string& value) {
  const auto [entry, fresh] = values_.try_emplace(name, value);
  if (!fresh) {
    return Refused(400, "The parameter " + name + " is given twice.");
  }
  return {};
}

const std::string* Parameters::Find(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : &found->second;
}

Outcome<std::optional<std::uint64_t>> Parameters::Count(std::string_view name, std::uint64_t least,
                                                        std::uint64_t most) const {
  const std::string* text = Find(name);
  if (text == nullptr) {
    return std::nullopt;
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < least || value > most) {
    return Refused(400, std::string(name) + ": " + Quoted(*text) + " is not a whole number from " +
                            std::to_string(least) + " to " + std::to_string(most) + ".");
  }
  return value;
}

Outcome<std::optional<double>> Parameters::Rate(std::string_view name, double most) const {
  const std::string* text = Find(name);
  if (text == nullptr) {
    return std::nullopt;
  }
  double value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  // Written so that NaN fails.
  if (error != std::errc() || end != text->data() + text->size() || !(value > 0 && value <= most)) {
    return Refused(400, std::string(name) + ": " + Quoted(*text) +
                            " is not a number above 0 and at most " +
                            std::to_string(std::llround(most)) + ".");
  }
  return value;
}

Outcome<bool> Parameters::Flag(std::string_view name) const {
  const std::string* text = Find(name);
  if (text == nullptr || *text == "false") {
    return false;
  }
  if (*text != "true") {
    return Refused(
        400, std::string(name) + ": " + Quoted(*text) + " is neither \"true\" nor \"false\".");
  }
  return true;
}

Outcome<std::optional<Millis>> Parameters::Duration(std::string_view name, Millis most) const {
  const std::string* text = Find(name);
  if (text == nullptr) {
    return std::nullopt;
  }
  const auto value = config::ParseDuration(*text);
  if (!value) {
    return Refused(400, std::string(name) + ": " + value.error().message + ".");
  }
  if (*value > most) {
    return Refused(400, std::string(name) + ": " + Quoted(*text) + " is too long; allowed: 0s to " +
                            config::FormatDuration(most) + ".");
  }
  return *value;
}

}  // namespace sluice::admin
