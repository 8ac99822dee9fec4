// One line on standard error that says what is being waited for, shown from the second second on and only on a
// terminal. It is wiped when the object goes. Where there is no terminal nothing is said, or the line once, and it
// stays.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "cli/io.h"

namespace stasis::cli {

class Progress {
 public:
  enum class Elsewhere { kNothing, kOneLine };
  Progress(Io& io, const std::string& what, std::chrono::milliseconds patience = std::chrono::seconds(1),
           Elsewhere elsewhere = Elsewhere::kNothing);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { stop(); }

  // Shown behind `what`: "12 MiB".
  void set_detail(std::string detail);
  // Wipes the line; nothing is shown any more.
  void stop();

 private:
  void show();

  Io& io_;
  const std::string what_;
  const std::chrono::milliseconds patience_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string detail_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace stasis::cli
