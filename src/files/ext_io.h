// The channel through which libext2fs reads a disk image. Read-only: every write is an error.
#pragma once

#include <ext2fs/ext2fs.h>

#include <optional>

#include "files/disk_image.h"

namespace stasis::files {

class ExtChannel {
 public:
  explicit ExtChannel(DiskImage& image) : image_(image) {}
  ExtChannel(const ExtChannel&) = delete;
  ExtChannel& operator=(const ExtChannel&) = delete;

  // ext2fs_open2() of the image, with these flags. The channel outlives the file system.
  errcode_t open(int flags, ext2_filsys* out);
  DiskImage& image() { return image_; }
  // What libext2fs has said, as an Error: that of the read behind it, if one failed.
  Error error(errcode_t code, std::string_view what);

 private:
  static errcode_t open_channel(const char* name, int flags, io_channel* out);
  static errcode_t close_channel(io_channel channel);
  static errcode_t set_block_size(io_channel channel, int size);
  static errcode_t read(io_channel channel, unsigned long block, int count, void* out);
  static errcode_t read64(io_channel channel, unsigned long long block, int count, void* out);
  static errcode_t write(io_channel channel, unsigned long block, int count, const void* data);
  static errcode_t write64(io_channel channel, unsigned long long block, int count, const void* data);
  static errcode_t flush(io_channel channel);
  static struct_io_manager make_manager();

  DiskImage& image_;
  struct_io_channel channel_{};
  std::optional<Error> read_error_;
};

}  // namespace stasis::files
