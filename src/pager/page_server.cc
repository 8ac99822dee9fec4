#include "pager/page_server.h"

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <thread>

#include "base/poll_set.h"
#include "base/process.h"
#include "base/sync_point.h"
#include "pager/fault_handler.h"
#include "snapshot/filled_frames.h"
#include "snapshot/ranges.h"

namespace stasis::pager {
namespace {

// While a fault is parked the kernel does not deliver it again: look again this often.
constexpr Milliseconds kParkedPause{1};

// What an address space has from layers.
std::vector<Range> from_layers(const snapshot::BlockMap& map) {
  std::vector<Range> ranges;
  for (uint64_t at = 0; at < map.size();) {
    const snapshot::Extent extent = map.find(at);
    if (!extent.is_zero()) append_range(ranges, {extent.offset, extent.length});
    at = extent.end();
  }
  return ranges;
}

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
  Event recording_limited;  // `recording_until` has changed
  UniqueFd vmm;             // pidfd; published by `peer`
  std::atomic<pid_t> peer{0};
  std::atomic<Deadline::Clock::time_point> recording_until{Deadline::never().at()};
  // Made by the server's thread after the handshake; published by `serving`.
  std::unique_ptr<FaultHandler> handler;
  std::atomic<bool> serving{false};
  std::thread thread;

  State(Event stop_event, Event peer_event, Event handed_over_event, Event recorded_event, Event limited_event)
      : stop(std::move(stop_event)),
        peer_known(std::move(peer_event)),
        handed_over(std::move(handed_over_event)),
        recorded(std::move(recorded_event)),
        recording_limited(std::move(limited_event)) {}

  void run();
  Status serve();
  Result<bool> await_peer() const;
  Result<std::optional<UniqueFd>> accept_vmm(Deadline deadline) const;
  Status serve_events(int handshake_socket);
  static Status expect_end(int handshake_socket);
  Status await_exit() const;
  Result<bool> serve_one();
  // When to look again though nothing is to be read.
  Deadline next_look(const std::optional<Deadline>& recording_ends) const;
};

void PageServer::State::run() {
  auto served = serve();
  if (!served && options.on_failure) options.on_failure(std::move(served).error().with_context("page server"));
  sync_point("page_server.ended");
}

// Until it is stopped or the VMM has gone.
Status PageServer::State::serve() {
  std::vector<Range> rest;
  if (options.served.empty()) options.served.push_back({0, memory->size()});
  if (options.load_bytes_per_second > 0) {  // now, while nobody waits
    rest = snapshot::intersect(from_layers(memory->map()), options.served);
  }
  STASIS_ASSIGN(const bool expected, await_peer());
  if (!expected) return {};
  const Deadline deadline = Deadline::after(options.handshake_deadline);
  auto accepted = accept_vmm(deadline);
  listener.reset();  // whoever comes now is refused, and not left waiting
  STASIS_ASSIGN(const std::optional<UniqueFd> connection, std::move(accepted));
  if (!connection) return {};
  auto handshake = receive_handshake(connection->get(), options.served, deadline, stop.fd());
  if (!handshake && handshake.error().code == Code::kCancelled) return {};
  if (!handshake) return tl::unexpected(std::move(handshake).error());
  std::shared_ptr<const snapshot::FrameSource> source = memory;
  if (options.elsewhere) source = std::make_shared<snapshot::FilledFrames>(memory, options.elsewhere);
  STASIS_ASSIGN(auto fetcher, snapshot::FrameFetcher::create(std::move(source), options.fetch));
  handler = std::make_unique<FaultHandler>(std::move(*handshake), memory, std::move(fetcher));
  handler->expect(snapshot::intersect(options.prefetch, options.served));
  if (options.record_for > Milliseconds(0)) handler->record();
  if (options.load_bytes_per_second > 0) handler->load_rest(std::move(rest), options.load_bytes_per_second);
  serving.store(true, std::memory_order_release);
  handed_over.set();
  STASIS_TRY(serve_events(connection->get()));
  return await_exit();
}

// Waits until the VMM's process is known.
Result<bool> PageServer::State::await_peer() const {
  const std::array waiting{peer_known.fd(), stop.fd()};
  STASIS_ASSIGN(const auto ready, wait_any(waiting, Deadline::never()));
  return !ready[1];
}

// The VMM's connection. Others are turned away, however many of them there are: the deadline holds all the same.
Result<std::optional<UniqueFd>> PageServer::State::accept_vmm(Deadline deadline) const {
  for (;;) {
    const std::array waiting{listener.get(), stop.fd()};
    STASIS_ASSIGN(const auto ready, wait_any(waiting, deadline));
    if (ready[1]) return std::nullopt;
    if (!ready[0] || deadline.passed()) {
      return fail(Code::kDeadlineExceeded, "the VMM did not connect to hand over its memory");
    }
    STASIS_ASSIGN(UniqueFd connection, accept_unix(listener.get(), Milliseconds(1000)));
    STASIS_ASSIGN(const pid_t pid, peer_pid(connection.get()));
    if (pid == peer.load(std::memory_order_acquire)) return connection;
  }
}

Status PageServer::State::serve_events(int handshake_socket) {
  // Kept by the kernel: with poll(2) four descriptors were 4% of a fault.
  const std::array fds{handler->fd(), handshake_socket, stop.fd(), handler->fetched_fd(), recording_limited.fd()};
  STASIS_ASSIGN(const PollSet events, PollSet::of(fds));
  std::optional<Deadline> recording_ends;
  if (options.record_for > Milliseconds(0)) recording_ends = Deadline::after(options.record_for);
  for (;;) {
    STASIS_ASSIGN(const auto ready, events.wait(next_look(recording_ends)));
    if (ready[2]) return {};
    if (ready[1]) return expect_end(handshake_socket);
    if (ready[4]) {
      recording_limited.clear();
      if (recording_ends) recording_ends = Deadline::from(std::min(recording_ends->at(), recording_until.load()));
    }
    if (ready[0]) {
      STASIS_ASSIGN(const bool go_on, handler->handle_events());
      if (!go_on) return {};
    }
    if (ready[3] || (handler->has_waiting() && handler->fetch_deadline().passed())) {
      STASIS_ASSIGN(const bool go_on, handler->take_fetched());
      if (!go_on) return {};
    }
    STASIS_ASSIGN(const bool go_on, serve_one());
    if (!go_on) return {};
    if (recording_ends && recording_ends->passed()) {
      recording_ends.reset();
      handler->stop_recording();
      recorded.set();
    }
  }
}

// The socket has nothing to say after the handshake: only its end means that the VMM has exited. One that goes on
// talking lives, and would wait for its pages for ever if it were taken for dead.
Status PageServer::State::expect_end(int handshake_socket) {
  std::array<std::byte, 1> more;
  STASIS_ASSIGN(const Received part, receive_with_fds(handshake_socket, more));
  if (part.bytes == 0) return {};
  return fail(Code::kInvalidArgument, "the VMM said more after it had handed its memory over");
}

// Until the VMM, which has left, has ended. If it lives, its guest stands still at the next page that it touches.
Status PageServer::State::await_exit() const {
  sync_point("page_server.left");
  const std::array waiting{vmm.get(), stop.fd()};
  STASIS_ASSIGN(const auto ready, wait_any(waiting, Deadline::after(options.exit_deadline)));
  if (ready.any()) return {};
  return fail(Code::kInternal, "the VMM closed its page server's connection or gave up its memory, and lives on");
}

// What comes before the next look: the first of these that there is.
Result<bool> PageServer::State::serve_one() {
  if (handler->has_parked()) return handler->retry_parked();
  // Also after a fault: a guest that touches its working set at once would else fault on nearly all of it.
  if (handler->has_prefetch()) return handler->prefetch_step();
  if (handler->can_load() && handler->load_due() <= Deadline::Clock::now()) return handler->load_step();
  return true;
}

Deadline PageServer::State::next_look(const std::optional<Deadline>& recording_ends) const {
  if (handler->has_parked()) return Deadline::after(kParkedPause);
  if (handler->has_prefetch()) return Deadline::after(Milliseconds(0));  // what the guest waits for goes first
  auto at = recording_ends.value_or(Deadline::never()).at();
  if (handler->has_waiting()) at = std::min(at, handler->fetch_deadline().at());
  if (handler->can_load()) at = std::min(at, handler->load_due());
  return Deadline::from(at);
}

PageServer::PageServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<PageServer>> PageServer::start(const Path& socket,
                                                      std::shared_ptr<const snapshot::AddressSpace> memory,
                                                      PageServerOptions options) {
  STASIS_ASSIGN(Event stop, Event::create());
  STASIS_ASSIGN(Event peer_known, Event::create());
  STASIS_ASSIGN(Event handed_over, Event::create());
  STASIS_ASSIGN(Event recorded, Event::create());
  STASIS_ASSIGN(Event limited, Event::create());
  auto state = std::make_unique<State>(std::move(stop), std::move(peer_known), std::move(handed_over),
                                       std::move(recorded), std::move(limited));
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

Status PageServer::expect_peer(pid_t vmm) {
  STASIS_ASSIGN(state_->vmm, open_pidfd(vmm));
  state_->peer.store(vmm, std::memory_order_release);
  state_->peer_known.set();
  return {};
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
  stats.pages_loaded = activity.pages_of(Arrival::kBackground, false);
  for (const auto& [data, zeros] : activity.pages) stats.pages_zero += zeros;
  stats.pages_removed = counters.pages_removed.load(std::memory_order_relaxed);
  return stats;
}

ActivityStats PageServer::activity() const {
  if (!state_->serving.load(std::memory_order_acquire)) return {};
  ActivityStats stats = state_->handler->activity().stats();
  stats.fetching = state_->handler->frames_wanted();  // who fetches them are threads of their own
  return stats;
}

Timeline PageServer::timeline() const {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->activity().timeline() : Timeline{};
}

LoadReport PageServer::load() const {
  if (state_->options.load_bytes_per_second == 0) return {};
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->load_report()
                                                         : LoadReport{LoadState::kLoading, {}};
}

std::vector<Range> PageServer::removed() const {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->given_back() : std::vector<Range>{};
}

std::vector<Range> PageServer::take_removed() {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->take_given_back() : std::vector<Range>{};
}

int PageServer::working_set_fd() const { return state_->recorded.fd(); }

void PageServer::end_recording_after(Milliseconds span) {
  const auto until = Deadline::after(span).at();
  auto known = state_->recording_until.load();
  while (until < known && !state_->recording_until.compare_exchange_weak(known, until)) {
  }
  state_->recording_limited.set();
}

std::vector<snapshot::WorkingSetEntry> PageServer::working_set() const {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->recorded()
                                                         : std::vector<snapshot::WorkingSetEntry>{};
}

std::vector<Region> PageServer::regions() const {
  return state_->serving.load(std::memory_order_acquire) ? state_->handler->regions() : std::vector<Region>{};
}

}  // namespace stasis::pager
