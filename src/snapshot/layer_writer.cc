// Making raw layers: LayerWriter and adopt_layer.
#include <algorithm>

#include "snapshot/files.h"
#include "snapshot/layer_files.h"
#include "snapshot/layer_sums.h"

namespace stasis::snapshot {
struct LayerWriter::State {
  State(FileSystem& file_system, Path dir, LayerId id, uint64_t layer_size)
      : fs(file_system),
        layers_dir(std::move(dir)),
        data(layer_data_path(layers_dir, id)),
        sums(layer_sums_path(layers_dir, id)),
        size(layer_size),
        hasher(id, layer_size) {}

  FileSystem& fs;
  Path layers_dir;
  Path data;
  Path sums;
  uint64_t size;
  UniqueFd fd;
  FrameHasher hasher;
  uint64_t position = 0;  // everything before it is written or stays a hole
  bool finished = false;
};

LayerWriter::LayerWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

LayerWriter::~LayerWriter() {
  if (state_->finished) return;
  for (const Path& path : {state_->data, state_->sums}) {
    (void)state_->fs.remove(path);
    (void)state_->fs.remove(temporary_of(path));
  }
}

Result<std::unique_ptr<LayerWriter>> LayerWriter::create(FileSystem& fs, Path layers_dir, LayerId id, uint64_t size) {
  STASIS_TRY(check_new_layer(fs, layers_dir, id, size));
  std::unique_ptr<LayerWriter> writer(new LayerWriter(std::make_unique<State>(fs, std::move(layers_dir), id, size)));
  State& state = *writer->state_;
  STASIS_ASSIGN(state.fd, fs.create(temporary_of(state.data)));
  STASIS_TRY_CONTEXT(fs.truncate(state.fd.get(), size), state.data.string());
  return writer;
}

Status LayerWriter::write(uint64_t offset, std::span<const std::byte> data) {
  State& state = *state_;
  STASIS_TRY(check_layer_range({offset, data.size()}, state.position, state.size));
  STASIS_TRY_CONTEXT(state.fs.write_at(state.fd.get(), offset, data), state.data.string());
  state.hasher.add(offset, data);
  state.position = offset + data.size();
  return {};
}

Status LayerWriter::sync() {
  STASIS_TRY_CONTEXT(state_->fs.sync(state_->fd.get()), state_->data.string());
  return {};
}

Result<LayerInfo> LayerWriter::finish() {
  State& state = *state_;
  const LayerSums sums = state.hasher.finish();
  STASIS_TRY_CONTEXT(state.fs.set_mode(state.fd.get(), 0444), state.data.string());
  STASIS_TRY_CONTEXT(state.fs.sync(state.fd.get()), state.data.string());
  STASIS_TRY(write_sums(state.fs, temporary_of(state.sums), sums));
  STASIS_TRY(state.fs.rename(temporary_of(state.sums), state.sums));
  STASIS_TRY(state.fs.rename(temporary_of(state.data), state.data));
  STASIS_TRY(state.fs.sync_directory(state.layers_dir));
  state.finished = true;
  return sums.info();
}

namespace {

// The checksums of every frame that `data` touches, as the file has it.
Result<LayerSums> sums_of_file(FileSystem& fs, int fd, LayerId id, uint64_t size, std::span<const Range> data) {
  LayerSums sums{id, size, 0, {}, {}};
  std::vector<std::byte> buffer(kFrameSize);
  uint64_t position = 0;
  for (const Range& range : data) {
    STASIS_TRY(check_layer_range(range, position, size));
    position = range.end();
    sums.data_bytes += range.length;
    if (range.length == 0) continue;
    for (uint64_t frame = range.offset / kFrameSize; frame <= (range.end() - 1) / kFrameSize; ++frame) {
      if (!sums.frames.empty() && sums.frames.back() == frame) continue;
      const Range whole = sums.frame_range(static_cast<uint32_t>(frame));
      const auto bytes = std::span(buffer).first(whole.length);
      STASIS_ASSIGN(const size_t n, fs.read_at(fd, whole.offset, bytes));
      if (n != whole.length) return fail(Code::kInvalidArgument, "the file is shorter than the layer");
      sums.frames.push_back(static_cast<uint32_t>(frame));
      sums.checksums.push_back(checksum(bytes));
    }
  }
  return sums;
}

}  // namespace

Result<LayerInfo> adopt_layer(FileSystem& fs, const Path& file, const Path& layers_dir, LayerId id, uint64_t size,
                              std::span<const Range> data, bool* spoilt) {
  STASIS_TRY(check_new_layer(fs, layers_dir, id, size));
  STASIS_ASSIGN(const FileInfo info, fs.info(file));
  if (info.size != size) {
    return fail(Code::kInvalidArgument, file.string() + " has " + std::to_string(info.size) +
                                            " bytes, the layer needs " + std::to_string(size));
  }
  STASIS_ASSIGN(const UniqueFd fd, fs.open_read(file));
  auto sums = sums_of_file(fs, fd.get(), id, size, data);
  if (!sums) return fail(std::move(sums).error().with_context(file.string()));

  const Path data_path = layer_data_path(layers_dir, id);
  const Path sums_path = layer_sums_path(layers_dir, id);
  bool renamed = false;
  bool lost = false;
  auto publish = [&]() -> Status {
    STASIS_TRY_CONTEXT(fs.set_mode(fd.get(), 0444), file.string());
    const Status synced = fs.sync(fd.get());
    lost = !synced;
    STASIS_TRY_CONTEXT(synced, file.string());
    STASIS_TRY(write_sums(fs, temporary_of(sums_path), *sums));
    STASIS_TRY(fs.rename(temporary_of(sums_path), sums_path));
    STASIS_TRY(fs.rename(file, data_path));
    renamed = true;
    return fs.sync_directory(layers_dir);
  };
  if (Status published = publish(); !published) {
    if (renamed) lost = !fs.rename(data_path, file);
    if (spoilt != nullptr) *spoilt = lost;
    (void)fs.set_mode(fd.get(), 0600);
    (void)fs.remove(sums_path);
    (void)fs.remove(temporary_of(sums_path));
    return fail(std::move(published).error().with_context("make a layer of " + file.string()));
  }
  return sums->info();
}

}  // namespace stasis::snapshot
