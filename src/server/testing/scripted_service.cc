#include "server/testing/scripted_service.h"

#include <chrono>

namespace stasis::server::testing {
namespace {

using grpc::Status;

constexpr std::chrono::seconds kPatience{10};

}  // namespace

Status status_of(const Error& error, grpc::ServerContext& context) {
  context.AddTrailingMetadata("stasis-error", "1");
  if (!error.remedy.empty()) context.AddTrailingMetadata("stasis-remedy", error.remedy);
  return Status(static_cast<grpc::StatusCode>(error.code), error.message);
}

void ScriptedService::fail_calls(const std::string& call, Error error, int times) {
  const std::lock_guard lock(mutex_);
  failures_[call] = {std::move(error), times};
}

void ScriptedService::hold(const std::string& call, Point point) {
  const std::lock_guard lock(mutex_);
  holds_[call] = {point, 0};
}

void ScriptedService::release(const std::string& call) {
  const std::lock_guard lock(mutex_);
  holds_.erase(call);
  changed_.notify_all();
}

void ScriptedService::release_all() {
  const std::lock_guard lock(mutex_);
  holds_.clear();
  stopping_ = true;
  changed_.notify_all();
}

void ScriptedService::resume_service() {
  const std::lock_guard lock(mutex_);
  stopping_ = false;
}

bool ScriptedService::wait_held(const std::string& call) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] {
    const auto found = holds_.find(call);
    return found != holds_.end() && found->second.waiting > 0;
  });
}

int ScriptedService::calls(const std::string& call) const {
  const std::lock_guard lock(mutex_);
  const auto found = calls_.find(call);
  return found == calls_.end() ? 0 : found->second;
}

Status ScriptedService::run(const std::string& call, Context& context, const std::function<Status()>& work) {
  std::unique_lock lock(mutex_);
  ++calls_[call];
  wait(lock, call, Point::kBefore);
  if (stopping_) return failed(grpc::UNAVAILABLE, "the agent was killed");
  if (const auto found = failures_.find(call); found != failures_.end() && found->second.times != 0) {
    --found->second.times;
    return status_of(found->second.error, context);
  }
  const Status status = work();
  if (status.ok()) wait(lock, call, Point::kAfter);
  return stopping_ ? failed(grpc::UNAVAILABLE, "the agent was killed") : status;
}

void ScriptedService::wait(std::unique_lock<std::mutex>& lock, const std::string& call, Point point) {
  const auto held = [&] {
    const auto found = holds_.find(call);
    return found != holds_.end() && found->second.point == point;
  };
  if (!held()) return;
  ++holds_[call].waiting;
  changed_.notify_all();
  changed_.wait(lock, [&] { return !held() || stopping_; });
}

}  // namespace stasis::server::testing
