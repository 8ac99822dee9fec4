// The device state of a QEMU machine as it is kept on disk: QEMU's migration stream behind a header with its length and
// checksum. QEMU itself notices only some damage: a changed byte in what it streams of its ROM loads without a word.
//   "STQEMU01", u64 length of the stream, u32 CRC-32C of the stream, u32 CRC-32C of the 20 bytes before; then the
//   stream
#pragma once

#include "base/fd.h"
#include "base/file_system.h"
#include "base/result.h"

namespace stasis::vmm {

// Device state is about 250 KB; this bounds what a damaged file can make anybody read.
inline constexpr uint64_t kMaxDeviceState = 64 << 20;

// Writes a new file with everything that the memory file `stream` holds. The caller syncs. kAlreadyExists if there is
// one; after any other failure there is none.
Status write_state_file(FileSystem& fs, const Path& path, int stream);

// A memory file that holds the stream, positioned at its start. kNotFound if there is no file, kDataLoss unless it is
// whole and as it was written.
Result<UniqueFd> read_state_file(FileSystem& fs, const Path& path);

}  // namespace stasis::vmm
