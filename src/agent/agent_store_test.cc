// The agent's calls about its store, with the image that it imported and snapshots of fake supervisors.
#include "agent/testing/agent_fixture.h"
#include "snapshot/store.h"
#include "snapshot/testing/fixtures.h"

namespace stasis::agent {
namespace {

using grpc::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AgentStoreTest : public AgentFixture {
 protected:
  struct Verified {
    grpc::Status status;
    std::vector<v1::Damage> damages;
    v1::VerifyDone done;
    v1::VerifyProgress last;
  };
  Verified verify(const std::vector<std::string>& ids) {
    grpc::ClientContext context;
    v1::VerifySnapshotsRequest request;
    for (const std::string& id : ids) request.add_snapshot_ids(id);
    const auto stream = stub_->VerifySnapshots(&context, request);
    Verified verified;
    for (v1::VerifyEvent event; stream->Read(&event);) {
      if (event.has_damage()) verified.damages.push_back(event.damage());
      if (event.has_progress()) verified.last = event.progress();
      if (event.has_done()) verified.done = event.done();
    }
    verified.status = stream->Finish();
    return verified;
  }
  v1::StoreUsage usage() {
    grpc::ClientContext context;
    v1::StoreUsage reply;
    EXPECT_TRUE(stub_->GetStoreUsage(&context, {}, &reply).ok());
    return reply;
  }
  v1::CollectStoreReply collect(bool dry_run) {
    grpc::ClientContext context;
    v1::CollectStoreRequest request;
    request.set_dry_run(dry_run);
    v1::CollectStoreReply reply;
    const grpc::Status status = stub_->CollectStore(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }
  grpc::Status inspect(const std::string& id, v1::SnapshotDetail& reply) {
    grpc::ClientContext context;
    v1::InspectSnapshotRequest request;
    request.set_snapshot_id(id);
    request.set_cells(8);
    return stub_->InspectSnapshot(&context, request, &reply);
  }
  grpc::Status diff(const std::string& from, const std::string& to, v1::SnapshotDiff& reply) {
    grpc::ClientContext context;
    v1::DiffSnapshotsRequest request;
    request.set_from_id(from);
    request.set_to_id(to);
    return stub_->DiffSnapshots(&context, request, &reply);
  }
  // A snapshot with nothing but this disk.
  std::string publish_disk(const Path& image) {
    const snapshot::Store store = snapshot::Store::open(real_file_system(), state() / "store").value();
    const auto lock = store.lock_shared();
    const snapshot::testing::Bytes bytes = snapshot::testing::read_whole_file(image);
    snapshot::Manifest manifest;
    manifest.id = snapshot::SnapshotId::random();
    EXPECT_TRUE(store.begin(manifest.id));
    const auto layer = snapshot::LayerId::random();
    auto writer = snapshot::LayerWriter::create(store.fs(), store.layers_dir(), layer, bytes.size()).value();
    EXPECT_TRUE(writer->write(0, bytes));
    EXPECT_TRUE(writer->finish());
    const snapshot::BlockMap map = snapshot::BlockMap::zeros(bytes.size())
                                       ->merge(layer, std::vector<snapshot::Change>{{{0, bytes.size()}, false}})
                                       .value();
    manifest.disk_map = store.write_map(manifest.id, "disk.map", map).value();
    EXPECT_TRUE(store.publish(manifest));
    return manifest.id.text();
  }
  // A small ext4 file system with one file of this content.
  Path make_disk(const std::string& name, const std::string& content) {
    const Path tree = root_.path() / (name + "-tree");
    std::filesystem::create_directories(tree);
    std::ofstream(tree / "hello") << content;
    const Path image = root_.path() / name;
    SpawnOptions options;
    options.argv = {"mke2fs", "-q", "-F", "-t", "ext4", "-d", tree.string(), image.string(), "2M"};
    options.env = {{"PATH", "/usr/sbin:/sbin:/usr/bin:/bin"}};
    auto process = spawn(options);
    EXPECT_TRUE(process && (*process->wait(Deadline::never()))->success());
    return image;
  }
  // Packs, or compacts.
  v1::CompactedSnapshot rewrite(const std::string& id, bool packed) {
    grpc::ClientContext context;
    v1::CompactStoreRequest request;
    request.set_snapshot_id(id);
    request.set_packed(packed);
    v1::CompactStoreReply reply;
    const grpc::Status status = stub_->CompactStore(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.snapshots_size() == 1 ? reply.snapshots(0) : v1::CompactedSnapshot();
  }
  Path layers() const { return state() / "store/layers"; }
  Path only_layer() const {
    for (const auto& entry : std::filesystem::directory_iterator(layers())) {
      if (entry.path().extension() == ".raw") return entry.path();
    }
    return {};
  }
};

TEST_F(AgentStoreTest, AVerificationFindsTheDamagedFrame) {
  const std::string image = base_image();
  v1::SnapshotDetail detail;
  ASSERT_TRUE(inspect(image, detail).ok());
  ASSERT_EQ(detail.spaces_size(), 1);
  EXPECT_TRUE(detail.spaces(0).layers(0).verified()) << "this host has written it";

  Verified whole = verify({});
  ASSERT_TRUE(whole.status.ok()) << whole.status.error_message();
  EXPECT_EQ(whole.done.damages(), 0U);
  EXPECT_EQ(whole.done.layers(), 1U);
  EXPECT_EQ(whole.last.bytes(), whole.last.total_bytes());
  EXPECT_EQ(verify({image}).done.bytes(), whole.done.bytes());

  std::filesystem::permissions(only_layer(), std::filesystem::perms(0600));
  std::fstream(only_layer(), std::ios::in | std::ios::out).put('y');
  const Verified damaged = verify({image});
  ASSERT_TRUE(damaged.status.ok());
  EXPECT_EQ(damaged.done.damages(), 1U);
  ASSERT_EQ(damaged.damages.size(), 1U);
  EXPECT_EQ(damaged.damages[0].file(), only_layer().string());
  EXPECT_EQ(damaged.damages[0].frame(), 0U);
  EXPECT_THAT(damaged.damages[0].snapshot_ids(), ElementsAre(image));
  ASSERT_TRUE(inspect(image, detail).ok());
  EXPECT_FALSE(detail.spaces(0).layers(0).verified());

  EXPECT_EQ(verify({Uuid::random().text()}).status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(verify({"../../etc"}).status.error_code(), StatusCode::INVALID_ARGUMENT);
}

// As a scrubber leaves it in the middle of its second pass.
TEST_F(AgentStoreTest, WhatTheScrubberHasFoundIsTold) {
  const auto scrub_state = [&] {
    grpc::ClientContext context;
    v1::ScrubState reply;
    EXPECT_TRUE(stub_->GetScrubState(&context, {}, &reply).ok());
    return reply;
  };
  EXPECT_EQ(scrub_state().started_unix_ms(), 0);
  stop_agent();
  std::ofstream(state() / "scrub.json") << R"({"started_unix_ms": 2000, "finished_unix_ms": 1000, "under_way": true,
      "bytes": 77, "done": "00000000-0000-0000-0000-000000000000", "damaged": ["/b", "/c"], "damaged_before": ["/a", "/b"]})";
  start_agent();
  const v1::ScrubState found = scrub_state();
  EXPECT_EQ(found.started_unix_ms(), 2000);
  EXPECT_EQ(found.finished_unix_ms(), 1000);
  EXPECT_TRUE(found.under_way());
  EXPECT_EQ(found.checked_bytes(), 77U);
  EXPECT_THAT(found.damaged(), ElementsAre("/a", "/b", "/c"));
}

TEST_F(AgentStoreTest, PackingTellsWhatItSavedAndLeavesWhatASandboxNeeds) {
  const std::string image = base_image();
  const v1::CompactedSnapshot packed = rewrite(image, true);
  EXPECT_EQ(packed.spaces(), 1U);
  EXPECT_GT(packed.stored_before(), 0U);
  EXPECT_GT(packed.stored_after(), 0U);
  v1::SnapshotDetail detail;
  ASSERT_TRUE(inspect(image, detail).ok());
  EXPECT_EQ(detail.spaces(0).layers(0).form(), "zstd");
  EXPECT_EQ(rewrite(image, true).spaces(), 0U);
  const Verified whole = verify({image});
  ASSERT_TRUE(whole.status.ok()) << whole.status.error_message();
  EXPECT_EQ(whole.done.damages(), 0U);
  EXPECT_EQ(rewrite(image, false).spaces(), 1U) << "raw again";
  ASSERT_TRUE(inspect(image, detail).ok());
  EXPECT_EQ(detail.spaces(0).layers(0).form(), "raw");
  ASSERT_TRUE(create("one").ok());
  // What a real supervisor writes down of the disk that it serves.
  const snapshot::Store store = snapshot::Store::open(real_file_system(), state() / "store").value();
  const snapshot::SnapshotId id{Uuid::parse(image).value()};
  const std::string map = store.load(id)->disk_map->file;
  std::filesystem::copy_file(store.snapshot_dir(id) / map, state() / "sandboxes/one/disk.map");
  EXPECT_EQ(rewrite(image, true).spaces(), 0U) << "the sandbox stands on it";

  grpc::ClientContext context;
  v1::CompactStoreRequest request;
  request.set_packed(true);
  v1::CompactStoreReply reply;
  EXPECT_EQ(stub_->CompactStore(&context, request, &reply).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(AgentStoreTest, UsageAndCollectionAgree) {
  // The agent collects once by itself when it has started: not between what follows.
  const Path early = layers() / (Uuid::random().text() + ".raw.tmp");
  std::ofstream(early) << "x";
  ASSERT_TRUE(eventually([&] { return !std::filesystem::exists(early); }));
  const v1::StoreUsage before = usage();
  ASSERT_EQ(before.holders_size(), 1);
  EXPECT_EQ(before.holders(0).kind(), "image");
  EXPECT_GT(before.holders(0).own_bytes(), 4096U);
  EXPECT_LE(before.holders(0).own_bytes(), before.total_bytes());
  EXPECT_EQ(before.reclaimable_bytes(), 0U);

  std::ofstream(layers() / (Uuid::random().text() + ".raw.tmp")) << std::string(8192, 'x');
  const uint64_t reclaimable = usage().reclaimable_bytes();
  EXPECT_GE(reclaimable, 8192U);
  const v1::CollectStoreReply planned = collect(true);
  EXPECT_EQ(planned.bytes(), reclaimable);
  ASSERT_EQ(planned.removed_size(), 1);
  EXPECT_TRUE(std::filesystem::exists(state() / "store" / planned.removed(0).file()));
  EXPECT_EQ(collect(false).bytes(), reclaimable);
  EXPECT_FALSE(std::filesystem::exists(state() / "store" / planned.removed(0).file()));
  EXPECT_EQ(usage().reclaimable_bytes(), 0U);
  EXPECT_TRUE(std::filesystem::exists(only_layer()));
}

TEST_F(AgentStoreTest, TheFilesOfTwoDisksThatDiffer) {
  const std::string one = publish_disk(make_disk("one", "hello"));
  const std::string two = publish_disk(make_disk("two", "other"));
  v1::SnapshotDiff reply;
  ASSERT_TRUE(diff(one, two, reply).ok());
  ASSERT_EQ(reply.spaces_size(), 1);
  const v1::FileChanges& files = reply.spaces(0).files();
  EXPECT_EQ(files.note(), "");
  EXPECT_EQ(files.modified(), 1U);
  ASSERT_EQ(files.changes_size(), 1);
  EXPECT_EQ(files.changes(0).path(), "/hello");
  EXPECT_EQ(files.changes(0).change(), "modified");
  EXPECT_EQ(files.changes(0).size_now(), 5U);
  EXPECT_TRUE(files.changes(0).content());
  EXPECT_FALSE(files.changes(0).mode());
}

TEST_F(AgentStoreTest, WhereFilesCannotBeToldTheBlocksAreAndANoteSaysWhy) {
  const std::string disk = publish_disk(make_disk("one", "hello"));
  v1::SnapshotDiff reply;
  ASSERT_TRUE(diff(disk, base_image(), reply).ok());
  EXPECT_GT(reply.spaces(0).changed_bytes(), 0U);
  EXPECT_THAT(reply.spaces(0).files().note(), HasSubstr("holds no ext2, ext3 or ext4 file system"));

  stop_agent();
  files_program_ = root_.path() / "dies";
  std::ofstream(files_program_) << "#!/bin/sh\nkill -9 $$\n";
  std::filesystem::permissions(files_program_, std::filesystem::perms(0700));
  start_agent();
  ASSERT_TRUE(diff(disk, base_image(), reply).ok());
  EXPECT_GT(reply.spaces(0).changed_bytes(), 0U);
  EXPECT_EQ(reply.spaces(0).files().note(), "stasis-files has ended: signal 9 (Killed)");
}

TEST_F(AgentStoreTest, ACancelledComparisonOfFilesLeavesNoProcess) {
  const std::string disk = publish_disk(make_disk("one", "hello"));
  const std::string image = base_image();
  stop_agent();
  files_program_ = root_.path() / "hangs";
  const Path pid_file = root_.path() / "pid";
  std::ofstream(files_program_) << "#!/bin/sh\necho $$ > " << pid_file.string() << ".tmp\nmv " << pid_file.string()
                                << ".tmp " << pid_file.string() << "\nexec sleep 1000\n";
  std::filesystem::permissions(files_program_, std::filesystem::perms(0700));
  start_agent();
  grpc::ClientContext context;
  auto call = std::async(std::launch::async, [&] {
    v1::DiffSnapshotsRequest request;
    request.set_from_id(disk);
    request.set_to_id(image);
    v1::SnapshotDiff reply;
    return stub_->DiffSnapshots(&context, request, &reply).error_code();
  });
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(pid_file); }));
  pid_t pid = 0;
  std::ifstream(pid_file) >> pid;
  const auto process = open_pidfd(pid);
  ASSERT_TRUE(process);
  context.TryCancel();
  EXPECT_EQ(call.get(), StatusCode::CANCELLED);
  EXPECT_TRUE(*wait_readable(process->get(), Deadline::after(Milliseconds(20'000))));
}

TEST_F(AgentStoreTest, ASandboxSharesItsImage) {
  ASSERT_TRUE(create("one").ok());
  const std::string snapshot = Uuid::random().text();
  ASSERT_TRUE(take_snapshot("one", snapshot).ok());
  std::map<std::string, v1::StoreHolder> holders;
  const v1::StoreUsage all = usage();
  for (const v1::StoreHolder& holder : all.holders()) holders[holder.id()] = holder;
  EXPECT_EQ(holders.size(), 3U);
  EXPECT_EQ(holders["one"].kind(), "sandbox");
  EXPECT_EQ(holders[snapshot].kind(), "snapshot");
  v1::SnapshotDetail detail;
  ASSERT_TRUE(inspect(snapshot, detail).ok());
  EXPECT_EQ(detail.info().snapshot_id(), snapshot);
  EXPECT_EQ(inspect(Uuid::random().text(), detail).error_code(), StatusCode::NOT_FOUND);
  v1::SnapshotDiff same;
  ASSERT_TRUE(diff(snapshot, snapshot, same).ok());
  for (const v1::SpaceDiff& space : same.spaces()) {
    EXPECT_EQ(space.changed_bytes(), 0U);
    EXPECT_EQ(space.compared_bytes(), 0U);
  }
  EXPECT_EQ(diff(snapshot, Uuid::random().text(), same).error_code(), StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace stasis::agent
