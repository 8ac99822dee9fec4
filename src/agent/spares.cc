#include "agent/spares.h"

#include <signal.h>

#include <algorithm>

#include "agent/sandbox.h"
#include "base/file.h"
#include "base/host_memory.h"
#include "base/log.h"
#include "base/uuid.h"

namespace stasis::agent {
namespace {

constexpr Milliseconds kSocketDeadline{20'000};
// As a VMM's own start (vmm/qemu/machine.cc).
constexpr Milliseconds kReadyDeadline{30'000};
constexpr Milliseconds kStopDeadline{2'000};
constexpr uint64_t kLeastAvailable = uint64_t{512} << 20;
constexpr double kMostStalled = 10;
// More would not be ready sooner, and each costs memory.
constexpr size_t kMost = 16;

// Of an agent that was killed: its spares died with it.
Status remove_leftovers(const Path& dir) {
  FileSystem& fs = real_file_system();
  STASIS_TRY(remove_tree(fs, dir));
  return fs.make_directory(dir);
}

}  // namespace

bool host_is_short_of_memory() {
  const auto memory = host_memory();
  return !memory || memory->available_bytes < kLeastAvailable || memory->stalled_percent >= kMostStalled;
}

// Asked first: it waits for its VMM, which a supervisor that is killed takes along a moment later.
Spare::~Spare() {
  if (process) {
    process->signal(SIGTERM);
    (void)process->wait(Deadline::after(kStopDeadline));
  }
  process.reset();
  (void)remove_tree(real_file_system(), dir_);
}

Spares::Quiet::Quiet(Spares& spares) : spares_(spares) {
  const std::lock_guard lock(spares_.mutex_);
  ++spares_.restoring_;
}

Spares::Quiet::~Quiet() {
  const std::lock_guard lock(spares_.mutex_);
  if (--spares_.restoring_ == 0) spares_.wake_.set();
}

Spares::Spares(SpareOptions options, Event stop, Event wake)
    : options_(std::move(options)), stop_(std::move(stop)), wake_(std::move(wake)) {}

Result<std::unique_ptr<Spares>> Spares::start(SpareOptions options) {
  if (options.most > kMost) {
    return fail(Code::kInvalidArgument, "more than 16 spares are asked for", "use --spares with 0 to 16");
  }
  STASIS_TRY(remove_leftovers(options.dir));
  STASIS_ASSIGN(Event stop, Event::create());
  STASIS_ASSIGN(Event wake, Event::create());
  std::unique_ptr<Spares> spares(new Spares(std::move(options), std::move(stop), std::move(wake)));
  if (spares->options_.most > 0) spares->thread_ = std::thread([raw = spares.get()] { raw->run(); });
  return spares;
}

void Spares::stop() {
  stop_.set();
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  if (starting_) starting_->interrupt();
}

Spares::~Spares() {
  stop();
  if (thread_.joinable()) thread_.join();
}

bool Spares::empty() const {
  const std::lock_guard lock(mutex_);
  return waiting_.empty();
}

std::unique_ptr<Spare> Spares::take(const SpareShape& shape) {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& one) { return one.shape == shape; });
  if (found == waiting_.end()) return nullptr;
  std::unique_ptr<Spare> spare = std::move(found->spare);
  waiting_.erase(found);
  return spare;
}

void Spares::count(bool used) {
  const std::lock_guard lock(mutex_);
  ++(used ? counts_.used : counts_.failed);
}

void Spares::want(const SpareShape& shape) {
  const std::lock_guard lock(mutex_);
  wanted_ = shape;
  asked_ = Clock::now();
  for (Waiting& one : waiting_) {
    if (one.shape == shape) one.asked = asked_;
  }
  wake_.set();
}

SpareCounts Spares::counts() const {
  const std::lock_guard lock(mutex_);
  SpareCounts counts = counts_;
  counts.ready = waiting_.size();
  return counts;
}

// The spares die with this thread: it outlives them.
void Spares::run() {
  for (;;) {
    const bool watches = [&] {
      const std::lock_guard lock(mutex_);
      return wanted_ || !waiting_.empty();
    }();
    const std::array fds{stop_.fd(), wake_.fd()};
    const auto ready = wait_any(fds, watches ? Deadline::after(options_.tick) : Deadline::never());
    if (!ready || (*ready)[0]) break;
    wake_.clear();
    look_after();
    if (const auto shape = next()) {
      start_one(*shape);
      wake_.set();
    }
  }
  std::vector<Waiting> ending;
  const std::lock_guard lock(mutex_);
  ending.swap(waiting_);
}

void Spares::look_after() {
  const auto now = Clock::now();
  const bool is_short = options_.memory_is_short();
  const auto oldest = now - options_.keep;
  const size_t dead = let_go(
      [](const Waiting& one) {
        const auto ended = wait_readable(one.spare->process->pidfd(), Deadline::after(Milliseconds(0)));
        return !ended || *ended;
      },
      &SpareCounts::failed);
  let_go([&](const Waiting& one) { return is_short || one.asked < oldest; }, &SpareCounts::dropped);
  const std::lock_guard lock(mutex_);
  const bool gives_up = dead > 0 || is_short || asked_ < oldest;
  if (gives_up && asked_ < now) wanted_.reset();  // until something is restored again
}

// They end outside of the lock.
size_t Spares::let_go(const std::function<bool(const Waiting&)>& which, uint64_t SpareCounts::*counter) {
  std::vector<Waiting> ending;
  const std::lock_guard lock(mutex_);
  const auto stay =
      std::stable_partition(waiting_.begin(), waiting_.end(), [&](const Waiting& one) { return !which(one); });
  ending.assign(std::make_move_iterator(stay), std::make_move_iterator(waiting_.end()));
  waiting_.erase(stay, waiting_.end());
  counts_.*counter += ending.size();
  return ending.size();
}

std::optional<SpareShape> Spares::next() {
  const std::unique_ptr<Spare> makes_room = [&]() -> std::unique_ptr<Spare> {
    const std::lock_guard lock(mutex_);
    const bool one_is_there =
        std::any_of(waiting_.begin(), waiting_.end(), [&](const Waiting& w) { return w.shape == wanted_; });
    if (!wanted_ || restoring_ > 0 || waiting_.size() < options_.most || one_is_there) return nullptr;
    ++counts_.dropped;
    std::unique_ptr<Spare> oldest = std::move(waiting_.front().spare);
    waiting_.erase(waiting_.begin());
    return oldest;
  }();
  const std::lock_guard lock(mutex_);
  if (restoring_ > 0 || waiting_.size() >= options_.most) return std::nullopt;
  return wanted_;
}

void Spares::start_one(const SpareShape& shape) {
  auto spare = make(shape);
  const std::lock_guard lock(mutex_);
  starting_.reset();
  if (spare) {
    ++counts_.started;
    waiting_.push_back({shape, asked_, std::move(*spare)});
    return;
  }
  wanted_.reset();  // until something is restored again
  if (stopping_) return;
  ++counts_.failed;
  spdlog::warn("no spare could be started: {}", spare.error().message);
}

Result<std::unique_ptr<Spare>> Spares::make(const SpareShape& shape) {
  FileSystem& fs = real_file_system();
  const Path dir = options_.dir / Uuid::random().text();
  auto spare = std::make_unique<Spare>(dir);
  STASIS_TRY(fs.make_directory(dir));
  const supervisor::SpareConfig config{shape.machine, shape.disk_bytes, options_.vmm};
  STASIS_TRY(replace_file(fs, dir / supervisor::kSpareFile, to_json(config).dump()));
  STASIS_ASSIGN(const UniqueFd log, open_append(dir / supervisor::kSupervisorLog));
  SpawnOptions spawned;
  spawned.argv = {options_.supervisor_program.string(), "--spare-dir", dir.string()};
  spawned.stdout_fd = log.get();
  spawned.stderr_fd = log.get();
  spawned.new_session = true;
  spawned.die_with_parent = true;
  STASIS_ASSIGN(spare->process, spawn(spawned));
  const Status ready = [&]() -> Status {
    STASIS_ASSIGN(spare->client, connect(dir, *spare->process));
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return fail(Code::kUnavailable, "the host agent stops");
      starting_ = spare->client;
    }
    return spare->client->await_spare(kReadyDeadline);
  }();
  if (ready) return spare;
  return fail(Error(ready.error()).with_context(log_tail(dir / supervisor::kSupervisorLog)));
}

Result<std::shared_ptr<supervisor::Client>> Spares::connect(const Path& dir, const Process& process) const {
  const Deadline deadline = Deadline::after(kSocketDeadline);
  for (;;) {
    if (auto client = supervisor::Client::connect(dir)) return std::shared_ptr(std::move(*client));
    const std::array fds{process.pidfd(), stop_.fd()};
    STASIS_ASSIGN(const auto ready, wait_any(fds, Deadline::after(Milliseconds(5))));
    if (ready[0]) return fail(Code::kUnavailable, "it has ended");
    if (ready[1]) return fail(Code::kUnavailable, "the host agent stops");
    if (deadline.passed()) return fail(Code::kDeadlineExceeded, "it did not open its socket");
  }
}

}  // namespace stasis::agent
