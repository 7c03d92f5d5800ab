// Loaded by LD_PRELOAD: counts the calls that the data path must not make, or make once a message,
// and passes each on. Counts nothing when kCallCountsVariable is not set.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdlib>
#include <ctime>

#include "tests/cost/call_counts.h"

// glibc's own names: looking up "malloc" would allocate.
extern "C" void* __libc_malloc(std::size_t);
extern "C" void* __libc_calloc(std::size_t, std::size_t);
extern "C" void* __libc_realloc(void*, std::size_t);

namespace {

using sluice::test::Call;
using sluice::test::CallCounts;

CallCounts* counts = nullptr;

__attribute__((constructor)) void MapCounts() {
  const char* path = std::getenv(sluice::test::kCallCountsVariable);
  const int fd = path == nullptr ? -1 : ::open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    return;
  }
  void* mapped = ::mmap(nullptr, sizeof(CallCounts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (mapped != MAP_FAILED) {
    counts = static_cast<CallCounts*>(mapped);
  }
}

void Count(Call call) noexcept {
  if (counts != nullptr) {
    counts->calls[static_cast<std::size_t>(call)].fetch_add(1, std::memory_order_relaxed);
  }
}

// The next definition of `name`, looked up once.
template <class Function>
Function* Next(const char* name) noexcept {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

// The data path enters the kernel through this one. Six arguments are passed on whatever the call
// takes: more than there are is harmless.
long syscall(long number, ...) noexcept {
  static auto* const next = Next<decltype(::syscall)>("syscall");
  if (number == SYS_recvfrom) {
    Count(Call::kRecv);
  } else if (number == SYS_sendto) {
    Count(Call::kSend);
  }
  std::va_list list;
  va_start(list, number);
  long arguments[6];
  for (long& argument : arguments) {
    argument = va_arg(list, long);
  }
  va_end(list);
  return next(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
              arguments[5]);
}

ssize_t recv(int fd, void* into, std::size_t size, int flags) {
  static auto* const next = Next<decltype(::recv)>("recv");
  Count(Call::kRecv);
  return next(fd, into, size, flags);
}

ssize_t send(int fd, const void* from, std::size_t size, int flags) {
  static auto* const next = Next<decltype(::send)>("send");
  Count(Call::kSend);
  return next(fd, from, size, flags);
}

ssize_t splice(int in, off64_t* in_offset, int out, off64_t* out_offset, std::size_t size,
               unsigned flags) {
  static auto* const next = Next<decltype(::splice)>("splice");
  Count(Call::kSplice);
  return next(in, in_offset, out, out_offset, size, flags);
}

int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  static auto* const next = Next<decltype(::epoll_ctl)>("epoll_ctl");
  Count(Call::kEpollCtl);
  return next(epoll, operation, fd, event);
}

int epoll_wait(int epoll, epoll_event* events, int most, int timeout) {
  static auto* const next = Next<decltype(::epoll_wait)>("epoll_wait");
  Count(Call::kEpollWait);
  return next(epoll, events, most, timeout);
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static auto* const next = Next<decltype(::clock_gettime)>("clock_gettime");
  Count(Call::kClock);
  return next(clock, time);
}

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  static auto* const next = Next<decltype(::pthread_mutex_lock)>("pthread_mutex_lock");
  Count(Call::kLock);
  return next(mutex);
}

int pthread_rwlock_rdlock(pthread_rwlock_t* lock) noexcept {
  static auto* const next = Next<decltype(::pthread_rwlock_rdlock)>("pthread_rwlock_rdlock");
  Count(Call::kLock);
  return next(lock);
}

int pthread_rwlock_wrlock(pthread_rwlock_t* lock) noexcept {
  static auto* const next = Next<decltype(::pthread_rwlock_wrlock)>("pthread_rwlock_wrlock");
  Count(Call::kLock);
  return next(lock);
}

void* malloc(std::size_t size) {
  Count(Call::kMemory);
  return __libc_malloc(size);
}

void* calloc(std::size_t count, std::size_t size) {
  Count(Call::kMemory);
  return __libc_calloc(count, size);
}

void* realloc(void* block, std::size_t size) {
  Count(Call::kMemory);
  return __libc_realloc(block, size);
}

}  // extern "C"
