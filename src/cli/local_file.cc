#include "cli/local_file.h"

#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/uuid.h"

namespace stasis::cli {
namespace fs = std::filesystem;
namespace {

constexpr size_t kChunk = size_t{256} << 10;

// Streams leave the reason of a failure in errno, if anywhere.
Error stream_error(const std::string& what) { return errno_error(errno != 0 ? errno : EIO, what); }

}  // namespace

LocalReader::LocalReader(std::ifstream stream, std::optional<uint64_t> size, Path path)
    : stream_(std::move(stream)), size_(size), path_(std::move(path)), chunk_(kChunk) {}

Result<LocalReader> LocalReader::open(const Path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) {
    return fail(Code::kInvalidArgument, path.string() + " is a directory",
                "copy single files, or an archive: tar -c DIR | stasis cp - ID:/tmp/dir.tar");
  }
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return fail(stream_error("open " + path.string()));
  std::optional<uint64_t> size;
  // Files of /proc say that they are empty.
  if (fs::is_regular_file(status)) size = fs::file_size(path, error);
  if (error || size == 0U) size.reset();
  return LocalReader(std::move(stream), size, path);
}

Result<std::span<const char>> LocalReader::next() {
  size_t want = chunk_.size();
  if (size_) want = static_cast<size_t>(std::min<uint64_t>(want, *size_ - read_));
  if (want == 0) return std::span<const char>();
  errno = 0;
  stream_.read(chunk_.data(), static_cast<std::streamsize>(want));
  const auto count = static_cast<size_t>(stream_.gcount());
  if (stream_.bad()) return fail(stream_error("read " + path_.string()));
  if (count == 0 && size_)
    return fail(Code::kAborted, path_.string() + " became shorter while it was copied",
                "try again when nothing writes to it");
  read_ += count;
  return std::span<const char>(chunk_.data(), count);
}

LocalWriter::LocalWriter(std::ofstream stream, Path target, Path temporary)
    : stream_(std::move(stream)), target_(std::move(target)), temporary_(std::move(temporary)) {}

Result<LocalWriter> LocalWriter::open(const Path& path) {
  std::error_code error;
  // A symbolic link stays one: what it points to is replaced.
  const Path resolved = fs::weakly_canonical(path, error);
  const Path target = error ? path : resolved;
  const fs::file_status status = fs::status(target, error);
  Path temporary;
  if (!fs::exists(status) || fs::is_regular_file(status)) {
    temporary = target.parent_path() / ("." + target.filename().string() + "." + Uuid::random().text());
  }
  errno = 0;
  std::ofstream stream(temporary.empty() ? target : temporary, std::ios::binary | std::ios::trunc);
  if (!stream) return fail(stream_error("write " + target.string()));
  return LocalWriter(std::move(stream), target, std::move(temporary));
}

LocalWriter::LocalWriter(LocalWriter&& other) noexcept
    : stream_(std::move(other.stream_)),
      target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, Path())) {}

LocalWriter::~LocalWriter() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove(temporary_, ignored);
}

Status LocalWriter::write(std::string_view bytes) {
  errno = 0;
  stream_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!stream_) return fail(stream_error("write " + target_.string()));
  return {};
}

Status LocalWriter::commit() {
  errno = 0;
  stream_.close();
  if (!stream_) return fail(stream_error("write " + target_.string()));
  if (temporary_.empty()) return {};
  std::error_code error;
  if (const auto status = fs::status(target_, error); fs::is_regular_file(status)) {
    fs::permissions(temporary_, status.permissions(), error);
  }
  fs::rename(temporary_, target_, error);
  if (error) return fail_errno(error.value(), "write " + target_.string());
  temporary_.clear();
  return {};
}

}  // namespace stasis::cli
