// Files of this machine that `cp` reads and writes. What is written appears whole or not at all: it goes to a temporary
// file beside the target, which takes the target's place at the end.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"

namespace stasis::cli {

class LocalReader {
 public:
  // kInvalidArgument for a directory.
  static Result<LocalReader> open(const Path& path);
  // Absent for a pipe or a device.
  std::optional<uint64_t> size() const { return size_; }
  // The next bytes; an empty span at the end. kAborted if the file became shorter than it was.
  Result<std::span<const char>> next();

 private:
  LocalReader(std::ifstream stream, std::optional<uint64_t> size, Path path);
  std::ifstream stream_;
  std::optional<uint64_t> size_;
  uint64_t read_ = 0;
  Path path_;
  std::vector<char> chunk_;
};

class LocalWriter {
 public:
  static Result<LocalWriter> open(const Path& path);
  LocalWriter(LocalWriter&& other) noexcept;
  LocalWriter& operator=(LocalWriter&&) = delete;
  LocalWriter(const LocalWriter&) = delete;
  LocalWriter& operator=(const LocalWriter&) = delete;
  ~LocalWriter();  // removes the temporary file, unless commit() was called

  Status write(std::string_view bytes);
  Status commit();

 private:
  LocalWriter(std::ofstream stream, Path target, Path temporary);
  std::ofstream stream_;
  Path target_;
  Path temporary_;  // empty: the target is written to directly, because it is no regular file
};

}  // namespace stasis::cli
