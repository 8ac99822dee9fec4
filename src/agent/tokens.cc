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

void Tokens::sweep(const std::function<bool(snapshot::SnapshotId)>& is_published) const {
  const auto names = real_file_system().list(directory_);
  if (!names) return;
  for (const std::string& name : *names) {
    const auto uuid = Uuid::parse(name);
    if (!uuid || !is_published({*uuid})) (void)real_file_system().remove(directory_ / name);
  }
}

}  // namespace stasis::agent
