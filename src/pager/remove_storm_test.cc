// Many REMOVE events at once, queued while the server is in the middle of other things.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/testing/slow_file_system.h"
#include "base/testing/sync_points.h"
#include "pager/testing/two_processes.h"

namespace stasis::pager {
namespace {

using snapshot::kBlockSize;
using snapshot::kFrameSize;
using stasis::testing::StopAt;
using testing::content_of;
using ::testing::ElementsAre;
using ::testing::Optional;

constexpr uint64_t kPagesInFrame = kFrameSize / kBlockSize;
constexpr Range pages(uint64_t first, uint64_t count) { return {first * kBlockSize, count * kBlockSize}; }

// On both kinds of guest memory.
class RemoveStormTest : public testing::TwoProcesses, public ::testing::WithParamInterface<bool> {
 protected:
  FileSystem& files() override { return files_; }
  void TearDown() override {
    files_.release();  // before the server goes: it waits for its threads
    TwoProcesses::TearDown();
  }
  // Threads of the VMM that stand in their madvise: until its event has been read.
  size_t removes_waiting() const {
    const std::string madvise = std::to_string(SYS_madvise) + " ";
    size_t waiting = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(vmm_->pid()) + "/task")) {
      std::string call;
      std::getline(std::ifstream(task.path() / "syscall"), call);  // "running" while it does not stand
      waiting += call.starts_with(madvise) ? 1 : 0;
    }
    return waiting;
  }
  bool await_removes(size_t count) const {
    const Deadline deadline = Deadline::after(Milliseconds(20'000));
    while (removes_waiting() != count && !deadline.passed()) std::this_thread::yield();
    return removes_waiting() == count;
  }

  stasis::testing::SlowFileSystem files_;
};

INSTANTIATE_TEST_SUITE_P(Memory, RemoveStormTest, ::testing::Bool(),
                         [](const auto& memory) { return memory.param ? "shared" : "anonymous"; });

// More events than one read gives. One fault waits for its frame, one is unread, and the prefetch has the layer's bytes
// in its hand; all three are of pages that go.
TEST_P(RemoveStormTest, WhileFaultsAndAPrefetchAreUnderWayLeavesNothingOld) {
  files_.hold();
  PageServerOptions options;
  options.prefetch = {pages(kPagesInFrame, 84)};
  StopAt in_hand("userfaultfd.copy");
  serve({.shared = GetParam()}, std::move(options));
  const auto waits_for_frame = vmm_->read(3);
  while (server_->activity().parked == 0) std::this_thread::yield();
  for (uint64_t frame = 1; frame < 7; ++frame) files_.release(frame * kFrameSize);
  ASSERT_TRUE(in_hand.await());
  const auto unread = vmm_->read(70);
  ASSERT_TRUE(vmm_->await_faults(2));
  // Each of these pages several times: 0 to 49 and 60 to 89.
  std::vector<testing::VmmProcess::Ticket> removes;
  for (uint64_t first = 0; first + 6 <= 50; ++first) removes.push_back(vmm_->give_back(first, 6));
  for (uint64_t first = 60; first + 6 <= 90; ++first) removes.push_back(vmm_->give_back(first, 6));
  ASSERT_GT(removes.size(), 64U);
  ASSERT_TRUE(await_removes(removes.size()));
  in_hand.go_on();
  for (const auto ticket : removes) {
    const auto reply = vmm_->wait(ticket);
    ASSERT_TRUE(reply && reply->ok);
  }
  for (const auto ticket : {waits_for_frame, unread}) {
    const auto reply = vmm_->wait(ticket);
    ASSERT_TRUE(reply) << "it still waits";
    EXPECT_EQ(reply->value, 0U);
  }
  files_.release();
  while (server_->activity().prefetch_left > 0) std::this_thread::yield();
  EXPECT_EQ(server_->stats().pages_prefetched, 20U) << "50 to 59 and 90 to 99: all that nobody gave back";
  EXPECT_EQ(server_->stats().pages_by_fault, 0U);
  EXPECT_EQ(server_->stats().pages_around, 0U);
  EXPECT_EQ(server_->stats().pages_removed, 6 * removes.size());
  EXPECT_THAT(server_->removed(), ElementsAre(pages(0, 50), pages(60, 30)));
  for (uint64_t page = 0; page < 100; ++page) {
    const bool gone = page < 50 || (page >= 60 && page < 90);
    EXPECT_THAT(vmm_->read_now(page), Optional(gone ? std::byte{0} : content_of(page))) << page;
  }
  EXPECT_THAT(server_->take_removed(), ElementsAre(pages(0, 50), pages(60, 30))) << "though they are there again";
  EXPECT_FALSE(failed());
}

}  // namespace
}  // namespace stasis::pager
