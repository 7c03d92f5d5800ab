// One session, both of its ends, and the verdict on how the proxy closed it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "tests/deploy/storm/end.h"

namespace sluice::storm {

inline constexpr const char* kDrainReason = "storm drain";  // [drain] reason of the configuration

// Why a client got a CLOSE of the proxy, as its code, its reason and what had happened say.
enum class Closed : std::uint8_t {
  kKick,
  kBackendDrain,
  kProcessDrain,
  kMaxAge,
  kLost,
  kHeartbeat,
  kClientViolation,
  kBackendViolation,
  kRelayed,  // that of the other side, which crossed: not one of the proxy's own
  kCount,
};
const char* Name(Closed closed);

// Where in its own stream an end stood.
enum class Place : std::uint8_t { kInHeader, kInPayload, kInMessage, kBetween, kCount };
const char* Name(Place place);
Place PlaceOf(const Speaker& said);

// What the configuration of the proxy says, as far as the verdict depends on it.
struct Rules {
  Nanoseconds message_grace = 0;
  Nanoseconds close_timeout = 0;
  std::size_t cut_above = 0;  // `refragment`
  Nanoseconds max_age = deploy::kSecond;
};

struct Verdict {
  std::string failure;  // why it never opened; then the rest says nothing
  std::optional<Closed> closed;
  bool closed_backend = false;  // by a CLOSE of the proxy
  bool torn_client = false;
  bool torn_backend = false;
  bool maybe_torn = false;  // a backend that is gone, by the proxy's deadline
  bool complete = false;    // all that the backend said was wanted, and came
  std::vector<std::string> problems;
};

class Pair;

class PairOwner {
 public:
  PairOwner() = default;
  virtual ~PairOwner() = default;
  PairOwner(const PairOwner&) = delete;
  PairOwner& operator=(const PairOwner&) = delete;

  virtual void Kick(Pair& pair) = 0;
  // Both ends are over. The pair lives until the end of the turn.
  virtual void OnOver(Pair& pair) = 0;
};

class Pair : public EndOwner {
 public:
  Pair(EventLoop& loop, PairOwner& owner, const Plan& plan, const Rules& rules);

  void Start(const sockaddr_in& address, SSL_CTX* tls);
  // A connection of the proxy whose request asks for this session.
  void Adopt(UniqueFd fd, const std::string& head, std::size_t backend);
  // From now on a CLOSE for this may come.
  void NoteBackendDrain();
  void NoteProcessDrain();
  void NoteKick();
  void Abandon();

  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] bool is_opening() const { return !opened_ && !client_.is_over(); }
  [[nodiscard]] bool is_open() const { return opened_ && !client_.is_over(); }
  [[nodiscard]] std::optional<std::size_t> backend() const { return backend_index_; }
  [[nodiscard]] Nanoseconds started_at() const { return started_at_; }
  // For the figures; none when it did not come to that.
  [[nodiscard]] std::optional<Place> at_trigger() const { return at_trigger_; }
  [[nodiscard]] std::optional<Place> at_close() const { return at_close_; }
  [[nodiscard]] bool was_full() const { return was_full_; }
  // REQUIRES: both ends are over.
  [[nodiscard]] Verdict Judge() const;

  void OnHead(End& end, const std::string& head) override;
  void OnTrigger(End& end) override;
  void OnStalled(End& end) override;
  void OnClose(End& end) override;
  void OnOver(End& end) override;

 private:
  [[nodiscard]] End& other(const End& end) { return end.side() == kClient ? backend_ : client_; }
  void NoteOwn();
  [[nodiscard]] bool Drained() const;
  [[nodiscard]] bool BackendWasLate() const;
  void JudgeClient(Verdict& verdict) const;
  void JudgeBackend(Verdict& verdict) const;
  void JudgeContent(Verdict& verdict) const;

  PairOwner& owner_;
  Plan plan_;
  Rules rules_;
  std::string key_;
  End client_;
  End backend_;
  std::optional<std::size_t> backend_index_;
  bool opened_ = false;
  bool told_ = false;
  std::string failure_;
  Nanoseconds started_at_ = 0;
  Nanoseconds own_at_ = 0;  // when it was first asked for a CLOSE of the proxy; 0: it was not
  bool kicked_ = false;
  bool backend_drained_ = false;
  bool process_drained_ = false;
  bool was_full_ = false;         // all buffers on the way, when one end did not read
  bool client_in_frame_ = false;  // of its own, when the CLOSE came to it
  std::optional<Place> at_trigger_;
  std::optional<Place> at_close_;
  std::string early_;  // a CLOSE that came to the backend too early in a message
};

}  // namespace sluice::storm
