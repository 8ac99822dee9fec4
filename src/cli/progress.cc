#include "cli/progress.h"

#include "cli/table.h"

namespace stasis::cli {

Progress::Progress(Io& io, const std::string& what, std::chrono::milliseconds patience, Elsewhere elsewhere)
    : io_(io), what_(printable(what)), patience_(patience) {
  if (io_.err_terminal || elsewhere == Elsewhere::kOneLine) thread_ = std::thread([this] { show(); });
}

void Progress::set_detail(std::string detail) {
  const std::lock_guard lock(mutex_);
  detail_ = std::move(detail);
}

void Progress::stop() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Progress::show() {
  constexpr std::chrono::milliseconds kInterval(250);
  const auto start = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  if (wake_.wait_for(lock, patience_, [this] { return done_; })) return;
  if (!io_.err_terminal) {
    io_.err << what_ << std::endl;
    return;
  }
  while (!done_) {
    const std::chrono::duration<double, std::milli> waited = std::chrono::steady_clock::now() - start;
    io_.err << "\r\033[K" << what_ << " ... " << duration_text(waited.count());
    if (!detail_.empty()) io_.err << ", " << detail_;
    io_.err << std::flush;
    wake_.wait_for(lock, kInterval, [this] { return done_; });
  }
  io_.err << "\r\033[K" << std::flush;
}

}  // namespace stasis::cli
