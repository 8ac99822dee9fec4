// Capture of 1 GiB, of whose blocks 60 % hold data and the others zeros, all of them there; and reading it back.
#include <cstring>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "base/memory.h"
#include "base/memory_source.h"
#include "measure.h"
#include "snapshot/capture.h"
#include "snapshot/checksum.h"
#include "snapshot/store.h"
#include "store_bench.h"

namespace stasis::bench {
namespace {

using namespace snapshot;

constexpr uint64_t kMemory = uint64_t{1} << 30;
constexpr int kRuns = 5;

void fill(std::span<std::byte> memory) {
  Random random(7);
  for (uint64_t at = 0; at < memory.size(); at += kBlockSize) {
    const bool zero = random.next() % 10 >= 6;
    for (uint64_t i = 0; i < kBlockSize; i += 8) {
      const uint64_t word = zero ? 0 : random.next();
      std::memcpy(memory.data() + at + i, &word, sizeof word);
    }
  }
}

bool is_zero_block(const std::byte* block) {
  static constexpr std::array<std::byte, kBlockSize> kZeros{};
  return std::memcmp(block, kZeros.data(), kBlockSize) == 0;
}

// Zero test, memcpy of what is not zero to its place in `to`, a checksum for each frame.
void plain_full(std::span<const std::byte> from, std::span<std::byte> to) {
  for (uint64_t frame = 0; frame < from.size(); frame += kFrameSize) {
    for (uint64_t at = frame; at < frame + kFrameSize; at += kBlockSize) {
      if (!is_zero_block(from.data() + at)) std::memcpy(to.data() + at, from.data() + at, kBlockSize);
    }
    keep(checksum(from.subspan(frame, kFrameSize)));
  }
}

// The same, written with a call for each run of blocks within a frame.
void plain_full_written(std::span<const std::byte> from, int fd) {
  for (uint64_t frame = 0; frame < from.size(); frame += kFrameSize) {
    uint64_t run = frame;
    for (uint64_t at = frame; at <= frame + kFrameSize; at += kBlockSize) {
      if (at < frame + kFrameSize && !is_zero_block(from.data() + at)) continue;
      if (at > run) must(real_file_system().write_at(fd, run, from.subspan(run, at - run)));
      run = at + kBlockSize;
    }
    keep(checksum(from.subspan(frame, kFrameSize)));
  }
}

// memcmp with the parent, memcpy of what differs to its place in `to`.
void plain_diff(std::span<const std::byte> from, std::span<const std::byte> parent, std::span<std::byte> to) {
  for (uint64_t at = 0; at < from.size(); at += kBlockSize) {
    if (std::memcmp(from.data() + at, parent.data() + at, kBlockSize) == 0) continue;
    std::memcpy(to.data() + at, from.data() + at, kBlockSize);
  }
}

// A new file of the size of the memory in the same file system; gone when the object is.
class FreshFile {
 public:
  explicit FreshFile(const Path& directory) : path_(directory / "plain"), fd_(must(real_file_system().create(path_))) {
    must(real_file_system().truncate(fd_.get(), kMemory));
    must(real_file_system().remove(path_));
  }
  int fd() const { return fd_.get(); }
  Mapping map() const { return must(Mapping::shared(fd_.get(), kMemory)); }

 private:
  Path path_;
  UniqueFd fd_;
};

class Bench {
 public:
  explicit Bench(const Path& directory) : directory_(directory) { fill(memory_.bytes()); }

  // The first generation. Source and loop see the memory mapped, its pages in place.
  void full(nlohmann::json& out) {
    const auto nothing = open(must(BlockMap::zeros(kMemory)));
    std::vector<std::byte> warm(kMemory, std::byte{1});
    std::optional<FreshFile> file;
    const auto times = all_in_turn(
        kRuns,
        {{[&] { take(*nothing, memory_.bytes()); }, [&] { forget(); }},
         {[&] { file.emplace(directory_), plain_full(memory_.bytes(), file->map().bytes()); }, [&] { file.reset(); }},
         {[&] { file.emplace(directory_), plain_full_written(memory_.bytes(), file->fd()); }, [&] { file.reset(); }},
         {[&] { plain_full(memory_.bytes(), warm); }},
         {[&] { take(*nothing, {}); }, [&] { forget(); }}});
    out["store.capture_full_ms"] = times[0] * 1e3;
    out["store.capture_full_plain_ms"] = times[1] * 1e3;
    out["store.capture_full_plain_written_ms"] = times[2] * 1e3;
    out["store.capture_full_plain_in_memory_ms"] = times[3] * 1e3;
    out["store.capture_full_fd_ms"] = times[4] * 1e3;
    out["store.capture_full_ratio"] = times[0] / times[1];
    out["store.capture_full_written_ratio"] = times[0] / times[2];
    out["store.capture_full_in_memory_ratio"] = times[0] / times[3];
    out["store.capture_full_fd_ratio"] = times[4] / times[1];
  }

  // The next one, with 5 % of the blocks changed. The parent has been read, and so verified, except where told.
  void diff(nlohmann::json& out) {
    const auto nothing = open(must(BlockMap::zeros(kMemory)));
    take(*nothing, memory_.bytes());
    const BlockMap map = taken_->map;
    taken_.reset();
    const auto parent = open(map);
    std::vector<std::byte> before(kMemory);
    must(parent->read(0, before));
    must(parent->read(0, before));
    Random random(3);
    for (uint64_t i = 0; i < kMemory / kBlockSize / 20; ++i) {
      memory_.bytes()[random.next() % (kMemory / kBlockSize) * kBlockSize + 5] ^= std::byte{0x55};
    }
    std::optional<FreshFile> file;
    auto fresh = open(map);
    uint64_t allocations = 0;
    const auto times = all_in_turn(
        kRuns, {{[&] {
                   const uint64_t start = allocated_bytes();
                   take(*parent, memory_.bytes());
                   allocations = allocated_bytes() - start;
                 },
                 [&] { forget(); }},
                {[&] { file.emplace(directory_), plain_diff(memory_.bytes(), before, file->map().bytes()); },
                 [&] { file.reset(); }},
                {[&] { take(*parent, {}); }, [&] { forget(); }},
                {[&] { take(*fresh, memory_.bytes()); }, [&] { forget(), fresh = open(map); }}});
    take(*parent, memory_.bytes());
    const uint64_t start = allocated_bytes();
    keep(BlockMap(taken_->map));
    const uint64_t of_map = allocated_bytes() - start;
    forget();
    out["store.capture_diff_ms"] = times[0] * 1e3;
    out["store.capture_diff_plain_ms"] = times[1] * 1e3;
    out["store.capture_diff_fd_ms"] = times[2] * 1e3;
    out["store.capture_diff_unverified_ms"] = times[3] * 1e3;
    out["store.capture_diff_ratio"] = times[0] / times[1];
    out["store.capture_diff_fd_ratio"] = times[2] / times[1];
    out["store.capture_diff_unverified_ratio"] = times[3] / times[1];
    out["store.capture_diff_allocated_bytes"] = allocations - of_map;
    out["store.capture_diff_map_allocated_bytes"] = of_map;
  }

 private:
  std::shared_ptr<AddressSpace> open(BlockMap map) const {
    return must(AddressSpace::open(store_.fs(), store_.layers_dir(), std::move(map)));
  }
  // From `memory`, or from the file if that is empty.
  void take(const AddressSpace& base, std::span<const std::byte> memory) {
    CaptureSource source{source_, everything_, {}};
    source.in_place = memory;
    taken_ = must(capture(store_.fs(), store_.layers_dir(), source, base));
  }
  void forget() {
    must(store_.fs().remove(layer_data_path(store_.layers_dir(), taken_->layer->id)));
    must(store_.fs().remove(layer_sums_path(store_.layers_dir(), taken_->layer->id)));
    taken_.reset();
  }

  const Path directory_;
  const Store store_ = must(Store::open(real_file_system(), directory_ / "store"));
  const UniqueFd fd_ = must(create_memory_file("bench", kMemory));
  const Mapping memory_ = must(Mapping::shared(fd_.get(), kMemory));
  const MemorySource source_ = MemorySource::of_file(must(duplicate(fd_.get())));
  const std::vector<Range> everything_{{0, kMemory}};
  std::optional<CaptureResult> taken_;
};

constexpr uint64_t kReadSize = uint64_t{256} << 20;

std::vector<uint64_t> all_blocks_in_random_order() {
  std::vector<uint64_t> order(kReadSize / kBlockSize);
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i * kBlockSize;
  Random random(11);
  for (uint64_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[random.next() % (i + 1)]);
  return order;
}

}  // namespace

void bench_capture(nlohmann::json& out, const Path& directory) {
  Bench bench(directory);
  bench.full(out);
  bench.diff(out);
}

// Every block of a layer of 256 MiB once, in random order: through an address space opened anew, so that every frame is
// verified in between; through one whose frames are all verified; and with pread.
void bench_read(nlohmann::json& out, const Path& directory) {
  FileSystem& fs = real_file_system();
  const Path layers = directory / "read";
  must(fs.make_directory(layers));
  const LayerId id = LayerId::random();
  auto writer = must(LayerWriter::create(fs, layers, id, kReadSize));
  std::vector<std::byte> frame(kFrameSize);
  Random random(9);
  for (uint64_t at = 0; at < kReadSize; at += kFrameSize) {
    for (uint64_t i = 0; i < kFrameSize; i += 8) {
      const uint64_t word = random.next();
      std::memcpy(frame.data() + i, &word, sizeof word);
    }
    must(writer->write(at, frame));
  }
  must(writer->finish());
  const std::vector<Change> changes{{{0, kReadSize}, false}};
  const BlockMap map = must(must(BlockMap::zeros(kReadSize)).merge(id, changes));
  const auto order = all_blocks_in_random_order();
  std::vector<std::byte> block(kBlockSize);
  const auto read_all = [&](const AddressSpace& space) {
    for (const uint64_t offset : order) must(space.read(offset, block));
  };
  auto fresh = must(AddressSpace::open(fs, layers, map));
  const auto verified = must(AddressSpace::open(fs, layers, map));
  read_all(*verified);
  const UniqueFd fd = must(fs.open_read(layer_data_path(layers, id)));
  const auto times =
      all_in_turn(kRuns, {{[&] { read_all(*fresh); }, [&] { fresh = must(AddressSpace::open(fs, layers, map)); }},
                          {[&] {
                            for (const uint64_t offset : order) must(fs.read_at(fd.get(), offset, block));
                          }},
                          {[&] { read_all(*verified); }}});
  const double to_ns = 1e9 / static_cast<double>(order.size());
  out["store.read_ns"] = times[0] * to_ns;
  out["store.read_plain_ns"] = times[1] * to_ns;
  out["store.read_verified_ns"] = times[2] * to_ns;
  out["store.read_ratio"] = times[0] / times[1];
  out["store.read_verified_ratio"] = times[2] / times[1];
  std::filesystem::remove_all(layers);
}

}  // namespace stasis::bench
