#include "agent/warm_bases.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/warm_room.h"
#include "base/log.h"

namespace stasis::agent {
namespace {

using nlohmann::json;
using snapshot::SnapshotId;

constexpr uint64_t kMaxFileBytes = 1 << 20;

json to_json(const WarmKey& key, SnapshotId id) {
  return {{"image", key.image.text()},    {"vcpus", key.vcpus}, {"memory_mib", key.memory_mib},
          {"disk_bytes", key.disk_bytes}, {"vmm", key.vmm},     {"snapshot", id.text()}};
}

std::optional<std::pair<WarmKey, SnapshotId>> from_json(const json& entry) {
  try {
    const auto image = Uuid::parse(entry.at("image").get<std::string>());
    const auto id = Uuid::parse(entry.at("snapshot").get<std::string>());
    if (!image || !id) return std::nullopt;
    const WarmKey key{{*image},
                      entry.at("vcpus").get<uint32_t>(),
                      entry.at("memory_mib").get<uint32_t>(),
                      entry.at("disk_bytes").get<uint64_t>(),
                      entry.at("vmm").get<std::string>()};
    return std::pair{key, SnapshotId{*id}};
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

WarmBases::WarmBases(const snapshot::Store& store, Path file, std::span<const SnapshotId> images, SpaceFunction space)
    : store_(store), file_(std::move(file)), images_(images.begin(), images.end()), space_(std::move(space)) {
  load();
  if (Status saved = save(); !saved) spdlog::warn("warm bases: {}", saved.error().message);
}

bool WarmBases::is_wanted(const WarmKey& key) const {
  return std::find(images_.begin(), images_.end(), key.image) != images_.end();
}

void WarmBases::load() {
  const auto bytes = read_file(real_file_system(), file_, kMaxFileBytes);
  if (!bytes) return;
  const std::string_view text(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  const json list = json::parse(text, nullptr, false);
  if (!list.is_array()) return;
  for (const json& entry : list) {
    const auto base = from_json(entry);
    if (!base) continue;
    const auto& [key, id] = *base;
    const auto published = store_.load(id);
    if (!published && published.error().code == Code::kNotFound) {
      bases_[key] = {id, Base::State::kLeftByFormerAgent, 0};
    } else if (published && is_wanted(key) && bases_.size() < kMax) {
      bases_[key] = {id, Base::State::kReady, 0};
    } else {
      (void)store_.remove(id);
    }
  }
}

std::optional<SnapshotId> WarmBases::find(const WarmKey& key) {
  const std::lock_guard lock(mutex_);
  const auto found = bases_.find(key);
  if (found == bases_.end() || !found->second.ready()) return std::nullopt;
  found->second.used = ++uses_;
  return found->second.id;
}

std::optional<SnapshotId> WarmBases::begin(const WarmKey& key) {
  const std::lock_guard lock(mutex_);
  if (bases_.contains(key)) return std::nullopt;
  remove_others_than(key.vmm);
  if (!has_space()) return std::nullopt;
  make_room();
  if (bases_.size() >= kMax) return std::nullopt;
  const SnapshotId id = SnapshotId::random();
  bases_[key] = {id, Base::State::kBeingMade, ++uses_};
  if (save()) return id;
  bases_.erase(key);
  return std::nullopt;
}

void WarmBases::done(const WarmKey& key, bool taken) {
  const std::lock_guard lock(mutex_);
  if (taken) {
    bases_[key].state = Base::State::kReady;
    if (const auto space = space_()) fit_the_disk(*space, 1);
  } else {
    remove(key);
  }
}

void WarmBases::drop(const WarmKey& key) {
  const std::lock_guard lock(mutex_);
  const auto found = bases_.find(key);
  if (found != bases_.end() && found->second.ready()) remove(key);
}

bool WarmBases::contains(SnapshotId id) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(bases_.begin(), bases_.end(), [&](const auto& base) { return base.second.id == id; });
}

void WarmBases::settle() {
  const std::lock_guard lock(mutex_);
  std::vector<WarmKey> useless;
  for (auto& [key, base] : bases_) {
    if (base.state != Base::State::kLeftByFormerAgent) continue;
    if (is_wanted(key) && store_.load(base.id)) {
      base.state = Base::State::kReady;
    } else {
      useless.push_back(key);
    }
  }
  for (const WarmKey& key : useless) remove(key);
}

// The snapshot first: what is written down and not there is forgotten, what is there and not written down would stay.
void WarmBases::remove(const WarmKey& key) {
  (void)store_.remove(bases_[key].id);
  bases_.erase(key);
  if (Status saved = save(); !saved) spdlog::warn("warm bases: {}", saved.error().message);
}

void WarmBases::remove_others_than(const std::string& vmm) {
  std::vector<WarmKey> useless;
  for (const auto& [key, base] : bases_) {
    if (base.ready() && key.vmm != vmm) useless.push_back(key);
  }
  for (const WarmKey& key : useless) remove(key);
}

std::vector<WarmKey> WarmBases::least_recently_used() const {
  std::vector<WarmKey> keys;
  for (const auto& [key, base] : bases_) {
    if (base.ready()) keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end(),
            [&](const WarmKey& a, const WarmKey& b) { return bases_.at(a).used < bases_.at(b).used; });
  return keys;
}

void WarmBases::make_room() {
  if (bases_.size() < kMax) return;
  const auto keys = least_recently_used();
  if (!keys.empty()) remove(keys.front());
}

// What it has of its own; what it shares with its image is there without it.
uint64_t WarmBases::stored_bytes(const Base& base) const {
  const auto manifest = store_.load(base.id);
  if (!manifest) return 0;
  uint64_t bytes = manifest->memory.stored_bytes + manifest->disk.stored_bytes;
  for (const snapshot::Part& part : manifest->parts()) bytes += part.size;
  return bytes;
}

void WarmBases::fit_the_disk(const DiskSpace& space, size_t spared) {
  const auto keys = least_recently_used();
  std::vector<uint64_t> stored;
  for (const WarmKey& key : keys) stored.push_back(stored_bytes(bases_.at(key)));
  const size_t most = keys.size() - std::min(spared, keys.size());
  const size_t going = std::min(warm_bases_too_many(stored, space), most);
  for (size_t i = 0; i < going; ++i) remove(keys[i]);
}

bool WarmBases::has_space() {
  const auto space = space_();
  if (!space) {
    spdlog::warn("warm bases: none is made: {}", space.error().message);
    return false;
  }
  fit_the_disk(*space, 0);
  if (!is_short(*space)) return true;
  spdlog::warn("warm bases: none is made, each such sandbox boots: the disk has {} of {} MiB left",
               space->free_bytes >> 20, space->total_bytes >> 20);
  return false;
}

Status WarmBases::save() const {
  json list = json::array();
  for (const auto& [key, base] : bases_) list.push_back(to_json(key, base.id));
  return publish_file(real_file_system(), file_, list.dump(2));
}

}  // namespace stasis::agent
