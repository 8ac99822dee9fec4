#include "agent/tokens.h"

namespace stasis::agent {
namespace {

constexpr uint64_t kMaxTokenBytes = 4096;

}  // namespace

Result<Tokens> Tokens::open(Path directory) {
  STASIS_TRY(real_file_system().make_directory(directory));
  return Tokens(std::move(directory));
}

Status Tokens::keep(snapshot::SnapshotId id, const std::string& token) const {
  return publish_file(real_file_system(), directory_ / id.text(), token);
}

std::string Tokens::find(snapshot::SnapshotId id) const {
  auto bytes = read_file(real_file_system(), directory_ / id.text(), kMaxTokenBytes);
  return bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()) : "";
}

void Tokens::forget(snapshot::SnapshotId id) const { (void)real_file_system().remove(directory_ / id.text()); }

}  // namespace stasis::agent
