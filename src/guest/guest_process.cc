#include "guest/guest_process.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>

namespace stasis::guest {
namespace {

// The names that Go gives signals: clients see them in "status".
std::string signal_text(int number) {
  static const std::map<int, const char*> kNames = {
      {SIGHUP, "hangup"},
      {SIGINT, "interrupt"},
      {SIGQUIT, "quit"},
      {SIGILL, "illegal instruction"},
      {SIGTRAP, "trace/breakpoint trap"},
      {SIGABRT, "aborted"},
      {SIGBUS, "bus error"},
      {SIGFPE, "floating point exception"},
      {SIGKILL, "killed"},
      {SIGUSR1, "user defined signal 1"},
      {SIGSEGV, "segmentation fault"},
      {SIGUSR2, "user defined signal 2"},
      {SIGPIPE, "broken pipe"},
      {SIGALRM, "alarm clock"},
      {SIGTERM, "terminated"},
  };
  auto name = kNames.find(number);
  return name == kNames.end() ? "signal " + std::to_string(number) : name->second;
}

int milliseconds_until(GuestProcess::Clock::time_point until) {
  auto left = std::chrono::ceil<std::chrono::milliseconds>(until - GuestProcess::Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

}  // namespace

nlohmann::json end_event(const ProcessEnd& end) {
  nlohmann::json event = nlohmann::json::object();
  std::string status = end.exited ? "exit status " + std::to_string(end.code)
                                  : "signal: " + signal_text(end.code) + (end.core_dumped ? " (core dumped)" : "");
  int code = end.exited ? end.code : -1;
  if (code != 0) {
    event["exitCode"] = code;
    event["error"] = status;
  }
  if (end.exited) event["exited"] = true;
  event["status"] = status;
  return event;
}

Status GuestProcess::send_input(bool to_pty, std::string_view data, Clock::time_point deadline, const Socket& client) {
  std::lock_guard lock(input_mutex_);
  const UniqueFd& fd = to_pty ? pty_ : stdin_;
  if (!fd)
    return fail(Code::kFailedPrecondition, to_pty ? "the process has no terminal" : "stdin of the process is closed");
  while (!data.empty()) {
    ssize_t count = write(fd.get(), data.data(), data.size());
    if (count > 0) {
      data.remove_prefix(static_cast<size_t>(count));
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) return fail(Code::kFailedPrecondition, "the process reads no input any more");
    pollfd entries[2] = {{fd.get(), POLLOUT, 0}, {client.fd(), POLLRDHUP, 0}};
    (void)poll(entries, 2, std::min(milliseconds_until(deadline), 1000));
    if (entries[1].revents != 0) return fail(Code::kCancelled, "the client went away");
    if (ended()) return fail(Code::kFailedPrecondition, "the process has ended");
    if (Clock::now() >= deadline) return fail(Code::kDeadlineExceeded, "the process did not read its input in time");
  }
  return {};
}

Status GuestProcess::close_stdin() {
  std::lock_guard lock(input_mutex_);
  if (has_pty()) return fail(Code::kFailedPrecondition, "a process on a terminal has no stdin to close: send ^D (04)");
  stdin_.reset();
  return {};
}

Status GuestProcess::resize(uint16_t columns, uint16_t rows) {
  if (!has_pty()) return fail(Code::kFailedPrecondition, "the process has no terminal");
  winsize size{};
  size.ws_col = columns;
  size.ws_row = rows;
  if (ioctl(pty_.get(), TIOCSWINSZ, &size) != 0) return fail_errno(errno, "resize terminal");
  return {};
}

Status GuestProcess::signal(int number) {
  std::lock_guard lock(mutex_);  // the table records an exit under it before the number can be used again
  if (end_ || exit_) return fail(Code::kNotFound, "process with pid " + std::to_string(pid_) + " has ended");
  if (kill(-pid_, number) != 0 && kill(pid_, number) != 0) {
    return fail_errno(errno, "signal process " + std::to_string(pid_));
  }
  return {};
}

std::optional<ProcessEnd> GuestProcess::ended() const {
  std::lock_guard lock(mutex_);
  return end_;
}

void GuestProcess::append(Stream stream, std::string_view data) {
  std::lock_guard lock(mutex_);
  log_.append(stream, data);
  wake_readers();
}

void GuestProcess::set_end(const ProcessEnd& end) {
  std::lock_guard lock(mutex_);
  end_ = end;
  wake_readers();
}

void GuestProcess::wake_readers() {
  for (int fd : reader_events_) (void)eventfd_write(fd, 1);
}

Subscription::Subscription(std::shared_ptr<GuestProcess> process, Socket& socket, bool starter)
    : process_(std::move(process)), socket_(socket), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  std::lock_guard lock(process_->mutex_);
  reader_ = starter ? std::exchange(process_->starter_, 0) : 0;
  if (reader_ == 0) reader_ = process_->log_.attach();
  process_->reader_events_.insert(event_.get());
}

Subscription::~Subscription() {
  note_acknowledged();
  std::lock_guard lock(process_->mutex_);
  process_->log_.detach(reader_);
  process_->reader_events_.erase(event_.get());
}

std::optional<Subscription::Item> Subscription::ready() {
  std::lock_guard lock(process_->mutex_);
  if (auto chunk = process_->log_.next(reader_)) return Item{What::kOutput, std::move(*chunk), {}};
  if (process_->end_) return Item{What::kEnd, {}, *process_->end_};
  return std::nullopt;
}

Subscription::Item Subscription::next(GuestProcess::Clock::time_point until) {
  for (;;) {
    if (auto item = ready()) return std::move(*item);
    if (GuestProcess::Clock::now() >= until) return Item{What::kIdle, {}, {}};
    pollfd entries[2] = {{event_.get(), POLLIN, 0}, {socket_.fd(), POLLRDHUP, 0}};
    int count = poll(entries, 2, milliseconds_until(until));
    if (count < 0 && errno != EINTR) return Item{What::kGone, {}, {}};
    if (count > 0 && entries[1].revents != 0) return Item{What::kGone, {}, {}};
    eventfd_t seen = 0;
    (void)eventfd_read(event_.get(), &seen);
  }
}

void Subscription::wrote(const OutputChunk& chunk) {
  unacknowledged_.push_back({socket_.written_bytes(), chunk.end()});
  note_acknowledged();
}

void Subscription::note_acknowledged() {
  uint64_t acknowledged = socket_.acknowledged_bytes();
  uint64_t position = 0;
  while (!unacknowledged_.empty() && unacknowledged_.front().socket_bytes <= acknowledged) {
    position = unacknowledged_.front().position;
    unacknowledged_.pop_front();
  }
  if (position == 0) return;
  std::lock_guard lock(process_->mutex_);
  process_->log_.set_delivered(position);
}

}  // namespace stasis::guest
