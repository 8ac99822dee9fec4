#include "base/sync_point.h"

#include <map>
#include <memory>
#include <mutex>
#include <utility>

namespace stasis::sync_points {
namespace {

std::mutex mutex;
std::map<std::string, std::shared_ptr<const Action>, std::less<>> actions;

std::shared_ptr<const Action> find(const char* name) {
  const std::lock_guard lock(mutex);
  const auto found = actions.find(name);
  return found == actions.end() ? nullptr : found->second;
}

}  // namespace

std::atomic<bool> any{false};

void set(const std::string& name, Action action) {
  const std::lock_guard lock(mutex);
  actions[name] = std::make_shared<const Action>(std::move(action));
  any = true;
}

void remove(const std::string& name) {
  const std::lock_guard lock(mutex);
  actions.erase(name);
  any = !actions.empty();
}

void reach(const char* name, void* value) {
  if (const auto action = find(name)) (*action)(value);
}

}  // namespace stasis::sync_points
