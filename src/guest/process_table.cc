#include "guest/process_table.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

namespace stasis::guest {
namespace {

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr int kNotStarted = 127;  // as shells tell it

int poll_timeout(GuestProcess::Clock::time_point until) {
  if (until == GuestProcess::Clock::time_point::max()) return -1;
  auto left = std::chrono::ceil<std::chrono::milliseconds>(until - GuestProcess::Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

ProcessEnd end_of(const siginfo_t& info) {
  ProcessEnd end;
  end.exited = info.si_code == CLD_EXITED;
  end.code = info.si_status;
  end.core_dumped = info.si_code == CLD_DUMPED;
  return end;
}

}  // namespace

ProcessTable::ProcessTable() : wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), buffer_(kReadBytes) {
  sigset_t set;
  sigemptyset(&set);
  for (int number : {SIGCHLD, SIGTERM, SIGINT, SIGPWR}) sigaddset(&set, number);
  (void)pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signals_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

Result<std::shared_ptr<GuestProcess>> ProcessTable::start(const Start& request) {
  STASIS_ASSIGN(PreparedSpawn spawn, prepare_spawn(request.spawn));
  const std::shared_ptr<GuestProcess> process = prepare(request, spawn);
  STASIS_TRY(add(process));
  if (request.timeout) wake();
  STASIS_TRY(settle(process, spawn_as_user(request.spawn, std::move(spawn), process->pid_)));
  wake();
  return process;
}

std::shared_ptr<GuestProcess> ProcessTable::prepare(const Start& request, PreparedSpawn& spawn) {
  auto process = std::make_shared<GuestProcess>(request.config, request.tag);
  process->stdin_ = std::move(spawn.stdin_fd);
  if (request.spawn.terminal) process->pty_.reset(fcntl(spawn.output_fd.get(), F_DUPFD_CLOEXEC, 3));
  process->outputs_[0] = std::move(spawn.output_fd);
  process->outputs_[1] = std::move(spawn.error_fd);
  process->last_activity_ = Clock::now();
  if (request.timeout) process->deadline_ = Clock::now() + *request.timeout;
  return process;
}

Status ProcessTable::add(const std::shared_ptr<GuestProcess>& process) {
  std::lock_guard lock(mutex_);
  if (running_.size() >= kMaxRunning) {
    return fail(Code::kResourceExhausted, "too many processes: " + std::to_string(kMaxRunning) + " run already");
  }
  running_.push_back(process);
  return {};
}

Status ProcessTable::settle(const std::shared_ptr<GuestProcess>& process, Status started) {
  if (!started) {
    std::lock_guard lock(mutex_);
    std::erase(running_, process);
    process->set_end({.exited = true, .code = kNotStarted});  // for whoever has found it meanwhile
    return started;
  }
  std::lock_guard process_lock(process->mutex_);
  process->started_ = true;
  return {};
}

std::shared_ptr<GuestProcess> ProcessTable::running_with(pid_t pid) const {
  // From the latest: the number of one that has exited, but is still read from, may be in use again.
  auto at =
      std::find_if(running_.rbegin(), running_.rend(), [&](const auto& process) { return process->pid() == pid; });
  return at == running_.rend() ? nullptr : *at;
}

std::shared_ptr<GuestProcess> ProcessTable::find(pid_t pid) const {
  if (pid <= 0) return nullptr;
  std::lock_guard lock(mutex_);
  if (auto process = running_with(pid)) return process;
  auto ended = std::find_if(ended_.rbegin(), ended_.rend(), [&](const auto& process) { return process->pid() == pid; });
  return ended == ended_.rend() ? nullptr : *ended;
}

std::shared_ptr<GuestProcess> ProcessTable::find(const std::string& tag) const {
  if (tag.empty()) return nullptr;
  std::lock_guard lock(mutex_);
  for (const auto& process : running_) {
    if (process->pid() != 0 && process->tag() == tag) return process;
  }
  auto ended = std::find_if(ended_.rbegin(), ended_.rend(), [&](const auto& process) { return process->tag() == tag; });
  return ended == ended_.rend() ? nullptr : *ended;
}

std::vector<std::shared_ptr<GuestProcess>> ProcessTable::running() const {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<GuestProcess>> out;
  out.reserve(running_.size());
  std::copy_if(running_.begin(), running_.end(), std::back_inserter(out),
               [](const auto& process) { return process->pid() != 0; });
  return out;
}

void ProcessTable::wake() const { (void)eventfd_write(wake_.get(), 1); }

void ProcessTable::stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  wake();
}

void ProcessTable::kill_all() {
  for (const auto& process : running()) (void)process->signal(SIGKILL);
}

void ProcessTable::run() {
  std::vector<pollfd> entries;
  std::vector<Watch> watches;
  for (;;) {
    entries.assign({{signals_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}});
    watches.clear();
    Clock::time_point until = collect(entries, watches);
    size_t first_drain = entries.size();
    for (const UniqueFd& fd : drains_) entries.push_back({fd.get(), POLLIN, 0});
    if (poll(entries.data(), entries.size(), poll_timeout(until)) < 0 && errno != EINTR) return;
    for (size_t i = 0; i < watches.size(); ++i) {
      if (entries[2 + i].revents != 0) read_output(*watches[i].process, watches[i].output);
    }
    drain(entries, first_drain);
    eventfd_t seen = 0;
    (void)eventfd_read(wake_.get(), &seen);
    if (!take_signals()) return;
    enforce_deadlines();
    finish_exited();
  }
}

// Adds what is to be watched, and returns when the loop has to look again at the latest.
ProcessTable::Clock::time_point ProcessTable::collect(std::vector<pollfd>& entries, std::vector<Watch>& watches) {
  Clock::time_point until = Clock::time_point::max();
  std::lock_guard lock(mutex_);
  if (stopping_) return Clock::now();
  for (const auto& process : running_) {
    std::lock_guard process_lock(process->mutex_);
    bool room = process->log_.room();
    for (int output = 0; output < 2; ++output) {
      if (!process->outputs_[output] || !room) continue;
      entries.push_back({process->outputs_[output].get(), POLLIN, 0});
      watches.push_back({process, output});
    }
    // A reader that makes room does not wake this loop: look again soon.
    if (!room) until = std::min(until, Clock::now() + std::chrono::milliseconds(5));
    if (process->exit_) {
      until = std::min(until, process->last_activity_ + kLinger);
    } else if (process->deadline_) {
      until = std::min(until, *process->deadline_);
    }
  }
  return until;
}

void ProcessTable::read_output(GuestProcess& process, int output) {
  ssize_t count = read(process.outputs_[output].get(), buffer_.data(), buffer_.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {  // the end; a terminal without a process reports EIO
    process.outputs_[output].reset();
    return;
  }
  process.last_activity_ = Clock::now();
  Stream stream = output == 1 ? Stream::kStderr : process.has_pty() ? Stream::kPty : Stream::kStdout;
  process.append(stream, {buffer_.data(), static_cast<size_t>(count)});
}

void ProcessTable::drain(std::vector<pollfd>& entries, size_t first) {
  for (size_t i = 0; first + i < entries.size(); ++i) {
    if (entries[first + i].revents == 0) continue;
    ssize_t count = read(drains_[i].get(), buffer_.data(), buffer_.size());
    bool open = count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR));
    if (!open) drains_[i].reset();
  }
  std::erase_if(drains_, [](const UniqueFd& fd) { return !fd; });
}

// False if the daemon is to stop.
bool ProcessTable::take_signals() {
  signalfd_siginfo info{};
  bool go_on = true;
  while (read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (info.ssi_signo != SIGCHLD) go_on = false;
  }
  reap();
  std::lock_guard lock(mutex_);
  return go_on && !stopping_;
}

void ProcessTable::reap() {
  for (;;) {
    siginfo_t info{};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
    std::lock_guard lock(mutex_);
    const std::shared_ptr<GuestProcess> process = running_with(info.si_pid);
    if (!process) {
      (void)waitid(P_PID, static_cast<id_t>(info.si_pid), &info, WEXITED);
      continue;
    }
    std::lock_guard process_lock(process->mutex_);  // so that nobody signals a number that is free again
    (void)waitid(P_PID, static_cast<id_t>(info.si_pid), &info, WEXITED);
    if (process->exit_) continue;  // the number is another's by now
    process->exit_ = end_of(info);
    process->exit_->timed_out = process->killed_at_deadline_;
    process->last_activity_ = Clock::now();
  }
}

void ProcessTable::enforce_deadlines() {
  for (const auto& process : running()) {
    if (!process->deadline_ || Clock::now() < *process->deadline_) continue;
    process->killed_at_deadline_ = process->signal(SIGKILL).has_value();
    process->deadline_.reset();
  }
}

void ProcessTable::finish_exited() {
  for (const auto& process : running()) {
    {
      std::lock_guard lock(process->mutex_);
      bool silent = (!process->outputs_[0] && !process->outputs_[1]) ||
                    (process->log_.room() && Clock::now() >= process->last_activity_ + kLinger);
      if (!process->started_ || !process->exit_ || !silent) continue;
    }
    finish(process);
  }
}

void ProcessTable::finish(const std::shared_ptr<GuestProcess>& process) {
  for (UniqueFd& output : process->outputs_) {
    if (output) drains_.push_back(std::move(output));
  }
  std::lock_guard lock(mutex_);
  std::erase(running_, process);
  ended_.push_back(process);
  process->set_end(*process->exit_);
  uint64_t stored = 0;
  for (const auto& ended : ended_) {
    std::lock_guard process_lock(ended->mutex_);
    ended->log_.drop_delivered();
    stored += ended->log_.stored_bytes();
  }
  while (ended_.size() > kMaxEnded || (stored > kMaxEndedBytes && ended_.size() > 1)) {
    std::shared_ptr<GuestProcess> oldest = ended_.front();
    ended_.pop_front();
    std::lock_guard process_lock(oldest->mutex_);
    stored -= oldest->log_.stored_bytes();
  }
}

}  // namespace stasis::guest
