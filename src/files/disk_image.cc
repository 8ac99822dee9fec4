#include "files/disk_image.h"

#include <algorithm>
#include <cstring>

#include "files/big_endian.h"
#include "snapshot/diff.h"

namespace stasis::files {
namespace {

constexpr size_t kPiece = 256 * 1024;  // compared at once

Status check_within(const DiskImage& image, uint64_t offset, uint64_t length) {
  if (offset <= image.size() && length <= image.size() - offset) return {};
  return fail(Code::kOutOfRange, "the file system refers to what lies behind the end of the disk");
}

}  // namespace

void DiskImage::replay(uint32_t block_size, std::map<uint64_t, Moved> blocks) {
  block_size_ = block_size;
  moved_ = std::move(blocks);
}

DiskImage::Place DiskImage::place_of(uint64_t offset, uint64_t length) const {
  if (moved_.empty()) return {offset, length};
  const uint64_t block = offset / block_size_;
  const auto next = moved_.lower_bound(block);
  if (next == moved_.end()) return {offset, length};
  if (next->first != block) return {offset, std::min(length, next->first * block_size_ - offset)};
  const uint64_t begin = offset % block_size_;
  return {next->second.offset + begin, std::min(length, block_size_ - begin), next->second.escaped, begin};
}

Status DiskImage::read(uint64_t offset, std::span<std::byte> out) {
  STASIS_TRY(check_within(*this, offset, out.size()));
  while (!out.empty()) {
    const Place place = place_of(offset, out.size());
    STASIS_TRY(read_place(place, out.first(place.length)));
    offset += place.length;
    out = out.subspan(place.length);
  }
  return {};
}

Status DiskImage::read_place(const Place& place, std::span<std::byte> out) {
  for (uint64_t done = 0; done < out.size();) {
    const uint64_t at = place.offset + done;
    STASIS_ASSIGN(const auto window, window_at(at / kWindow * kWindow));
    const uint64_t here = std::min<uint64_t>(out.size() - done, window.size() - at % kWindow);
    std::memcpy(out.data() + done, window.data() + at % kWindow, here);
    done += here;
  }
  if (!place.escaped) return {};
  std::array<std::byte, 4> magic{};
  put_be32(magic, 0, kJournalMagic);
  for (uint64_t i = place.begin; i < magic.size() && i - place.begin < out.size(); ++i) out[i - place.begin] = magic[i];
  return {};
}

Result<std::span<const std::byte>> DiskImage::window_at(uint64_t offset) {
  Window& window = windows_[offset / kWindow % kWindows];
  if (window.offset == offset) return window.bytes;
  window.offset = ~uint64_t{0};
  window.bytes.resize(std::min(kWindow, size() - offset));
  STASIS_TRY(space_.read(offset, window.bytes));
  window.offset = offset;
  return window.bytes;
}

Result<bool> same_bytes(DiskImage& a, uint64_t at_a, DiskImage& b, uint64_t at_b, uint64_t length) {
  STASIS_TRY(check_within(a, at_a, length));
  STASIS_TRY(check_within(b, at_b, length));
  std::vector<std::byte> left;
  std::vector<std::byte> right;
  while (length > 0) {
    const DiskImage::Place place_a = a.place_of(at_a, length);
    const DiskImage::Place place_b = b.place_of(at_b, place_a.length);
    const auto run =
        snapshot::source_run(a.space_.map(), place_a.offset, b.space_.map(), place_b.offset, place_b.length);
    uint64_t here = run.length;
    if (!run.same || place_a.escaped || place_b.escaped) {
      here = std::min<uint64_t>(here, kPiece);
      left.resize(here);
      right.resize(here);
      STASIS_TRY(a.read(at_a, left));
      STASIS_TRY(b.read(at_b, right));
      if (left != right) return false;
    }
    at_a += here;
    at_b += here;
    length -= here;
  }
  return true;
}

}  // namespace stasis::files
