#include "agent/images.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "snapshot/verified.h"

namespace stasis::agent {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxFileBytes = 1 << 20;

std::string text_of(const json& object, const char* name) {
  const auto field = object.find(name);
  return field != object.end() && field->is_string() ? field->get<std::string>() : "";
}

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
    auto id = Uuid::parse(text_of(value, "snapshot"));
    if (id) images[name] = {text_of(value, "key"), {*id}};
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
                                   text_of(description, "kernel_release")};
  STASIS_ASSIGN(const snapshot::Manifest manifest, snapshot::import_image(store, files));
  STASIS_ASSIGN(const snapshot::BlockMap disk, store.read_map(manifest.id, *manifest.disk_map));
  for (const snapshot::LayerId layer : disk.layers()) snapshot::VerifiedLayers(store).note_written(layer);
  return Image{text_of(description, "key"), manifest.id};
}

// Images that no name refers to: replaced ones, those that are named no more, and those whose import was not recorded
// before the agent died.
void remove_others(const snapshot::Store& store, const std::map<std::string, Image>& images) {
  const auto ids = store.list();
  if (!ids) return;
  for (const snapshot::SnapshotId id : *ids) {
    const bool named =
        std::any_of(images.begin(), images.end(), [&](const auto& image) { return image.second.id == id; });
    if (named) continue;
    const auto manifest = store.load(id);
    if (manifest && manifest->kind == snapshot::SnapshotKind::kImage) (void)store.remove(id);
  }
}

}  // namespace

Result<std::map<std::string, Image>> load_images(const snapshot::Store& store, const Path& record_file,
                                                 const std::vector<std::pair<std::string, Path>>& directories) {
  const std::map<std::string, Image> known = read_record(record_file);
  std::map<std::string, Image> images;
  for (const auto& [name, directory] : directories) {
    auto description = read_json(directory / "image.json");
    if (!description) {
      return fail(std::move(description)
                      .error()
                      .with_context("image '" + name + "'")
                      .with_remedy("build it with `make image`, or name its directory with --image"));
    }
    const auto before = known.find(name);
    const std::string key = text_of(*description, "key");
    if (key.empty()) return fail(Code::kInvalidArgument, "image '" + name + "': image.json has no key");
    if (before != known.end() && before->second.key == key && store.load(before->second.id)) {
      images[name] = before->second;
      continue;
    }
    spdlog::info("image '{}': importing {}", name, directory.string());
    STASIS_ASSIGN(images[name], import(store, directory, *description));
  }
  STASIS_TRY(write_record(record_file, images));
  remove_others(store, images);
  return images;
}

}  // namespace stasis::agent
