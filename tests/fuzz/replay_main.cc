// Runs a fuzz target over files: every argument is an input or a directory of inputs. For
// compilers without libFuzzer, and for the corpus in the test run.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

bool Run(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    return false;
  }
  // Of exactly that size, so that AddressSanitizer sees a read beyond the end.
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file),
                                std::istreambuf_iterator<char>()};
  const std::vector<std::uint8_t> input(bytes.begin(), bytes.end());
  // Known before the run, because a failure ends the process.
  std::fprintf(stderr, "%s\n", path.c_str());
  LLVMFuzzerTestOneInput(input.data(), input.size());
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t inputs = 0;
  bool all_read = true;
  for (int i = 1; i < argc; ++i) {
    if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
        if (entry.is_regular_file()) {
          all_read = Run(entry.path()) && all_read;
          ++inputs;
        }
      }
    } else {
      all_read = Run(argv[i]) && all_read;
      ++inputs;
    }
  }
  std::printf("%zu inputs\n", inputs);
  return inputs > 0 && all_read ? 0 : 1;
}
