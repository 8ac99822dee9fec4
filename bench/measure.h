// Timing for benchmarks: medians of several runs, since this kind of machine is shared and its wake-ups stall.
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace stasis::bench {

inline double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Processor time of this process, in user space and in the kernel: what work costs that waits for nothing, whoever of
// its threads does it, without what others do on the machine meanwhile.
inline double cpu_seconds_of(const std::function<void()>& work) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  const double start = now();
  work();
  return now() - start;
}

// Two pieces of work in turn, A B A B ..., so that both see the same machine; the medians of their processor times in
// seconds.
struct Pair {
  double a = 0;
  double b = 0;
  double ratio() const { return a / b; }
};
inline Pair in_turn(int runs, const std::function<void()>& a, const std::function<void()>& b) {
  std::vector<double> times_a;
  std::vector<double> times_b;
  for (int run = 0; run < runs; ++run) {
    times_a.push_back(cpu_seconds_of(a));
    times_b.push_back(cpu_seconds_of(b));
  }
  return {median(times_a), median(times_b)};
}

// Several pieces of work in turn, each with what clears up after it, which is not measured; the medians.
struct Work {
  std::function<void()> run;
  std::function<void()> after = [] {};
};
inline std::vector<double> all_in_turn(int runs, const std::vector<Work>& works) {
  std::vector<std::vector<double>> times(works.size());
  for (int run = 0; run < runs; ++run) {
    for (size_t i = 0; i < works.size(); ++i) {
      times[i].push_back(cpu_seconds_of(works[i].run));
      works[i].after();
    }
  }
  std::vector<double> medians;
  for (const std::vector<double>& one : times) medians.push_back(median(one));
  return medians;
}

// A small fast generator: reproducible, and cheap beside what it feeds.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

 private:
  uint64_t state_;
};

}  // namespace stasis::bench
