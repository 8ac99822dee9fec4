// The double's guest: the tiny guest's commands (../tiny_guest/commands.h) read from standard input, which stands for
// the serial port, and answered on standard output, by a thread that can be paused between commands.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "base/poll.h"
#include "guest_memory.h"

namespace fake {

class Guest {
 public:
  // Runs for ever: the double ends with its process.
  Guest(GuestMemory& memory, bool running, stasis::Event changed);
  void set_running(bool running);
  bool running() const { return running_; }
  // Held while a command runs: memory does not change while the caller has it.
  std::mutex& step() { return step_; }

 private:
  void loop();
  bool read_line(std::string& line);
  void execute(const std::string& line);

  GuestMemory& memory_;
  std::mutex step_;
  std::condition_variable resumed_;
  std::atomic<bool> running_;
  stasis::Event changed_;  // wakes the thread out of its wait for input
  std::string pending_;
};

}  // namespace fake
