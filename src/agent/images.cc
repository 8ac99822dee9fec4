#include "agent/images.h"

#include <nlohmann/json.hpp>

namespace stasis::agent {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxFileBytes = 1 << 20;

Result<json> read_json(const Path& path) {
  STASIS_ASSIGN(const auto bytes, read_file(real_file_system(), path, kMaxFileBytes));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return fail(Code::kDataLoss, path.string() + " is no JSON object");
  return object;
}

std::map<std::string, Image> read_record(const Path& file) {
  std::map<std::string, Image> images;
  const auto object = read_json(file);
  if (!object) return images;  // missing or damaged: everything is imported again
  for (const auto& [name, value] : object->items()) {
    if (!value.is_object()) continue;
    auto id = Uuid::parse(value.value("snapshot", ""));
    if (id) images[name] = {value.value("key", ""), {*id}};
  }
  return images;
}

Status write_record(const Path& file, const std::map<std::string, Image>& images) {
  json object = json::object();
  for (const auto& [name, image] : images) object[name] = {{"key", image.key}, {"snapshot", image.id.text()}};
  return publish_file(real_file_system(), file, object.dump(2));
}

Result<Image> import(const snapshot::Store& store, const Path& directory, const json& description) {
  const snapshot::ImageFiles files{directory / "vmlinux", directory / "initrd", directory / "rootfs.ext4",
                                   description.value("kernel_release", "unknown")};
  STASIS_ASSIGN(const snapshot::Manifest manifest, snapshot::import_image(store, files));
  return Image{description.value("key", ""), manifest.id};
}

}  // namespace

Result<std::map<std::string, Image>> load_images(const snapshot::Store& store, const Path& record_file,
                                                 const std::vector<std::pair<std::string, Path>>& directories) {
  const std::map<std::string, Image> known = read_record(record_file);
  std::map<std::string, Image> images = known;
  std::vector<snapshot::SnapshotId> replaced;
  for (const auto& [name, directory] : directories) {
    auto description = read_json(directory / "image.json");
    if (!description) {
      return fail(std::move(description)
                      .error()
                      .with_context("image '" + name + "'")
                      .with_remedy("build it with `make image`, or name its directory with --image"));
    }
    const auto before = known.find(name);
    const bool current =
        before != known.end() && before->second.key == description->value("key", "") && store.load(before->second.id);
    if (current) continue;
    STASIS_ASSIGN(images[name], import(store, directory, *description));
    if (before != known.end()) replaced.push_back(before->second.id);
  }
  STASIS_TRY(write_record(record_file, images));
  for (const snapshot::SnapshotId id : replaced) (void)store.remove(id);
  return images;
}

}  // namespace stasis::agent
