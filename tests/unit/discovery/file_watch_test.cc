// Proves that each way in which a file becomes another is noticed, and that nothing else is.
#include "proxy/discovery/file_watch.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace sluice::discovery {
namespace {

namespace fs = std::filesystem;

constexpr Millis kPatience{10'000};

// For what inotify has to tell: no look comes to its help.
constexpr Millis kNever{1'000'000};

class FileWatchTest : public testing::Test {
 protected:
  FileWatchTest() {
    std::string pattern = (fs::temp_directory_path() / "sluice-watch-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  ~FileWatchTest() override {
    std::error_code ignored;
    fs::remove_all(dir_, ignored);
  }

  static void Write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  bool AwaitChange() {
    const int before = changes_;
    loop_.RunUntil([&] { return changes_ > before; }, kPatience);
    const bool changed = changes_ == before + 1;
    // What one change makes is told once.
    loop_.RunUntil([] { return false; }, Millis(120));
    return changed && changes_ == before + 1;
  }

  bool IsQuiet() {
    const int before = changes_;
    loop_.RunUntil([&] { return changes_ > before; }, Millis(150));
    return changes_ == before;
  }

  auto Count() {
    return [this] { ++changes_; };
  }

  net::Loop loop_;
  fs::path dir_;
  int changes_ = 0;
};

TEST_F(FileWatchTest, NoticesWhatHappensToTheFile) {
  const fs::path file = dir_ / "b.toml";
  FileWatch watch(loop_, file.string(), Count(), kNever);
  EXPECT_TRUE(IsQuiet());
  Write(file, "one");  // made
  EXPECT_TRUE(AwaitChange());
  Write(file, "two");  // written in place
  EXPECT_TRUE(AwaitChange());
  Write(dir_ / "b.toml.new", "three");
  fs::rename(dir_ / "b.toml.new", file);  // replaced
  EXPECT_TRUE(AwaitChange());
  fs::remove(file);
  EXPECT_TRUE(AwaitChange());
  Write(file, "four");  // and back
  EXPECT_TRUE(AwaitChange());
}

TEST_F(FileWatchTest, IsNotDisturbedByItsNeighbours) {
  const fs::path file = dir_ / "b.toml";
  Write(file, "one");
  FileWatch watch(loop_, file.string(), Count(), kNever);
  Write(dir_ / "other", "two");
  fs::rename(dir_ / "other", dir_ / "another");
  fs::remove(dir_ / "another");
  EXPECT_TRUE(IsQuiet());
}

TEST_F(FileWatchTest, WaitsForTheWriter) {
  const fs::path file = dir_ / "b.toml";
  Write(file, "one");
  FileWatch watch(loop_, file.string(), Count(), kNever);
  std::ofstream writer(file, std::ios::binary);
  writer << "tw" << std::flush;
  Write(dir_ / "other", "");  // draws a look at the folder
  EXPECT_TRUE(IsQuiet());
  writer << "o" << std::flush;
  writer.close();
  EXPECT_TRUE(AwaitChange());
}

// The files of a ConfigMap: b.toml -> ..data/b.toml, ..data -> ..1, and later ..data -> ..2.
TEST_F(FileWatchTest, NoticesTheExchangeOfALinkOnItsWay) {
  for (const char* version : {"..1", "..2", "..3"}) {
    fs::create_directory(dir_ / version);
    Write(dir_ / version / "b.toml", version);
  }
  fs::create_directory_symlink("..1", dir_ / "..data");
  fs::create_symlink("..data/b.toml", dir_ / "b.toml");
  FileWatch watch(loop_, (dir_ / "b.toml").string(), Count(), kNever);
  for (const char* version : {"..2", "..3"}) {
    fs::create_directory_symlink(version, dir_ / "..data_tmp");
    fs::rename(dir_ / "..data_tmp", dir_ / "..data");
    EXPECT_TRUE(AwaitChange()) << version;
  }
}

TEST_F(FileWatchTest, NoticesAWriteToTheFileThatALinkNames) {
  fs::create_directory(dir_ / "real");
  fs::create_directory(dir_ / "links");
  Write(dir_ / "real" / "list.toml", "one");
  fs::create_symlink(dir_ / "real" / "list.toml", dir_ / "links" / "b.toml");
  FileWatch watch(loop_, (dir_ / "links" / "b.toml").string(), Count(), kNever);
  Write(dir_ / "real" / "list.toml", "two");
  EXPECT_TRUE(AwaitChange());
}

TEST_F(FileWatchTest, FindsAFolderThatComesLater) {
  const fs::path file = dir_ / "later" / "b.toml";
  FileWatch watch(loop_, file.string(), Count(), Millis(40));
  fs::create_directory(dir_ / "later");
  Write(file, "one");
  EXPECT_TRUE(AwaitChange());  // by looking now and then
  Write(file, "two");
  EXPECT_TRUE(AwaitChange());
}

}  // namespace
}  // namespace sluice::discovery
