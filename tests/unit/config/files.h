// Files for the tests of this folder: a temporary folder, the samples, the messages of a load.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/config/load.h"

namespace sluice::config {

// A folder of its own, removed with everything in it.
class TempDir {
 public:
  TempDir() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "sluice-config-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data()) != nullptr ? pattern : std::string();
  }

  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  std::string Write(const std::string& name, std::string_view text) const {
    const std::filesystem::path file = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
    return file.string();
  }

 private:
  std::string path_;
};

[[nodiscard]] inline std::string SamplePath(std::string_view name) {
  return SLUICE_CONFIG_DIR "/" + std::string(name);
}

[[nodiscard]] inline std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

[[nodiscard]] inline std::vector<std::string> Texts(const std::vector<Mistake>& mistakes) {
  std::vector<std::string> out;
  out.reserve(mistakes.size());
  for (const Mistake& mistake : mistakes) {
    out.push_back(mistake.Text());
  }
  return out;
}

}  // namespace sluice::config
