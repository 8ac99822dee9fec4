// Processes that use a store are killed with SIGKILL at every call to the file system of every operation, one after the
// other, on the same store. After each a fresh process finds every listed snapshot whole, those that were published
// among them, nothing else listed, and after a collection nothing else there.
//   STASIS_TORTURE_KILLS=N (default 40) STASIS_TORTURE_SEED=S STASIS_TORTURE_PROGRESS=1
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <sstream>

#include "base/testing/in_child.h"
#include "base/testing/setting.h"
#include "snapshot/compact.h"
#include "snapshot/testing/archived.h"
#include "torture/killing_file_system.h"
#include "torture/plan.h"

namespace stasis::snapshot::testing {
namespace {

using stasis::testing::ChildEnd;
using stasis::testing::KillingFileSystem;
using stasis::testing::run_child;
using stasis::testing::setting;
using stasis::testing::Tell;

void must(const Status& status) {
  if (!status) throw std::runtime_error(status.error().message);
}

// The process that is killed. It does what the plan says and tells what it has done: "done" and, of an import, the id.
class Victim {
 public:
  Victim(FaultyStore& store, const ImageFiles& image, const Listed& listed, const Plan& plan)
      : image_(image), plan_(plan), store_(Store::open(fs_, store.root).value()) {
    if (!plan.start) {
      disk_ = std::make_unique<Disk>(store, kDiskSize);
      return;
    }
    const Content& content = listed.at(*plan.start);
    const Manifest manifest = store_.load(*plan.start).value();
    memory_map_ = store_.read_map(manifest.id, *manifest.memory_map).value();
    memory_.write(0, content.memory);
    disk_ = std::make_unique<Disk>(store, store_.read_map(manifest.id, *manifest.disk_map).value(), content.disk);
  }

  // Dies at the n-th call of the last step, if it makes so many.
  void run(uint64_t n, const Tell& tell) {
    for (const Step& step : plan_.steps) {
      fs_.kill_at(&step == &plan_.steps.back() ? n : 0);
      tell("done " + run(step) + "\n");
    }
  }

 private:
  std::string run(const Step& step) {
    switch (step.kind) {
      case Kind::kSnapshot:
        change(step);
        must(snapshot_all(store_, step.id, memory_, memory_map_, *disk_, {memory_.whole()}));
        return step.id.text();
      case Kind::kRemove:
        must(store_.remove(step.id));
        return step.id.text();
      case Kind::kCollect:
        if (auto collected = store_.collect(std::vector<BlockMap>{memory_map_, disk_->map}); !collected) {
          throw std::runtime_error(collected.error().message);
        }
        return "-";
      case Kind::kImportArchive:
        // Always the same stream: what a victim has kept the next one goes on with.
        if (auto imported = import_archived_in_two(store_, step.id, kStream); !imported) {
          throw std::runtime_error(imported.error().message);
        }
        must(forget_kept_import(store_, kStream));
        return step.id.text();
      case Kind::kCompact:
        if (auto compacted = compact(store_, step.id); !compacted) {
          throw std::runtime_error(compacted.error().message);
        }
        return step.id.text();
      case Kind::kImport:
        break;
    }
    auto imported = import_image(store_, image_);
    if (!imported) throw std::runtime_error(imported.error().message);
    return imported->id.text();
  }

  void change(const Step& step) {
    for (const Write& write : step.memory) {
      memory_.write(write.first_block * kBlockSize,
                    write.bytes.empty() ? Bytes(write.count * kBlockSize) : write.bytes);
    }
    for (const Write& write : step.disk) {
      if (write.bytes.empty()) {
        disk_->discard(write.first_block, write.count);
      } else {
        disk_->write(write.first_block, write.bytes);
      }
    }
  }

  static constexpr Uuid kStream{{1, 2, 3}};
  const ImageFiles& image_;
  const Plan& plan_;
  KillingFileSystem fs_;
  Store store_;
  Memory memory_{kMemorySize};
  BlockMap memory_map_ = BlockMap::zeros(kMemorySize).value();
  std::unique_ptr<Disk> disk_;
};

class StoreKillTest : public ::testing::Test {
 protected:
  StoreKillTest() {
    for (const Path& path : {image_.vmlinux, image_.initrd, image_.root_disk}) write_whole_file(path, image_disk_);
    store_.arriving = archived_guest().archive;
  }

  // One process, killed at call n of its last step of `kind`. Returns false if it made fewer calls, and lived.
  bool kill(Kind kind, uint64_t n) {
    const Plan plan = make_plan(random_, listed_, kind);
    const ChildEnd end = run_child([&](const Tell& tell) { Victim(store_, image_, listed_, plan).run(n, tell); });
    const bool killed = WIFSIGNALED(end.wait_status) && WTERMSIG(end.wait_status) == SIGKILL;
    EXPECT_TRUE(killed || end.wait_status == 0) << end.text;
    const std::set<SnapshotId> certain = account(plan, end.text);
    const ChildEnd found = run_child([&](const Tell& tell) { verify(certain, tell); });
    EXPECT_EQ(found.wait_status, 0) << found.text;
    if (!HasFailure()) keep_listed(found.text);
    return killed;
  }

  static constexpr uint64_t kStride = 7;  // of a short run: spread over the operation

 private:
  static bool makes_guest(const Step& step) {
    return step.kind == Kind::kSnapshot || step.kind == Kind::kImportArchive;
  }

  // What the victim has told is certain; of the step in which it died either is possible.
  std::set<SnapshotId> account(const Plan& plan, const std::string& told) {
    std::set<SnapshotId> certain;
    for (const auto& [id, content] : listed_) certain.insert(id);
    std::istringstream lines(told);
    std::string word;
    std::string id;
    size_t done = 0;
    for (; lines >> word >> id && done < plan.steps.size(); ++done) {
      const Step& step = plan.steps[done];
      if (makes_guest(step)) listed_[step.id] = step.content;
      if (step.kind == Kind::kImport) listed_[{Uuid::parse(id).value()}] = {{}, image_disk_};
      if (step.kind == Kind::kRemove) listed_.erase(step.id), certain.erase(step.id);
      if (makes_guest(step) || step.kind == Kind::kImport) certain.insert({Uuid::parse(id).value()});
    }
    importing_ = false;
    if (done < plan.steps.size()) {
      const Step& step = plan.steps[done];
      if (makes_guest(step)) listed_[step.id] = step.content;
      if (step.kind == Kind::kRemove) certain.erase(step.id);
      importing_ = step.kind == Kind::kImport;
    }
    return certain;
  }

  // In a fresh process: the ids of what is listed, before and after a collection.
  void verify(const std::set<SnapshotId>& certain, const Tell& tell) {
    store_.healthy = Store::open(store_.quiet, store_.root).value();
    const std::vector<SnapshotId> ids = store_.healthy.list().value();
    for (const SnapshotId id : ids) {
      if (importing_ && !listed_.contains(id) && store_.healthy.load(id).value().kind == SnapshotKind::kImage) {
        listed_[id] = {{}, image_disk_};
        importing_ = false;
      }
    }
    store_.expect_listed_snapshots_whole(listed_);
    const auto collected = store_.healthy.collect(std::vector<BlockMap>{});
    EXPECT_TRUE(collected) << collected.error().message;
    store_.expect_listed_snapshots_whole(listed_);
    store_.expect_nothing_else();
    EXPECT_EQ(store_.healthy.list().value(), ids);
    for (const SnapshotId id : certain)
      EXPECT_TRUE(std::binary_search(ids.begin(), ids.end(), id)) << "lost: " << id.text();
    if (HasFailure()) throw std::runtime_error("what was found is printed above");
    for (const SnapshotId id : ids) tell(id.text() + "\n");
  }

  void keep_listed(const std::string& ids) {
    Listed now;
    std::istringstream lines(ids);
    for (std::string text; lines >> text;) {
      const SnapshotId id{Uuid::parse(text).value()};
      now[id] = listed_.contains(id) ? listed_[id] : Content{{}, image_disk_};
    }
    listed_ = std::move(now);
  }

 protected:
  const uint64_t seed_ = setting("STASIS_TORTURE_SEED", 1);

 private:
  Random random_{seed_};
  FaultyStore store_;
  const ImageFiles image_{store_.dir.path() / "vmlinux", store_.dir.path() / "initrd", store_.dir.path() / "disk", "6"};
  const Bytes image_disk_ = random_bytes(random_, 3 * kBlockSize);
  Listed listed_;
  bool importing_ = false;
};

TEST_F(StoreKillTest, WhatIsListedSurvivesAKillAtAnyCall) {
  const uint64_t wanted = setting("STASIS_TORTURE_KILLS", 40);
  const uint64_t stride = wanted < 400 ? kStride : 1;
  const bool progress = setting("STASIS_TORTURE_PROGRESS", 0) != 0;
  struct Coverage {
    uint64_t next = 1;
    uint64_t kills = 0;
    uint64_t passes = 0;  // every call (of a stride) has been met so often
  };
  std::map<Kind, Coverage> coverage;
  uint64_t kills = 0;
  for (uint64_t round = 0; kills < wanted && !HasFailure(); ++round) {
    // Snapshots make the most calls.
    static constexpr Kind kOrder[] = {Kind::kSnapshot, Kind::kImport,  Kind::kCompact, Kind::kImportArchive,
                                      Kind::kSnapshot, Kind::kCollect, Kind::kCompact, Kind::kRemove};
    const Kind kind = kOrder[round % std::size(kOrder)];
    Coverage& of = coverage[kind];
    SCOPED_TRACE("seed " + std::to_string(seed_) + ", kill " + std::to_string(kills + 1) + ": call " +
                 std::to_string(of.next) + " of " + name_of(kind));
    if (kill(kind, of.next)) {
      of.next += stride;
      ++of.kills;
      if (++kills % 50 == 0 && progress) std::fprintf(stderr, "torture: %lu kills, seed %lu\n", kills, seed_);
    } else {
      of.next = 1 + ++of.passes % stride;
    }
  }
  for (const auto& [kind, of] : coverage) {
    RecordProperty(name_of(kind), static_cast<int>(of.kills));
    if (progress) std::fprintf(stderr, "torture: %s: %lu kills, %lu passes\n", name_of(kind), of.kills, of.passes);
  }
}

}  // namespace
}  // namespace stasis::snapshot::testing
