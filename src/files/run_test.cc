// The program as the agent runs it, and programs that behave otherwise. Needs root.
#include "files/run.h"

#include <gmock/gmock.h>

#include "files/testing/ext_disk.h"

namespace stasis::files {
namespace {

using ::testing::ElementsAre;

bool always() { return true; }

class RunTest : public testing::ExtDiskTest {
 protected:
  RunTest() {
    write_file("tree/file", "content");
    write_file("tree/script", "old");
    write_file("new", "new content");
  }
  snapshot::SnapshotId publish(const Path& image, const snapshot::AddressSpace* base = nullptr) {
    snapshot::Manifest manifest;
    manifest.id = snapshot::SnapshotId::random();
    EXPECT_TRUE(store_.begin(manifest.id));
    manifest.disk_map = store_.write_map(manifest.id, "disk.map", disk(image, base)->map()).value();
    EXPECT_TRUE(store_.publish(manifest));
    return manifest.id;
  }
  Question question(snapshot::SnapshotId from, snapshot::SnapshotId to) const {
    return {*executable_directory() / "stasis-files", store_.root(), from, to};
  }
  // What comes of a shell script in the program's place.
  Result<Report> ask_script(const std::string& script, const std::function<bool()>& go_on = always,
                            Milliseconds limit = kTimeLimit) {
    write_file("script", "#!/bin/sh\n" + script + "\n");
    std::filesystem::permissions(path("script"), std::filesystem::perms(0700));
    return ask({path("script"), store_.root(), {}, {}, limit}, go_on);
  }
};

TEST_F(RunTest, TheProgramNamesTheFiles) {
  const Path before = make("before", {"-t", "ext4"});
  const Path after =
      changed(before, "after",
              "rm file\nwrite " + path("new").string() + " added\nsif added generation 5\nsif script mode 0100755\n");
  const auto from = publish(before);
  const auto report = ask(question(from, publish(after)), always);
  EXPECT_THAT(lines(report), ElementsAre("added /added", "removed /file", "metadata /script mode"));
  EXPECT_TRUE(lines(ask(question(from, from), always)).empty());
}

TEST_F(RunTest, WhatCannotBeReadIsSaid) {
  write_file("nothing", std::string(1 << 20, 'x'));
  const auto ext = publish(make("before", {}, 1));
  const auto none = publish(path("nothing"));
  EXPECT_EQ(ask(question(ext, none), always).error().message,
            "the second snapshot's disk: it holds no ext2, ext3 or ext4 file system");
  EXPECT_EQ(ask(question(none, ext), always).error().code, Code::kFailedPrecondition);
  EXPECT_EQ(ask(question(ext, snapshot::SnapshotId::random()), always).error().code, Code::kNotFound);
}

TEST_F(RunTest, ADamagedLayerIsSaid) {
  const auto id = publish(make("before", {}, 1));
  const auto map = store_.read_map(id, *store_.load(id)->disk_map).value();
  snapshot::testing::damage_file(layer_data_path(store_.layers_dir(), map.layers()[0]), 1100);
  EXPECT_EQ(ask(question(id, id), always).error().code, Code::kDataLoss);
}

TEST_F(RunTest, AProgramThatDoesNotAnswerIsExplained) {
  EXPECT_EQ(ask_script("kill -9 $$").error().message, "stasis-files has ended: signal 9 (Killed)");
  EXPECT_EQ(ask_script("exit 3").error().message, "stasis-files has ended: exit status 3");
  EXPECT_EQ(ask_script("kill -ALRM $$").error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(ask_script("printf '\\004\\000\\000\\000nono'").error().message, "stasis-files has answered nonsense");
  EXPECT_EQ(ask_script("printf '\\377\\377\\377\\377nono'").error().code, Code::kInternal)
      << "longer than anything may be";
  EXPECT_EQ(ask({path("missing"), store_.root(), {}, {}}, always).error().code, Code::kNotFound);
}

TEST_F(RunTest, AProgramThatTakesTooLongIsKilledAndSoIsOneThatNobodyWaitsFor) {
  EXPECT_EQ(ask_script("exec sleep 1000", always, Milliseconds(1)).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(ask_script("exec sleep 1000", [] { return false; }).error().code, Code::kCancelled);
}

}  // namespace
}  // namespace stasis::files
