#include "files/ext_io.h"

#include <et/com_err.h>

namespace stasis::files {
namespace {

// The manager's open() is told a name only: this is who is being opened.
thread_local ExtChannel* being_opened = nullptr;

}  // namespace

struct_io_manager ExtChannel::make_manager() {
  struct_io_manager manager{};
  manager.magic = EXT2_ET_MAGIC_IO_MANAGER;
  manager.name = "stasis";
  manager.open = open_channel;
  manager.close = close_channel;
  manager.set_blksize = set_block_size;
  manager.read_blk = read;
  manager.write_blk = write;
  manager.flush = flush;
  manager.read_blk64 = read64;
  manager.write_blk64 = write64;
  return manager;
}

errcode_t ExtChannel::open(int flags, ext2_filsys* out) {
  static struct_io_manager manager = make_manager();
  read_error_.reset();
  channel_ = {};
  channel_.magic = EXT2_ET_MAGIC_IO_CHANNEL;
  channel_.manager = &manager;
  channel_.block_size = 1024;
  channel_.refcount = 1;
  channel_.private_data = this;
  being_opened = this;
  const errcode_t code = ext2fs_open2("disk", nullptr, flags, 0, 0, &manager, out);
  being_opened = nullptr;
  return code;
}

Error ExtChannel::error(errcode_t code, std::string_view what) {
  if (read_error_) {
    Error error = std::move(*read_error_);
    read_error_.reset();
    return std::move(error).with_context(what);
  }
  initialize_ext2_error_table();
  const Code kind = code == EXT2_ET_NO_MEMORY ? Code::kResourceExhausted : Code::kDataLoss;
  return {kind, std::string(what) + ": " + ::error_message(code)};
}

errcode_t ExtChannel::open_channel(const char*, int, io_channel* out) {
  being_opened->channel_.name = const_cast<char*>("disk");
  *out = &being_opened->channel_;
  return 0;
}

errcode_t ExtChannel::close_channel(io_channel) { return 0; }

errcode_t ExtChannel::set_block_size(io_channel channel, int size) {
  channel->block_size = size;
  return 0;
}

errcode_t ExtChannel::read(io_channel channel, unsigned long block, int count, void* out) {
  return read64(channel, block, count, out);
}

// A negative count is one of bytes.
errcode_t ExtChannel::read64(io_channel channel, unsigned long long block, int count, void* out) {
  auto* self = static_cast<ExtChannel*>(channel->private_data);
  const auto block_size = static_cast<uint64_t>(channel->block_size);
  const uint64_t bytes =
      count < 0 ? static_cast<uint64_t>(-static_cast<int64_t>(count)) : static_cast<uint64_t>(count) * block_size;
  if (block > self->image_.size() / block_size) return EXT2_ET_SHORT_READ;
  const Status status = self->image_.read(block * block_size, {static_cast<std::byte*>(out), bytes});
  if (status) return 0;
  self->read_error_ = status.error();
  return EXT2_ET_SHORT_READ;
}

errcode_t ExtChannel::write(io_channel, unsigned long, int, const void*) { return EXT2_ET_RO_FILSYS; }
errcode_t ExtChannel::write64(io_channel, unsigned long long, int, const void*) { return EXT2_ET_RO_FILSYS; }
errcode_t ExtChannel::flush(io_channel) { return 0; }

}  // namespace stasis::files
