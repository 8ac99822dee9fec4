// Making packed layers.
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "snapshot/files.h"
#include "snapshot/layer_files.h"
#include "snapshot/packed_layer.h"
#include "snapshot/ranges.h"

namespace stasis::snapshot {
namespace {

// zstd's own balance. Measured on the memory of a warm guest: docs/format.md.
constexpr int kLevel = 3;

bool all_zero(std::span<const std::byte> frame) {
  while (!frame.empty() && is_zero(frame.first(kBlockSize))) frame = frame.subspan(kBlockSize);
  return frame.empty();
}

}  // namespace

PackedLayerWriter::PackedLayerWriter(FileSystem& fs, Path layers_dir, LayerId id, uint64_t size)
    : fs_(fs),
      layers_dir_(std::move(layers_dir)),
      path_(layer_packed_path(layers_dir_, id)),
      zstd_(ZSTD_createCCtx()),
      frame_(kFrameSize),
      packed_(ZSTD_compressBound(kFrameSize)) {
  table_.sums.id = id;
  table_.sums.size = size;
}

PackedLayerWriter::~PackedLayerWriter() {
  ZSTD_freeCCtx(zstd_);
  if (finished_) return;
  (void)fs_.remove(path_);
  (void)fs_.remove(temporary_of(path_));
}

Result<std::unique_ptr<PackedLayerWriter>> PackedLayerWriter::create(FileSystem& fs, Path layers_dir, LayerId id,
                                                                     uint64_t size) {
  STASIS_TRY(check_new_layer(fs, layers_dir, id, size));
  std::unique_ptr<PackedLayerWriter> writer(new PackedLayerWriter(fs, std::move(layers_dir), id, size));
  if (writer->zstd_ == nullptr) return fail(Code::kResourceExhausted, "no memory for compressing a layer");
  STASIS_ASSIGN(writer->fd_, fs.create(temporary_of(writer->path_)));
  return writer;
}

Status PackedLayerWriter::write(uint64_t offset, std::span<const std::byte> data) {
  STASIS_TRY(check_layer_range({offset, data.size()}, position_, table_.sums.size));
  position_ = offset + data.size();
  table_.sums.data_bytes += data.size();
  while (!data.empty()) {
    const auto number = static_cast<uint32_t>(offset / kFrameSize);
    if (open_ && number != frame_number_) STASIS_TRY(put_frame());
    frame_number_ = number;
    open_ = true;
    const size_t at = offset % kFrameSize;
    const size_t here = std::min(data.size(), kFrameSize - at);
    std::memcpy(frame_.data() + at, data.data(), here);
    offset += here;
    data = data.subspan(here);
  }
  return {};
}

Status PackedLayerWriter::put_frame() {
  const auto frame = std::span(frame_).first(table_.sums.frame_range(frame_number_).length);
  std::span<const std::byte> stored;  // of zeros: nothing
  if (!all_zero(frame)) {
    const size_t n = ZSTD_compressCCtx(zstd_, packed_.data(), packed_.size(), frame.data(), frame.size(), kLevel);
    if (ZSTD_isError(n) != 0) return fail(Code::kInternal, std::string("zstd: ") + ZSTD_getErrorName(n));
    stored = n < frame.size() ? std::span<const std::byte>(packed_).first(n) : frame;
  }
  const uint64_t at = table_.end();
  if (!stored.empty()) STASIS_TRY_CONTEXT(fs_.write_at(fd_.get(), at, stored), path_.string());
  table_.sums.frames.push_back(frame_number_);
  table_.sums.checksums.push_back(checksum(frame));
  table_.offsets.push_back(at);
  table_.lengths.push_back(static_cast<uint32_t>(stored.size()));
  std::memset(frame.data(), 0, frame.size());
  open_ = false;
  return {};
}

Status PackedLayerWriter::sync() {
  STASIS_TRY_CONTEXT(fs_.sync(fd_.get()), path_.string());
  return {};
}

Result<LayerInfo> PackedLayerWriter::finish() {
  if (open_) STASIS_TRY(put_frame());
  STASIS_TRY_CONTEXT(fs_.write_at(fd_.get(), table_.end(), table_.encode()), path_.string());
  STASIS_TRY_CONTEXT(fs_.write_at(fd_.get(), 0, table_.encode_header()), path_.string());
  STASIS_TRY_CONTEXT(fs_.set_mode(fd_.get(), 0444), path_.string());
  STASIS_TRY(sync());
  STASIS_TRY(fs_.rename(temporary_of(path_), path_));
  STASIS_TRY(fs_.sync_directory(layers_dir_));
  finished_ = true;
  return table_.sums.info();
}

}  // namespace stasis::snapshot
