#include "server/decide.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stasis::server {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kNow = 1'000'000;

SandboxRecord row(State state) {
  SandboxRecord record;
  record.id = "a";
  record.state = state;
  record.epoch = 5;
  record.started_ms = 1;
  record.snapshot_id = "old";
  if (state == State::kPausing) record.pending_snapshot_id = "new";
  return record;
}

pb::SandboxInfo host(const std::string& state, const std::string& reason = "") {
  pb::SandboxInfo info;
  info.set_state(state);
  info.set_reason(reason);
  return info;
}

Observation absent() { return {nullptr, false, false, kNow, ""}; }
Observation with(const pb::SandboxInfo& info) { return {&info, false, false, kNow, ""}; }

State target(const Decision& decision, State otherwise) {
  return decision.transition ? decision.transition->to : otherwise;
}

TEST(DecideTest, PausedSandboxesAreExpectedToBeAbsent) {
  EXPECT_FALSE(decide(row(State::kPaused), absent()).transition);
  EXPECT_FALSE(decide(row(State::kStopped), absent()).transition);
  EXPECT_FALSE(decide(row(State::kError), absent()).transition);
}

TEST(DecideTest, ARunningRowWithoutASandboxIsLost) {
  const Decision decision = decide(row(State::kRunning), absent());
  EXPECT_EQ(target(decision, State::kRunning), State::kError);
  EXPECT_EQ(decision.transition->reason, "lost");
  EXPECT_EQ(decision.transition->epoch, 5);
}

TEST(DecideTest, ADeadlineIsNoLoss) {
  SandboxRecord record = row(State::kRunning);
  record.deadline_ms = kNow - 1;
  const Decision decision = decide(record, absent());
  EXPECT_EQ(target(decision, State::kRunning), State::kStopped);
  EXPECT_EQ(decision.transition->reason, "timeout");
  EXPECT_THAT(decision.released, Contains("old"));
  record.deadline_ms = kNow + 60'000;
  EXPECT_EQ(target(decide(record, absent()), State::kRunning), State::kError);
}

TEST(DecideTest, ADeadSandboxGivesItsReasonAndIsCleanedUp) {
  const pb::SandboxInfo dead = host("dead", "the VMM was killed by signal 9");
  const Decision decision = decide(row(State::kRunning), with(dead));
  EXPECT_EQ(target(decision, State::kRunning), State::kError);
  EXPECT_EQ(decision.transition->reason, "the VMM was killed by signal 9");
  EXPECT_TRUE(decision.destroy_on_host);
  const pb::SandboxInfo late = host("dead", "timeout");
  EXPECT_EQ(target(decide(row(State::kRunning), with(late)), State::kRunning), State::kStopped);
}

TEST(DecideTest, WhatTheHostRunsHealsAWrongEnd) {
  const pb::SandboxInfo running = host("running");
  for (const State state :
       {State::kError, State::kStopped, State::kPaused, State::kPausing, State::kStarting, State::kResuming}) {
    EXPECT_EQ(target(decide(row(state), with(running)), state), State::kRunning) << state_name(state);
  }
  EXPECT_FALSE(decide(row(State::kRunning), with(running)).transition);
}

TEST(DecideTest, WhatWasDestroyedDoesNotComeBack) {
  const pb::SandboxInfo running = host("running");
  SandboxRecord record = row(State::kStopped);
  record.reason = kReasonDestroyed;
  EXPECT_FALSE(decide(record, with(running)).transition);
  record.reason = "create failed: x";
  record.started_ms = 0;
  EXPECT_FALSE(decide(record, with(running)).transition);
  EXPECT_FALSE(decide(row(State::kStopping), with(running)).transition);
}

TEST(DecideTest, ABusyHostIsLeftAlone) {
  for (const char* state : {"starting", "pausing", "resuming", "stopping"}) {
    const pb::SandboxInfo busy = host(state);
    for (const State mine : {State::kStarting, State::kRunning, State::kPausing, State::kResuming}) {
      EXPECT_FALSE(decide(row(mine), with(busy)).transition) << state;
    }
  }
}

TEST(DecideTest, AnInterruptedPauseIsWhatItsSnapshotSays) {
  const SandboxRecord record = row(State::kPausing);
  Observation seen = absent();
  EXPECT_TRUE(needs_snapshots(record, HostState::kAbsent));
  seen.pending_exists = true;
  const Decision paused = decide(record, seen);
  EXPECT_EQ(target(paused, State::kPausing), State::kPaused);
  EXPECT_THAT(paused.released, Contains("old"));
  EXPECT_THAT(paused.released, Not(Contains("new")));
  seen.pending_exists = false;
  seen.snapshot_exists = true;  // of the pause before: what the guest did since is not in it
  EXPECT_EQ(target(decide(record, seen), State::kPausing), State::kError);
}

TEST(DecideTest, APauseThatLetTheGuestRunOnLosesItsSnapshot) {
  const pb::SandboxInfo running = host("running");
  EXPECT_THAT(decide(row(State::kPausing), with(running)).released, Contains("new"));
}

TEST(DecideTest, AnInterruptedResumeIsPausedAgain) {
  Observation seen = absent();
  seen.snapshot_exists = true;
  seen.failure = "resume failed: no memory";
  const Decision decision = decide(row(State::kResuming), seen);
  EXPECT_EQ(target(decision, State::kResuming), State::kPaused);
  EXPECT_EQ(decision.transition->reason, "resume failed: no memory");
  EXPECT_THAT(decision.released, Not(Contains("old")));
  seen.snapshot_exists = false;
  EXPECT_EQ(target(decide(row(State::kResuming), seen), State::kResuming), State::kError);
}

TEST(DecideTest, AnInterruptedCreateIsStopped) {
  const Decision decision = decide(row(State::kStarting), absent());
  EXPECT_EQ(target(decision, State::kStarting), State::kStopped);
  EXPECT_THAT(decision.transition->reason, HasSubstr("create failed"));
}

TEST(StateMachineTest, HasTheChangesOfTheDesignAndNothingLeavesStopping) {
  using S = State;
  for (const auto& [from, to] : {std::pair{S::kPending, S::kStarting},
                                 {S::kStarting, S::kRunning},
                                 {S::kRunning, S::kPausing},
                                 {S::kPausing, S::kPaused},
                                 {S::kPaused, S::kResuming},
                                 {S::kResuming, S::kRunning},
                                 {S::kPausing, S::kRunning},
                                 {S::kResuming, S::kPaused},
                                 {S::kStopping, S::kStopped}}) {
    EXPECT_TRUE(may_change(from, to)) << state_name(from) << " " << state_name(to);
  }
  for (const S from : {S::kPending, S::kStarting, S::kRunning, S::kPausing, S::kPaused, S::kResuming, S::kError}) {
    EXPECT_TRUE(may_change(from, S::kStopping)) << state_name(from);
    EXPECT_FALSE(may_change(S::kStopping, from)) << state_name(from);
  }
  EXPECT_FALSE(may_change(S::kPaused, S::kPausing));
  EXPECT_FALSE(may_change(S::kRunning, S::kPaused));
  EXPECT_FALSE(may_change(S::kStopped, S::kStopping));
}

TEST(StateMachineTest, NamesGoBothWays) {
  for (int i = 0; i <= static_cast<int>(State::kError); ++i) {
    const auto state = static_cast<State>(i);
    EXPECT_EQ(state_from_name(state_name(state)), state);
  }
  EXPECT_FALSE(state_from_name("frozen"));
}

}  // namespace
}  // namespace stasis::server
