#include "pager/page_server.h"

#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <thread>

#include "base/poll.h"
#include "base/sync_point.h"
#include "pager/fault_handler.h"

namespace stasis::pager {
namespace {

// While a fault is parked the kernel does not deliver it again: look again this often.
constexpr Milliseconds kParkedPause{1};

}  // namespace

struct PageServer::State {
  Path socket_path;
  UniqueFd listener;
  std::shared_ptr<const snapshot::AddressSpace> memory;
  PageServerOptions options;
  Event stop;
  Event peer_known;
  Event handed_over;
  Event recorded;
  std::atomic<pid_t> peer{0};
  // Made by the server's thread after the handshake; published by `serving`.
  std::unique_ptr<FaultHandler> handler;
  std::atomic<bool> serving{false};
  std::thread thread;

  State(Event stop_event, Event peer_event, Event handed_over_event, Event recorded_event)
      : stop(std::move(stop_event)),
        peer_known(std::move(peer_event)),
        handed_over(std::move(handed_over_event)),
        recorded(std::move(recorded_event)) {}

  void run();
  Result<bool> serve();
  Result<std::optional<UniqueFd>> accept_vmm();
  Result<bool> serve_events(int handshake_socket);
  // When to look again though nothing is to be read.
  Deadline next_look(const std::optional<Deadline>& recording_ends) const;
};

void PageServer::State::run() {
  auto served = serve();
  if (!served && options.on_failure) options.on_failure(std::move(served).error().with_context("page server"));
}

// False: stopped, or the VMM has gone.
Result<bool> PageServer::State::serve() {
  STASIS_ASSIGN(const std::optional<UniqueFd> connection, accept_vmm());
  if (!connection) return false;
  auto handshake =
      receive_handshake(connection->get(), memory->size(), Deadline::after(options.handshake_deadline), stop.fd());
  if (!handshake && handshake.error().code == Code::kCancelled) return false;
  if (!handshake) return tl::unexpected(std::move(handshake).error());
  handler = std::make_unique<FaultHandler>(std::move(*handshake), memory);
  handler->expect(std::move(options.prefetch));
  if (options.record_for > Milliseconds(0)) handler->record();
  serving.store(true, std::memory_order_release);
  handed_over.set();
  return serve_events(connection->get());
}

// Waits until the VMM's process is known, then for its connection. Others are turned away.
Result<std::optional<UniqueFd>> PageServer::State::accept_vmm() {
  const std::array before{peer_known.fd(), stop.fd()};
  STASIS_ASSIGN(const auto known, wait_any(before, Deadline::never()));
  if (known[1]) return std::nullopt;
  const Deadline deadline = Deadline::after(options.handshake_deadline);
  for (;;) {
    const std::array waiting{listener.get(), stop.fd()};
    STASIS_ASSIGN(const auto ready, wait_any(waiting, deadline));
    if (ready[1]) return std::nullopt;
    if (!ready[0]) return fail(Code::kDeadlineExceeded, "the VMM did not connect to hand over its memory");
    STASIS_ASSIGN(UniqueFd connection, accept_unix(listener.get(), Milliseconds(1000)));
    STASIS_ASSIGN(const pid_t pid, peer_pid(connection.get()));
    if (pid == peer.load(std::memory_order_relaxed)) return connection;
  }
}

Result<bool> PageServer::State::serve_events(int handshake_socket) {
  const std::array fds{handler->fd(), handshake_socket, stop.fd()};
  std::optional<Deadline> recording_ends;
  if (options.record_for > Milliseconds(0)) recording_ends = Deadline::after(options.record_for);
  for (;;) {
    STASIS_ASSIGN(const auto ready, wait_any(fds, next_look(recording_ends)));
    // The socket has nothing to say after the handshake: readable means that the VMM has exited.
    if (ready[1] || ready[2]) return false;
    if (ready[0]) {
      STASIS_ASSIGN(const bool go_on, handler->handle_events());
      if (!go_on) return false;
    }
    if (handler->has_parked()) {
      STASIS_ASSIGN(const bool go_on, handler->retry_parked());
      if (!go_on) return false;
    } else if (handler->has_prefetch()) {
      // Also after a fault: a guest that touches its working set at once would else fault on nearly all of it.
      STASIS_ASSIGN(const bool go_on, handler->prefetch_step());
      if (!go_on) return false;
    }
    if (recording_ends && recording_ends->passed()) {
      recording_ends.reset();
      handler->stop_recording();
      recorded.set();
    }
  }
}

Deadline PageServer::State::next_look(const std::optional<Deadline>& recording_ends) const {
  if (handler->has_parked()) return Deadline::after(kParkedPause);
  if (handler->has_prefetch()) return Deadline::after(Milliseconds(0));  // what the guest waits for goes first
  return recording_ends.value_or(Deadline::never());
}

PageServer::PageServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<PageServer>> PageServer::start(const Path& socket,
                                                      std::shared_ptr<const snapshot::AddressSpace> memory,
                                                      PageServerOptions options) {
  STASIS_ASSIGN(Event stop, Event::create());
  STASIS_ASSIGN(Event peer_known, Event::create());
  STASIS_ASSIGN(Event handed_over, Event::create());
  STASIS_ASSIGN(Event recorded, Event::create());
  auto state =
      std::make_unique<State>(std::move(stop), std::move(peer_known), std::move(handed_over), std::move(recorded));
  STASIS_ASSIGN(state->listener, listen_unix(socket));
  state->socket_path = socket;
  state->memory = std::move(memory);
  state->options = std::move(options);
  State* shared = state.get();
  state->thread = std::thread([shared] { shared->run(); });
  return std::unique_ptr<PageServer>(new PageServer(std::move(state)));
}

PageServer::~PageServer() {
  state_->stop.set();
  sync_point("page_server.stopping");
  state_->thread.join();
  (void)real_file_system().remove(state_->socket_path);
}

void PageServer::expect_peer(pid_t vmm) {
  state_->peer.store(vmm, std::memory_order_relaxed);
  state_->peer_known.set();
}

Status PageServer::await_handshake(Deadline deadline) const {
  STASIS_ASSIGN(const bool done, wait_readable(state_->handed_over.fd(), deadline));
  if (!done) return fail(Code::kDeadlineExceeded, "the VMM did not hand its memory over");
  return {};
}

PageServerStats PageServer::stats() const {
  PageServerStats stats;
  stats.total_pages = state_->memory->size() / snapshot::kBlockSize;
  if (!state_->serving.load(std::memory_order_acquire)) return stats;
  const FaultCounters& counters = state_->handler->counters();
  stats.faults = counters.faults.load(std::memory_order_relaxed);
  const ActivityStats activity = state_->handler->activity().stats();
  stats.pages_by_fault = activity.pages_of(Arrival::kFault, false);
  stats.pages_around = activity.pages_of(Arrival::kAround, false);
  stats.pages_prefetched = activity.pages_of(Arrival::kPrefetch, false);
  for (const auto& [data, zeros] : activity.pages) stats.pages_zero += zeros;
  stats.pages_removed = counters.pages_removed.load(std::memory_order_relaxed);
  return stats;
}

ActivityStats PageServer::activity() const {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->activity().stats() : ActivityStats{};
}

Timeline PageServer::timeline() const {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->activity().timeline() : Timeline{};
}

std::vector<Range> PageServer::removed() const {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->given_back() : std::vector<Range>{};
}

std::vector<Range> PageServer::take_removed() {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->take_given_back() : std::vector<Range>{};
}

int PageServer::working_set_fd() const { return state_->recorded.fd(); }

std::vector<snapshot::WorkingSetEntry> PageServer::working_set() const {
  if (!state_->serving.load(std::memory_order_acquire)) return {};
  const auto recorded = state_->handler->recorded();
  return {recorded.begin(), recorded.end()};
}

std::vector<Region> PageServer::regions() const {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->regions() : std::vector<Region>{};
}

}  // namespace stasis::pager
