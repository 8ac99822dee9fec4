// The manifest: what one snapshot, or one image, consists of. It is written last, so a directory without one is
// rubbish. The file is a binary envelope (magic, version, length, CRC; docs/format.md) around one JSON object, so that
// a reader of a later version can add fields; parse() limits everything it reads.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "snapshot/block_map.h"

namespace stasis::snapshot {

struct SnapshotId {
  Uuid uuid;
  static SnapshotId random() { return {Uuid::random()}; }
  bool is_nil() const { return uuid.is_nil(); }
  std::string text() const { return uuid.text(); }
  friend auto operator<=>(const SnapshotId&, const SnapshotId&) = default;
};

inline constexpr char kManifestFile[] = "manifest";
inline constexpr uint64_t kMaxManifestSize = 64 * 1024;

enum class SnapshotKind { kImage, kSnapshot };

// One file of the snapshot's directory.
struct Part {
  std::string file;       // a plain name, no slash
  uint64_t size = 0;      // bytes
  uint64_t checksum = 0;  // XXH3-64 of the whole file
  friend bool operator==(const Part&, const Part&) = default;
};

// True for a name that a part may have: no slash, no manifest, no temporary file, at most 255 bytes.
bool is_part_name(std::string_view name);

// What a restored VM must be given, exactly. Zero for an image: its sandboxes choose.
struct MachineShape {
  uint32_t vcpus = 0;
  uint32_t memory_mib = 0;
  friend bool operator==(const MachineShape&, const MachineShape&) = default;
};

// What one capture stored, kept for people: bytes of this generation.
struct GenerationStats {
  uint64_t generation = 0;
  uint64_t stored_bytes = 0;
  uint64_t zeroed_bytes = 0;
  uint64_t compared_bytes = 0;
  friend bool operator==(const GenerationStats&, const GenerationStats&) = default;
};

struct Manifest {
  SnapshotId id;
  SnapshotKind kind = SnapshotKind::kSnapshot;
  SnapshotId parent;  // nil: none
  int64_t created_unix_ms = 0;
  MachineShape machine;
  std::string vmm;  // "qemu", "firecracker"; empty for an image
  std::string vmm_version;
  std::string kernel;  // release, e.g. "6.1.0-40-cloud-amd64"
  std::string cpu_model;
  std::optional<Part> vm_state;    // snapshots
  std::optional<Part> memory_map;  // snapshots
  std::optional<Part> disk_map;    // both
  std::optional<Part> vmlinux;     // images
  std::optional<Part> initrd;      // images
  GenerationStats memory;
  GenerationStats disk;

  // Those that are there; of all of them the block maps.
  std::vector<Part> parts() const;
  std::vector<Part> maps() const;

  std::vector<std::byte> encode() const;
  // kDataLoss for anything that is not a whole manifest of a known version.
  static Result<Manifest> decode(std::span<const std::byte> bytes);
  friend bool operator==(const Manifest&, const Manifest&) = default;
};

}  // namespace stasis::snapshot
