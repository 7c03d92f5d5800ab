// Proves that pipes move bytes whole and in order, that a pool lends a bounded number of them, and
// that one which still holds bytes never comes out of it again.
#include "proxy/net/pipe.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/unique_fd.h"

namespace sluice::net {
namespace {

struct Pair {
  UniqueFd ours;
  UniqueFd theirs;
};

Pair MakePair() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.data()), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::string ReadAll(int fd) {
  std::string all;
  std::array<char, 65536> buffer{};
  for (ssize_t got = 0; (got = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    all.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return all;
}

TEST(Pipe, MovesBytesAndCountsWhatIsInside) {
  const Pair from = MakePair();
  const Pair to = MakePair();
  const auto pipe = Pipe::Make();
  ASSERT_TRUE(pipe);
  ASSERT_EQ(::write(from.theirs.get(), "abcdef", 6), 6);
  const auto got = pipe->Fill(from.ours.get(), 4);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->status, IoStatus::kOk);
  EXPECT_EQ(got->bytes, 4U);
  EXPECT_EQ(pipe->size(), 4U);
  const IoResult out = pipe->Drain(to.ours.get());
  EXPECT_EQ(out.status, IoStatus::kOk);
  EXPECT_EQ(out.bytes, 4U);
  EXPECT_EQ(pipe->size(), 0U);
  EXPECT_EQ(ReadAll(to.theirs.get()), "abcd");
}

TEST(Pipe, TellsNothingThereFromTheEnd) {
  Pair from = MakePair();
  const auto pipe = Pipe::Make();
  ASSERT_TRUE(pipe);
  EXPECT_EQ(pipe->Fill(from.ours.get(), 100).value().status, IoStatus::kWouldBlock);
  from.theirs.Reset();
  EXPECT_EQ(pipe->Fill(from.ours.get(), 100).value().status, IoStatus::kEof);
  EXPECT_EQ(pipe->size(), 0U);
}

TEST(Pipe, KeepsWhatTheSocketDoesNotTake) {
  const Pair from = MakePair();
  const Pair to = MakePair();
  while (::write(to.ours.get(), "xxxxxxxxxxxxxxxx", 16) > 0) {
  }
  const auto pipe = Pipe::Make();
  ASSERT_TRUE(pipe);
  ASSERT_EQ(::write(from.theirs.get(), "later", 5), 5);
  ASSERT_EQ(pipe->Fill(from.ours.get(), 100).value().bytes, 5U);
  EXPECT_EQ(pipe->Drain(to.ours.get()).status, IoStatus::kWouldBlock);
  EXPECT_EQ(pipe->size(), 5U);
  ReadAll(to.theirs.get());
  EXPECT_EQ(pipe->Drain(to.ours.get()).status, IoStatus::kOk);
  EXPECT_EQ(ReadAll(to.theirs.get()), "later");
}

TEST(Pipe, ReportsASocketThatNobodyReads) {
  ::signal(SIGPIPE, SIG_IGN);
  const Pair from = MakePair();
  Pair to = MakePair();
  to.theirs.Reset();
  const auto pipe = Pipe::Make();
  ASSERT_TRUE(pipe);
  ASSERT_EQ(::write(from.theirs.get(), "lost", 4), 4);
  ASSERT_EQ(pipe->Fill(from.ours.get(), 100).value().bytes, 4U);
  EXPECT_EQ(pipe->Drain(to.ours.get()).status, IoStatus::kError);
}

TEST(Pipe, DoesNotTakeADescriptorThatCannotBeSplicedForABrokenConnection) {
  const UniqueFd directory(::open("/", O_RDONLY | O_DIRECTORY));
  ASSERT_TRUE(directory.valid());
  const auto pipe = Pipe::Make();
  ASSERT_TRUE(pipe);
  EXPECT_FALSE(pipe->Fill(directory.get(), 100).has_value());
}

TEST(PipePool, LendsTheSameEmptyPipeAgain) {
  PipePool pool;
  auto first = pool.Borrow();
  ASSERT_TRUE(first);
  const Pipe* const known = first.get();
  EXPECT_EQ(pool.lent(), 1U);
  pool.Return(std::move(first));
  EXPECT_EQ(pool.lent(), 0U);
  EXPECT_EQ(pool.Borrow().get(), known);
}

TEST(PipePool, NeverLendsAPipeThatHoldsBytes) {
  const Pair from = MakePair();
  const Pair to = MakePair();
  PipePool pool;
  auto pipe = pool.Borrow();
  ASSERT_TRUE(pipe);
  ASSERT_EQ(::write(from.theirs.get(), "secret", 6), 6);
  ASSERT_EQ(pipe->Fill(from.ours.get(), 100).value().bytes, 6U);
  pool.Return(std::move(pipe));
  EXPECT_EQ(pool.lent(), 0U);
  pipe = pool.Borrow();
  ASSERT_TRUE(pipe);
  ASSERT_EQ(::write(from.theirs.get(), "mine", 4), 4);
  ASSERT_EQ(pipe->Fill(from.ours.get(), 100).value().bytes, 4U);
  ASSERT_EQ(pipe->Drain(to.ours.get()).bytes, 4U);
  EXPECT_EQ(ReadAll(to.theirs.get()), "mine");
}

TEST(PipePool, DoesNotTryAgainAtOnceWhenNoneCanBeMade) {
  PipePool pool;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_FALSE(pool.Borrow());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_FALSE(pool.Borrow()) << "tried again at once";
  int turned_away = 1;
  while (!pool.Borrow()) {
    ASSERT_LT(++turned_away, 10'000) << "never tried again";
  }
  EXPECT_GT(turned_away, 100);
}

TEST(PipePool, LendsABoundedNumber) {
  PipePool pool;
  std::vector<std::unique_ptr<Pipe>> lent;
  for (std::size_t i = 0; i < PipePool::kMostLent; ++i) {
    lent.push_back(pool.Borrow());
    ASSERT_TRUE(lent.back());
  }
  EXPECT_FALSE(pool.Borrow());
  pool.Return(std::move(lent.back()));
  EXPECT_TRUE(pool.Borrow());
}

}  // namespace
}  // namespace sluice::net
