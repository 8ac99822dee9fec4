// Spares: who gets one, how many there are, and that nothing depends on them.
#include <algorithm>
#include <array>

#include "agent/spares.h"
#include "agent/testing/agent_fixture.h"

namespace stasis::agent {
namespace {

std::string new_id() { return Uuid::random().text(); }

class AgentSparesTest : public AgentFixture {
 protected:
  AgentSparesTest() { spares_ = 1; }

  v1::SpareCounts counts() {
    grpc::ClientContext context;
    v1::PagerMetrics metrics;
    EXPECT_TRUE(stub_->GetPagerMetrics(&context, {}, &metrics).ok());
    return metrics.spares();
  }
  bool await_ready(uint64_t ready) {
    return eventually([&] { return counts().ready() == ready; });
  }
  // A snapshot, whose shape has been restored once.
  std::string restored_snapshot() {
    std::string id = new_id();
    EXPECT_TRUE(create("first").ok());
    EXPECT_TRUE(take_snapshot("first", id).ok());
    EXPECT_FALSE(clone("second", id).restore().spare()) << "nobody knew that it was coming";
    return id;
  }
  v1::SandboxStarted clone(const std::string& id, const std::string& snapshot) {
    v1::CreateSandboxRequest request;
    request.set_sandbox_id(id);
    request.set_snapshot_id(snapshot);
    v1::SandboxStarted reply;
    const grpc::Status status = create(request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }
  std::vector<std::string> spare_dirs() const { return *real_file_system().list(state() / "spares"); }
};

TEST_F(AgentSparesTest, TheNextRestoreOfAShapeTakesOneAndAnotherIsStarted) {
  const std::string snapshot = restored_snapshot();
  ASSERT_TRUE(await_ready(1));
  EXPECT_EQ(spare_dirs().size(), 1U);
  EXPECT_TRUE(clone("third", snapshot).restore().spare());
  EXPECT_EQ(exec("third", "hostname").status.error_code(), grpc::StatusCode::OK);
  EXPECT_EQ(info("third").state(), "running");
  EXPECT_TRUE(supervisor_state("third").spare) << "its socket is where a sandbox's is";
  EXPECT_TRUE(exists(real_file_system(), sandbox_dir("third") / supervisor::kSupervisorLog));
  ASSERT_TRUE(await_ready(1));
  EXPECT_EQ(counts().used(), 1U);
  EXPECT_EQ(counts().started(), 2U);
  EXPECT_EQ(counts().failed() + counts().dropped(), 0U);
  const std::string paused = new_id();
  ASSERT_TRUE(pause("third", paused).ok());
  EXPECT_TRUE(resume("third", paused).ok());
  EXPECT_EQ(counts().used(), 2U);
}

TEST_F(AgentSparesTest, ABootStartsNoneAndTakesNone) {
  ASSERT_TRUE(create("one").ok());
  ASSERT_TRUE(create("two").ok());
  EXPECT_EQ(counts().started(), 0U);
  EXPECT_TRUE(spare_dirs().empty());
}

TEST_F(AgentSparesTest, OneThatDiesBeforeIsReplacedByTheNextRestore) {
  const std::string snapshot = restored_snapshot();
  ASSERT_TRUE(await_ready(1));
  const auto client = supervisor::Client::connect(state() / "spares" / spare_dirs().at(0));
  ASSERT_TRUE(client);
  ASSERT_EQ(::kill((*client)->pid(), SIGKILL), 0);
  ASSERT_TRUE(await_ready(0));
  EXPECT_EQ(counts().failed(), 1U);
  EXPECT_TRUE(eventually([&] { return spare_dirs().empty(); }));
  EXPECT_FALSE(clone("third", snapshot).restore().spare());
  EXPECT_TRUE(await_ready(1));
}

TEST_F(AgentSparesTest, OneThatCannotBecomeASandboxCostsNothingButTime) {
  misbehave("spare", "dies");
  const std::string snapshot = restored_snapshot();
  ASSERT_TRUE(await_ready(1));
  EXPECT_FALSE(clone("third", snapshot).restore().spare());
  EXPECT_EQ(counts().failed(), 1U);
  ASSERT_TRUE(await_ready(1));
  misbehave("third", "");
  misbehave("fourth", "exit-restored");  // as a spare and as a supervisor of its own
  misbehave("spare", "");
  v1::CreateSandboxRequest request;
  request.set_sandbox_id("fourth");
  request.set_snapshot_id(snapshot);
  EXPECT_EQ(create(request).error_message(), "damaged");
  EXPECT_FALSE(exists(real_file_system(), sandbox_dir("fourth")));
}

TEST_F(AgentSparesTest, ADeafOneIsGivenUp) {
  misbehave("spare", "deaf");
  const std::string snapshot = restored_snapshot();
  ASSERT_TRUE(await_ready(1));
  EXPECT_FALSE(clone("third", snapshot).restore().spare());
  EXPECT_EQ(counts().failed(), 1U);
}

TEST_F(AgentSparesTest, OneThatDoesNotStartIsNotTriedAgainAtOnce) {
  misbehave("spare", "exit");
  const std::string snapshot = restored_snapshot();
  ASSERT_TRUE(eventually([&] { return counts().failed() == 1; }));
  EXPECT_TRUE(spare_dirs().empty());
  misbehave("spare", "");
  EXPECT_FALSE(clone("third", snapshot).restore().spare());
  EXPECT_TRUE(await_ready(1));
  EXPECT_EQ(counts().failed(), 1U);
}

TEST_F(AgentSparesTest, TheyEndWithTheAgentAndWhatAKilledOneLeftIsRemoved) {
  (void)restored_snapshot();
  ASSERT_TRUE(await_ready(1));
  const auto client = supervisor::Client::connect(state() / "spares" / spare_dirs().at(0));
  ASSERT_TRUE(client);
  const auto spare = open_pidfd((*client)->pid());
  stop_agent();
  EXPECT_TRUE(*wait_readable(spare->get(), Deadline::after(Milliseconds(0))));
  EXPECT_TRUE(spare_dirs().empty());
  std::filesystem::create_directories(state() / "spares" / "left" / "behind");
  start_agent();
  EXPECT_TRUE(spare_dirs().empty());
}

// The spares alone, with a host that is short of memory when the test says so.
class SparesTest : public AgentSparesTest {
 protected:
  void SetUp() override {}
  void TearDown() override {}

  std::unique_ptr<Spares> started(size_t most, Milliseconds keep = std::chrono::minutes(10)) {
    SpareOptions options;
    options.most = most;
    options.keep = keep;
    options.dir = state() / "spares";
    options.supervisor_program = program_;
    options.vmm = "qemu";
    options.tick = Milliseconds(5);
    options.memory_is_short = [this] { return is_short_.load(); };
    auto spares = Spares::start(std::move(options));
    EXPECT_TRUE(spares) << spares.error().message;
    return std::move(*spares);
  }
  static bool await(Spares& spares, uint64_t ready) {
    return eventually([&] { return spares.counts().ready == ready; });
  }

  static constexpr SpareShape kShape{{1, 128}, 1 << 20};
  static constexpr SpareShape kOther{{2, 128}, 1 << 20};
  Path program_ = bin_ / "agent_fake_supervisor";
  std::atomic<bool> is_short_ = false;
};

TEST_F(SparesTest, NoMoreThanWereAskedFor) {
  const auto spares = started(3);
  spares->want(kShape);
  ASSERT_TRUE(await(*spares, 3));
  spares->want(kShape);
  std::array<std::unique_ptr<Spare>, 3> taken;
  for (auto& spare : taken) spare = spares->take(kShape);
  EXPECT_EQ(std::count(taken.begin(), taken.end(), nullptr), 0);
  ASSERT_TRUE(await(*spares, 3));
  EXPECT_EQ(spares->counts().started, 6U);
  EXPECT_EQ(spares->take(kOther), nullptr);
  const auto pidfd = open_pidfd(taken[0]->process->pid());
  taken = {};
  EXPECT_TRUE(*wait_readable(pidfd->get(), Deadline::after(Milliseconds(0)))) << "who lets one go ends it";
}

TEST_F(SparesTest, TheShapeThatWasRestoredLastHasOne) {
  const auto spares = started(2);
  spares->want(kShape);
  ASSERT_TRUE(await(*spares, 2));
  spares->want(kOther);
  ASSERT_TRUE(eventually([&] { return spares->counts().started == 3 && spares->counts().ready == 2; }));
  EXPECT_EQ(spares->counts().dropped, 1U);
  EXPECT_NE(spares->take(kOther), nullptr);
  EXPECT_NE(spares->take(kShape), nullptr);
}

TEST_F(SparesTest, AreDroppedWhenMemoryIsShortAndComeBackWithTheNextRestore) {
  const auto spares = started(2);
  spares->want(kShape);
  ASSERT_TRUE(await(*spares, 2));
  is_short_ = true;
  ASSERT_TRUE(await(*spares, 0));
  EXPECT_EQ(spares->counts().dropped, 2U);
  EXPECT_TRUE(eventually([&] { return spare_dirs().empty(); }));
  is_short_ = false;
  spares->want(kShape);
  ASSERT_TRUE(await(*spares, 2));
}

TEST_F(SparesTest, AreDroppedWhenNobodyAsks) {
  const auto spares = started(1, Milliseconds(20));
  spares->want(kShape);
  ASSERT_TRUE(eventually([&] { return spares->counts().dropped == 1; }));
  EXPECT_TRUE(spares->empty());
}

TEST_F(SparesTest, NoneIsStartedWhileSomethingIsRestored) {
  const auto spares = started(1);
  {
    const Spares::Quiet quiet(*spares);
    spares->want(kShape);
    std::this_thread::sleep_for(Milliseconds(30));
    EXPECT_TRUE(spare_dirs().empty());
  }
  EXPECT_TRUE(await(*spares, 1));
}

TEST_F(SparesTest, OneThatCannotBeStartedLeavesNothing) {
  program_ = "/nonexistent/stasis-supervisor";
  const auto spares = started(1);
  spares->want(kShape);
  ASSERT_TRUE(eventually([&] { return spares->counts().failed == 1; }));
  EXPECT_TRUE(spare_dirs().empty());
}

TEST_F(SparesTest, MoreThanSixteenAreRefused) {
  SpareOptions options;
  options.dir = state() / "spares";
  options.most = 17;
  const auto spares = Spares::start(options);
  ASSERT_FALSE(spares);
  EXPECT_EQ(spares.error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace stasis::agent
