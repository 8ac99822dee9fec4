#include "server/testing/scripted_agent.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "server/testing/scripted_service.h"

namespace stasis::server::testing {

struct ScriptedAgent::Listener {
  std::unique_ptr<grpc::Server> server;
};

ScriptedAgent::ScriptedAgent(const Path& socket)
    : socket_(socket), service_(std::make_unique<ScriptedService>()), listener_(std::make_unique<Listener>()) {
  set_images({{"base", kImageId}});
  start();
}

ScriptedAgent::~ScriptedAgent() { stop(); }

void ScriptedAgent::start() {
  service_->resume_service();
  std::error_code ignored;
  std::filesystem::remove(socket_, ignored);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket_.string(), grpc::InsecureServerCredentials());
  builder.RegisterService(service_.get());
  // Its threads look for the end of the server this often when the wake-up for it misses them; ten seconds is the
  // default.
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::CQ_TIMEOUT_MSEC, 100);
  listener_->server = builder.BuildAndStart();
}

void ScriptedAgent::stop() {
  if (!listener_->server) return;
  service_->release_all();
  listener_->server->Shutdown(std::chrono::system_clock::now());
  listener_->server->Wait();
  listener_->server.reset();
}

void ScriptedAgent::fail_calls(const std::string& call, Error error, int times) {
  service_->fail_calls(call, std::move(error), times);
}
void ScriptedAgent::hold(const std::string& call, Point point) { service_->hold(call, point); }
void ScriptedAgent::release(const std::string& call) { service_->release(call); }
bool ScriptedAgent::wait_held(const std::string& call) { return service_->wait_held(call); }
int ScriptedAgent::calls(const std::string& call) const { return service_->calls(call); }

void ScriptedAgent::edit(const std::function<void(std::map<std::string, ScriptedSandbox>&,
                                                  std::map<std::string, ScriptedSnapshot>&)>& change) {
  service_->with([&] {
    change(service_->sandboxes_, service_->snapshots_);
    return 0;
  });
}

bool ScriptedAgent::has_sandbox(const std::string& id) const {
  return service_->with([&] { return service_->sandboxes_.contains(id); });
}

bool ScriptedAgent::has_snapshot(const std::string& id) const {
  return service_->with([&] { return service_->snapshots_.contains(id); });
}

std::string ScriptedAgent::kept_import(const std::string& stream) const {
  return service_->with([&] {
    const auto found = service_->kept_imports_.find(stream);
    return found == service_->kept_imports_.end() ? "" : found->second;
  });
}

std::set<std::string> ScriptedAgent::snapshots() const {
  return service_->with([&] {
    std::set<std::string> ids;
    for (const auto& [id, snapshot] : service_->snapshots_) {
      if (snapshot.kind != "image") ids.insert(id);
    }
    return ids;
  });
}

size_t ScriptedAgent::sandbox_count() const {
  return service_->with([&] { return service_->sandboxes_.size(); });
}

void ScriptedAgent::fail_verifications_at_the_end(Error error) {
  service_->with([&] {
    service_->verify_error_ = std::move(error);
    return 0;
  });
}

void ScriptedAgent::set_images(std::map<std::string, std::string> images) {
  service_->with([&] {
    service_->images_ = std::move(images);
    for (const auto& [name, id] : service_->images_) service_->snapshots_[id].kind = "image";
    return 0;
  });
}

}  // namespace stasis::server::testing
