#include "snapshot/layer_files.h"

#include "snapshot/block_map_builder.h"
#include "snapshot/files.h"

namespace stasis::snapshot {

Path layer_data_path(const Path& layers_dir, LayerId id) { return layers_dir / (id.text() + ".raw"); }
Path layer_sums_path(const Path& layers_dir, LayerId id) { return layers_dir / (id.text() + ".sums"); }
Path layer_packed_path(const Path& layers_dir, LayerId id) { return layers_dir / (id.text() + ".packed"); }

Result<LayerFile> find_layer(FileSystem& fs, const Path& layers_dir, LayerId id) {
  const Path raw = layer_data_path(layers_dir, id);
  auto info = fs.info(raw);
  if (info) return LayerFile{raw, LayerForm::kRaw, *info};
  if (info.error().code != Code::kNotFound) return fail(std::move(info).error());
  const Path packed = layer_packed_path(layers_dir, id);
  auto other = fs.info(packed);
  if (other) return LayerFile{packed, LayerForm::kPacked, *other};
  if (other.error().code != Code::kNotFound) return fail(std::move(other).error());
  return fail(std::move(info).error());
}

Error lost_layer(Error error, LayerId id) {
  if (error.code == Code::kNotFound) error.code = Code::kDataLoss;
  return std::move(error).with_context("layer " + id.text());
}

Status check_new_layer(FileSystem& fs, const Path& layers_dir, LayerId id, uint64_t size) {
  if (id.is_nil() || !valid_size(size)) {
    return fail(Code::kInvalidArgument, "a layer of " + std::to_string(size) + " bytes named " + id.text());
  }
  for (const auto& path_of : {layer_data_path, layer_sums_path, layer_packed_path}) {
    const Path path = path_of(layers_dir, id);
    STASIS_TRY(check_absent(fs, path, "layer " + id.text()));
    STASIS_TRY(check_absent(fs, temporary_of(path), "layer " + id.text()));
  }
  return {};
}

Status check_layer_range(Range range, uint64_t position, uint64_t size) {
  if (range.offset >= position && range.offset % kBlockSize == 0 && range.length % kBlockSize == 0 &&
      range.offset <= size && range.length <= size - range.offset) {
    return {};
  }
  return fail(Code::kInvalidArgument, std::to_string(range.length) + " bytes at " + std::to_string(range.offset) +
                                          " are not whole blocks in ascending order within a layer of " +
                                          std::to_string(size) + " bytes");
}

}  // namespace stasis::snapshot
