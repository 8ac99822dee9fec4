// Layers of which this host has nothing but the tables, as of a snapshot that lies in an object store: each frame comes
// when it is needed. The store is the test's, the layer's file, the page server and its VMM are real.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "pager/testing/two_processes.h"
#include "snapshot/frame_fetcher.h"

namespace stasis::pager {
namespace {

using snapshot::FrameRef;
using snapshot::kBlockSize;
using snapshot::kFrameSize;
using testing::content_of;
using ::testing::HasSubstr;
using testing::kPages;
using testing::kSize;
using ::testing::Optional;

constexpr uint64_t kPagesInFrame = kFrameSize / kBlockSize;

// Takes a layer's content over, and gives a frame of it back to whoever asks.
class ObjectStore final : public snapshot::FrameSource {
 public:
  explicit ObjectStore(const Path& layer) : file_(real_file_system().open_write(layer).value()), content_(kSize) {
    EXPECT_EQ(real_file_system().read_at(file_.get(), 0, content_).value(), kSize);
    EXPECT_TRUE(real_file_system().punch_hole(file_.get(), {0, kSize}));
  }

  Status load(FrameRef frame) const override {
    const Answer answer = begin(frame.frame);
    if (answer == Answer::kFailure) return fail(Code::kUnavailable, "the bucket says 503");
    std::vector<std::byte> bytes(content_.begin() + static_cast<ptrdiff_t>(frame.frame * kFrameSize),
                                 content_.begin() + static_cast<ptrdiff_t>((frame.frame + 1) * kFrameSize));
    if (answer == Answer::kDamage) bytes[7] ^= std::byte{1};
    return real_file_system().write_at(file_.get(), frame.frame * kFrameSize, bytes);
  }
  std::string describe(FrameRef) const override { return "an object"; }

  // From now on the first answers to each frame are failures, or damaged.
  void fail_first(int times) { failures_ = times; }
  void damage_first(int times) { damages_ = times; }
  void hold() {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  void release() {
    const std::lock_guard lock(mutex_);
    held_ = false;
    changed_.notify_all();
  }
  void await_asked(size_t count) const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asked_.size() >= count; });
  }
  int most_asked_for_one() const {
    const std::lock_guard lock(mutex_);
    int most = 0;
    for (const auto& [frame, times] : asked_) most = std::max(most, times);
    return most;
  }
  size_t frames_asked() const {
    const std::lock_guard lock(mutex_);
    return asked_.size();
  }

 private:
  enum class Answer { kFrame, kFailure, kDamage };
  Answer begin(uint32_t frame) const {
    std::unique_lock lock(mutex_);
    const int before = asked_[frame]++;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_; });
    if (before < failures_) return Answer::kFailure;
    return before < damages_ ? Answer::kDamage : Answer::kFrame;
  }

  UniqueFd file_;
  std::vector<std::byte> content_;
  int failures_ = 0;
  int damages_ = 0;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::map<uint32_t, int> asked_;
  bool held_ = false;
};

class ElsewhereTest : public testing::TwoProcesses {
 protected:
  void SetUp() override {
    TwoProcesses::SetUp();
    store_ = std::make_shared<ObjectStore>(layer_file_);
  }
  void TearDown() override {
    store_->release();  // before the server goes: it waits for its threads
    TwoProcesses::TearDown();
  }
  PageServerOptions options(int attempts = 5) const {
    PageServerOptions options;
    options.elsewhere = store_;
    options.fetch.attempts = attempts;
    options.fetch.first_pause = Milliseconds(1);
    return options;
  }
  std::shared_ptr<ObjectStore> store_;
};

TEST_F(ElsewhereTest, WhatIsNeededComesAndStays) {
  serve({}, options());
  EXPECT_THAT(vmm_->read_now(3), Optional(content_of(3)));
  EXPECT_EQ(store_->frames_asked(), 1U);
  EXPECT_THAT(vmm_->read_now(150), Optional(std::byte{0})) << "zeros come from nowhere";
  EXPECT_EQ(store_->frames_asked(), 1U);
  expect_content(0, kPages);
  EXPECT_EQ(store_->most_asked_for_one(), 1);
  EXPECT_FALSE(failed());
  EXPECT_TRUE(space_->layer(space_->map().layers()[0])->verify_all()) << "all of it is in the layer's file now";
}

TEST_F(ElsewhereTest, SeveralFramesComeAtOnceAndNoneTwice) {
  store_->hold();
  serve({}, options());
  std::vector<testing::VmmProcess::Ticket> reads;
  for (uint64_t page = 0; page < 4 * kPagesInFrame; ++page) reads.push_back(vmm_->read(page));
  store_->await_asked(snapshot::FrameFetcher::kThreads);
  while (server_->activity().parked != reads.size()) std::this_thread::yield();
  store_->release();
  for (uint64_t page = 0; page < reads.size(); ++page) {
    EXPECT_EQ(static_cast<std::byte>(vmm_->wait(reads[page])->value), content_of(page));
  }
  EXPECT_EQ(store_->most_asked_for_one(), 1);
}

TEST_F(ElsewhereTest, AStoreWithAHiccupIsAskedAgain) {
  store_->fail_first(2);
  serve({}, options());
  expect_content(0, kPages);
  EXPECT_EQ(store_->most_asked_for_one(), 3);
  EXPECT_FALSE(failed());
}

TEST_F(ElsewhereTest, WhatComesDamagedIsAskedForAgainAndNeverSeen) {
  store_->damage_first(1);
  serve({}, options());
  expect_content(0, kPages);
  EXPECT_EQ(store_->most_asked_for_one(), 2);
  EXPECT_FALSE(failed());
}

TEST_F(ElsewhereTest, WhatAlwaysComesDamagedEndsTheSandboxWithTheReason) {
  store_->damage_first(100);
  serve({}, options(3));
  (void)vmm_->read(3);
  const Error error = failure_.get_future().get();
  EXPECT_EQ(error.code, Code::kDataLoss);
  EXPECT_THAT(error.message, HasSubstr(layer_file_.string() + ": frame 0 (64 KiB at 0) is damaged"));
  EXPECT_EQ(server_->stats().pages_by_fault, 0U);
}

TEST_F(ElsewhereTest, AStoreThatHasNothingEndsTheSandboxWithItsReason) {
  store_->fail_first(100);
  serve({}, options(3));
  (void)vmm_->read(3);
  const Error error = failure_.get_future().get();
  EXPECT_EQ(error.code, Code::kUnavailable);
  EXPECT_THAT(error.message, HasSubstr("frame 0 of layer " + layer_file_.stem().string() + ": the bucket says 503"));
  EXPECT_EQ(store_->most_asked_for_one(), 3);
}

TEST_F(ElsewhereTest, AStoreThatDoesNotAnswerEndsTheSandboxWithTheReason) {
  store_->hold();
  PageServerOptions impatient = options();
  impatient.fetch.deadline = Milliseconds(50);
  serve({}, std::move(impatient));
  (void)vmm_->read(3);
  EXPECT_EQ(failure_.get_future().get().code, Code::kDeadlineExceeded);
}

}  // namespace
}  // namespace stasis::pager
