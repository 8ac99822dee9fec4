// For the tests of this room: a store's directories with a disk on them, and the content that it should have.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/testing/temp_dir.h"
#include "disk/cow_disk.h"

namespace stasis::disk {

using Bytes = std::vector<std::byte>;

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
inline void must(const Status& status) {
  if (!status) throw std::runtime_error(status.error().message);
}

inline Bytes random_bytes(std::mt19937_64& random, size_t length) {
  Bytes result(length);
  for (std::byte& byte : result) byte = static_cast<std::byte>(random() >> 56);
  return result;
}

// Directories on one file system, as the store and a sandbox have them.
struct Directories {
  explicit Directories(const Path& root) : layers(root / "layers"), work(root / "work") {
    must(real_file_system().make_directory(layers));
    must(real_file_system().make_directory(work));
  }
  Path layers;
  Path work;
};

// Generation 1 of an address space: `content`, whose blocks of zeros are not stored.
inline std::shared_ptr<const snapshot::AddressSpace> make_base(const Path& layers, const Bytes& content) {
  using namespace snapshot;
  FileSystem& fs = real_file_system();
  const LayerId id = LayerId::random();
  auto writer = must(LayerWriter::create(fs, layers, id, content.size()));
  std::vector<Change> changes;
  for (uint64_t offset = 0; offset < content.size(); offset += kBlockSize) {
    const auto block = std::span(content).subspan(offset, kBlockSize);
    if (std::all_of(block.begin(), block.end(), [](std::byte byte) { return byte == std::byte{}; })) continue;
    must(writer->write(offset, block));
    changes.push_back({{offset, kBlockSize}, false});
  }
  must(writer->finish());
  BlockMap map = must(must(BlockMap::zeros(content.size())).merge(id, changes));
  return must(AddressSpace::open(fs, layers, std::move(map)));
}

inline std::shared_ptr<const snapshot::AddressSpace> make_zero_base(const Path& layers, uint64_t size) {
  return must(snapshot::AddressSpace::open(real_file_system(), layers, must(snapshot::BlockMap::zeros(size))));
}

inline Status keep_nothing(const snapshot::BlockMap&) { return {}; }

inline Bytes content_of(const CowDisk& disk) {
  Bytes result(disk.size());
  must(disk.read(0, result));
  return result;
}

inline Bytes content_of(const Path& layers, const snapshot::BlockMap& map) {
  auto space = must(snapshot::AddressSpace::open(real_file_system(), layers, map));
  Bytes result(space->size());
  must(space->read(0, result));
  return result;
}

}  // namespace stasis::disk
