// Shared ownership within one thread: what std::shared_ptr does, at half its size and without
// atomic counting. For what a worker's sessions share and many of them hold.
#pragma once

#include <cstddef>
#include <utility>

namespace sluice {

template <class T>
class LocalPtr;

// Base of what is shared. Not copied: a copy would have owners of its own.
class LocallyShared {
 public:
  LocallyShared() = default;
  LocallyShared(const LocallyShared&) = delete;
  LocallyShared& operator=(const LocallyShared&) = delete;

 protected:
  ~LocallyShared() = default;

 private:
  template <class T>
  friend class LocalPtr;

  mutable std::size_t owners_ = 0;
};

// Null, or one of the owners of a T, which ends with the last of them. Making the first owner in
// one thread and handing all of them on to another is fine; owners in two threads are not.
template <class T>
class LocalPtr {
 public:
  LocalPtr() = default;

  // Takes what `new` gave, or what a LocalPtr owns already.
  explicit LocalPtr(T* shared) noexcept : shared_(shared) {
    if (shared_ != nullptr) {
      ++shared_->owners_;
    }
  }

  LocalPtr(const LocalPtr& other) noexcept : LocalPtr(other.shared_) {}
  LocalPtr(LocalPtr&& other) noexcept : shared_(std::exchange(other.shared_, nullptr)) {}

  LocalPtr& operator=(LocalPtr other) noexcept {
    std::swap(shared_, other.shared_);
    return *this;
  }

  ~LocalPtr() {
    if (shared_ != nullptr && --shared_->owners_ == 0) {
      delete shared_;
    }
  }

  [[nodiscard]] T* get() const noexcept { return shared_; }
  [[nodiscard]] T* operator->() const noexcept { return shared_; }
  [[nodiscard]] T& operator*() const noexcept { return *shared_; }
  [[nodiscard]] explicit operator bool() const noexcept { return shared_ != nullptr; }

 private:
  T* shared_ = nullptr;
};

}  // namespace sluice
