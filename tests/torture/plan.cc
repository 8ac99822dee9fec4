#include "torture/plan.h"

#include "snapshot/testing/archived.h"

namespace stasis::snapshot::testing {
namespace {

constexpr size_t kManySnapshots = 6;

std::vector<Write> some_writes(Random& random, Bytes& content) {
  std::vector<Write> writes;
  const uint64_t blocks_in_all = content.size() / kBlockSize;
  for (uint64_t i = pick(random, 0, 3); i > 0; --i) {
    Write write{pick(random, 0, blocks_in_all - 8), {}, pick(random, 1, 8)};
    if (pick(random, 0, 2) > 0) write.bytes = random_bytes(random, write.count * kBlockSize);
    const auto at = content.begin() + static_cast<ptrdiff_t>(write.first_block * kBlockSize);
    if (write.bytes.empty()) {
      std::fill_n(at, write.count * kBlockSize, std::byte{0});
    } else {
      std::copy(write.bytes.begin(), write.bytes.end(), at);
    }
    writes.push_back(std::move(write));
  }
  return writes;
}

SnapshotId some_id(Random& random, const std::set<SnapshotId>& ids) {
  auto at = ids.begin();
  std::advance(at, static_cast<ptrdiff_t>(pick(random, 0, ids.size() - 1)));
  return *at;
}

}  // namespace

const char* name_of(Kind kind) {
  static constexpr const char* kNames[] = {"snapshot", "remove", "collect", "import", "import of an archive",
                                           "compact"};
  return kNames[static_cast<int>(kind)];
}

Plan make_plan(Random& random, const Listed& listed, Kind last) {
  Plan plan;
  std::set<SnapshotId> ids;
  std::set<SnapshotId> guests;
  for (const auto& [id, content] : listed) {
    ids.insert(id);
    if (content.memory.size() == kMemorySize) guests.insert(id);
  }
  Content guest{Bytes(kMemorySize), Bytes(kDiskSize)};
  if (!guests.empty() && pick(random, 0, 9) > 0) {
    plan.start = some_id(random, guests);
    guest = listed.at(*plan.start);
  }
  SnapshotId newest = plan.start.value_or(SnapshotId{});  // what the guest stands on: the one with the most layers
  const uint64_t before = pick(random, 0, 2);
  for (uint64_t i = 0; i <= before; ++i) {
    Step step;
    step.kind = i == before ? last : kKinds[pick(random, 0, std::size(kKinds) - 1)];
    if (i < before && ids.size() > kManySnapshots) step.kind = Kind::kRemove;
    if ((step.kind == Kind::kRemove || step.kind == Kind::kCompact) && ids.empty()) step.kind = Kind::kCollect;
    if (step.kind == Kind::kSnapshot) {
      step.id = SnapshotId::random();
      step.memory = some_writes(random, guest.memory);
      step.disk = some_writes(random, guest.disk);
      step.content = guest;
      newest = step.id;
      ids.insert(step.id);
    } else if (step.kind == Kind::kImportArchive) {
      step.id = SnapshotId::random();
      step.content = archived_guest().content;
      ids.insert(step.id);
    } else if (step.kind == Kind::kCompact) {
      step.id = ids.contains(newest) ? newest : some_id(random, ids);
    } else if (step.kind == Kind::kRemove) {
      step.id = some_id(random, ids);
      ids.erase(step.id);
    }
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

}  // namespace stasis::snapshot::testing
