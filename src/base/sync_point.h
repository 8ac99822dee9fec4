// Named points of the code at which a test steps in: to stop a thread there until others have done their part, so that
// a race happens in the one order that matters, or to exchange a value, where the kernel cannot be made to answer so.
// A point costs one load of a variable that nobody writes, and nothing in a release build (NDEBUG), where it is not
// there. Tests use base/testing/sync_points.h. A point is named "file.what happens there"; what `value` is stands with
// the point.
#pragma once

#include <atomic>
#include <functional>
#include <string>

namespace stasis {

#ifdef NDEBUG
inline constexpr bool kSyncPoints = false;
#else
inline constexpr bool kSyncPoints = true;
#endif

namespace sync_points {

// Runs in the thread that reaches the point. `value` is what the point passes.
using Action = std::function<void(void* value)>;

// One action a point; the last one set. Any thread. An action that is running when it is removed runs to its end.
void set(const std::string& name, Action action);
void remove(const std::string& name);

extern std::atomic<bool> any;  // an action is set
void reach(const char* name, void* value);

}  // namespace sync_points

inline void sync_point(const char* name, void* value = nullptr) {
  if constexpr (kSyncPoints) {
    if (sync_points::any.load(std::memory_order_relaxed)) sync_points::reach(name, value);
  }
}

}  // namespace stasis
