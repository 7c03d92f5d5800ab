// Reads a configuration file and reports every mistake in it at once. The only files that include
// <toml++/toml.h> are load.cc and its neighbours in this folder. Startup and control thread only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/config/config.h"

namespace sluice::config {

struct Mistake {
  std::string where;  // "sluice.toml:12"
  std::string key;    // "route[0].pool"; empty for a syntax error
  std::string what;   // what is wrong, and what is allowed

  // "sluice.toml:12: route[0].pool: there is no pool named \"chta\"; pools here: chat"
  [[nodiscard]] std::string Text() const;
};

struct LoadResult {
  Config config;                  // meaningful only without mistakes
  std::vector<Mistake> mistakes;  // each makes the file unusable
  std::vector<Mistake> warnings;  // what is accepted, but hardly meant

  [[nodiscard]] bool ok() const noexcept { return mistakes.empty(); }
};

// Reads, parses and checks the file. Relative paths in it are taken from the file's folder and
// come back joined with it. Does not look into certificates: proxy/tls does (see
// tls::ServerContext).
[[nodiscard]] LoadResult LoadFile(const std::string& path);

// The same for text; `name` stands for the file in messages, `base_dir` for its folder.
[[nodiscard]] LoadResult LoadText(std::string_view text, const std::string& name,
                                  const std::string& base_dir);

struct LoadedBackends {
  std::vector<Backend> backends;  // meaningful only without mistakes
  std::vector<Mistake> mistakes;
};

// Reads a file that `discover.file` names: `backends`, by the rules of a pool.
[[nodiscard]] LoadedBackends LoadBackends(const std::string& path);

// The token of the admin interface that the file at `path` holds, without the white space behind
// it. The error names what is allowed and never what the file holds.
[[nodiscard]] Result<std::string> LoadToken(const std::string& path);

}  // namespace sluice::config
