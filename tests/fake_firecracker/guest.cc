#include "guest.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "../tiny_guest/commands.h"

namespace fake {
namespace {

GuestMemory& memory_of(void* context) { return *static_cast<GuestMemory*>(context); }

tg_u64* word(void* context, tg_u64 offset) { return reinterpret_cast<tg_u64*>(memory_of(context).at(offset)); }

void written(void* context, tg_u64 offset, tg_u64 length) { memory_of(context).mark_written(offset, length); }

int give_back(void* context, tg_u64 offset, tg_u64 length) {
  return memory_of(context).give_back(offset, length) ? 0 : -1;
}

// Firecracker reads a serial port's input only from a terminal or a pipe.
bool has_serial_input() {
  struct stat info {};
  return ::fstat(STDIN_FILENO, &info) == 0 && S_ISFIFO(info.st_mode);
}

}  // namespace

Guest::Guest(GuestMemory& memory, bool running, stasis::Event changed)
    : memory_(memory), running_(running), changed_(std::move(changed)) {
  if (has_serial_input()) std::thread([this] { loop(); }).detach();
}

void Guest::set_running(bool running) {
  const std::lock_guard lock(step_);
  running_ = running;
  running ? changed_.clear() : changed_.set();
  resumed_.notify_all();
}

void Guest::loop() {
  for (;;) {
    {
      std::unique_lock lock(step_);
      resumed_.wait(lock, [this] { return running_.load(); });
    }
    std::string line;
    if (!read_line(line)) continue;
    const std::lock_guard lock(step_);
    // A line that came with the pause waits for the resume.
    if (running_) {
      execute(line);
    } else {
      pending_.insert(0, line + "\n");
    }
  }
}

// False if the machine was paused meanwhile.
bool Guest::read_line(std::string& line) {
  for (;;) {
    if (const size_t end = pending_.find('\n'); end != std::string::npos) {
      line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return true;
    }
    const std::array fds{STDIN_FILENO, changed_.fd()};
    const auto ready = stasis::wait_any(fds, stasis::Deadline::never());
    if (!ready || (*ready)[1]) return false;
    std::array<char, 256> buffer;
    const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n <= 0) return false;
    pending_.append(buffer.data(), static_cast<size_t>(n));
  }
}

void Guest::execute(const std::string& line) {
  const tg_machine machine{&memory_, memory_.bytes(), word, written, give_back};
  std::array<char, TG_MAX_LINE> answer;
  tg_execute(&machine, line.substr(0, TG_MAX_LINE - 1).c_str(), answer.data());
  const std::string text(answer.data());
  [[maybe_unused]] const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
}

}  // namespace fake
