#include "files/report.h"

#include <algorithm>
#include <numeric>

#include "snapshot/wire.h"

namespace stasis::files {
namespace {

using snapshot::WireReader;
using snapshot::WireWriter;

constexpr uint32_t kMagic = 0x52464453;  // "SDFR"
constexpr uint32_t kError = 1;
constexpr uint32_t kChanges = 2;
constexpr size_t kMaxMessage = 4096;
constexpr size_t kFixedOfChange = 4 + 8 + 8 + 4 + 4;

void put(WireWriter& out, const FileChange& change) {
  const std::array<uint8_t, 4> bytes{static_cast<uint8_t>(change.kind), static_cast<uint8_t>(change.type_before),
                                     static_cast<uint8_t>(change.type_now), change.what};
  out.append(bytes.data(), bytes.size());
  out.u64(change.size_before);
  out.u64(change.size_now);
  out.u32(static_cast<uint32_t>(change.path.size()));
  out.u32(static_cast<uint32_t>(change.old_path.size()));
  out.append(change.path.data(), change.path.size());
  out.append(change.old_path.data(), change.old_path.size());
}

bool is_path(std::string_view path) {
  return path.starts_with('/') && path.size() <= kMaxPath && path.find('\0') == path.npos;
}

// A type before, now, and an old path are there when the kind says so.
bool is_consistent(const FileChange& change) {
  const bool before = change.type_before != FileType::kNone;
  const bool now = change.type_now != FileType::kNone;
  if (before != (change.kind != ChangeKind::kAdded) || now != (change.kind != ChangeKind::kRemoved)) return false;
  if (change.old_path.empty()) return change.kind != ChangeKind::kRenamed && is_path(change.path);
  const bool may_have_moved = before && now && change.kind != ChangeKind::kType;
  return may_have_moved && is_path(change.path) && is_path(change.old_path);
}

// Reads with bounds; once something is wrong everything is.
class Checked {
 public:
  explicit Checked(std::span<const std::byte> bytes) : left_(bytes.size()), reader_(bytes) {}
  bool take(size_t bytes) {
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }
  WireReader& reader() { return reader_; }
  size_t left() const { return left_; }

 private:
  size_t left_;
  WireReader reader_;
};

bool get_text(Checked& in, size_t length, std::string& out) {
  if (!in.take(length)) return false;
  out.resize(length);
  in.reader().copy(out.data(), length);
  return true;
}

bool get(Checked& in, FileChange& change) {
  if (!in.take(kFixedOfChange)) return false;
  std::array<uint8_t, 4> bytes{};
  in.reader().copy(bytes.data(), bytes.size());
  if (bytes[0] >= kChangeKinds || bytes[1] >= kFileTypes || bytes[2] >= kFileTypes || bytes[3] > 15) return false;
  change.kind = static_cast<ChangeKind>(bytes[0]);
  change.type_before = static_cast<FileType>(bytes[1]);
  change.type_now = static_cast<FileType>(bytes[2]);
  change.what = bytes[3];
  change.size_before = in.reader().u64();
  change.size_now = in.reader().u64();
  const uint32_t path = in.reader().u32();
  const uint32_t old_path = in.reader().u32();
  return get_text(in, path, change.path) && get_text(in, old_path, change.old_path) && is_consistent(change);
}

bool get(Checked& in, Report& report) {
  if (!in.take(kChangeKinds * 8 + 4)) return false;
  for (uint64_t& count : report.counts) {
    count = in.reader().u64();
    if (count > UINT32_MAX) return false;
  }
  const uint32_t told = in.reader().u32();
  if (told > kMaxChangesTold || told > in.left() / kFixedOfChange) return false;
  std::array<uint64_t, kChangeKinds> seen{};
  for (uint32_t i = 0; i < told; ++i) {
    FileChange change;
    if (!get(in, change)) return false;
    if (i > 0 && change.path <= report.changes.back().path) return false;
    ++seen[static_cast<size_t>(change.kind)];
    report.changes.push_back(std::move(change));
  }
  for (size_t kind = 0; kind < kChangeKinds; ++kind) {
    if (seen[kind] > report.counts[kind]) return false;
  }
  return in.left() == 0;
}

bool is_printable(char letter) { return letter >= ' ' && letter <= '~'; }

Error nonsense() { return {Code::kInternal, "stasis-files has answered nonsense"}; }

// The error that they tell; kInternal if they tell none.
Error get_error(Checked& in) {
  std::string message;
  if (in.take(8)) {
    const uint32_t code = in.reader().u32();
    const uint32_t length = in.reader().u32();
    const bool known = code >= 1 && code <= static_cast<uint32_t>(Code::kUnauthenticated);
    if (known && length <= kMaxMessage && get_text(in, length, message) && in.left() == 0 &&
        std::all_of(message.begin(), message.end(), is_printable)) {
      return {static_cast<Code>(code), std::move(message)};
    }
  }
  return nonsense();
}

}  // namespace

std::string_view change_kind_name(ChangeKind kind) {
  static constexpr std::string_view kNames[] = {"added", "removed", "modified", "metadata", "type", "renamed"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view file_type_name(FileType type) {
  static constexpr std::string_view kNames[] = {
      "", "file", "directory", "symlink", "character device", "block device", "fifo", "socket", "unknown"};
  return kNames[static_cast<size_t>(type)];
}

uint64_t Report::total() const { return std::accumulate(counts.begin(), counts.end(), uint64_t{0}); }

std::vector<std::byte> encode(const Result<Report>& report) {
  WireWriter out(1024);
  out.u32(kMagic);
  if (!report) {
    std::string message = report.error().message.substr(0, kMaxMessage);
    std::replace_if(
        message.begin(), message.end(), [](char letter) { return !is_printable(letter); }, '?');
    out.u32(kError);
    out.u32(static_cast<uint32_t>(report.error().code));
    out.u32(static_cast<uint32_t>(message.size()));
    out.append(message.data(), message.size());
    return out.take();
  }
  out.u32(kChanges);
  for (const uint64_t count : report->counts) out.u64(count);
  out.u32(static_cast<uint32_t>(report->changes.size()));
  for (const FileChange& change : report->changes) put(out, change);
  return out.take();
}

Result<Report> decode(std::span<const std::byte> bytes) {
  Checked in(bytes);
  Report report;
  if (bytes.size() <= kMaxReport && in.take(8) && in.reader().u32() == kMagic) {
    const uint32_t kind = in.reader().u32();
    if (kind == kChanges && get(in, report)) return report;
    if (kind == kError) return fail(get_error(in));
  }
  return fail(nonsense());
}

}  // namespace stasis::files
