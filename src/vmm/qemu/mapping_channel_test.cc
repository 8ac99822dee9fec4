// The driver's side and the preloaded library's, with a small program in QEMU's place.
#include "vmm/qemu/mapping_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>

#include "base/memory.h"
#include "base/pagemap.h"
#include "base/process.h"
#include "base/testing/eventually.h"
#include "base/unix_socket.h"
#include "pager/page_server.h"
#include "snapshot/capture.h"
#include "snapshot/testing/fixtures.h"
#include "vmm/contract/result_matchers.h"
#include "vmm/qemu/mapping_message.h"

namespace stasis::vmm {
namespace {

using snapshot::BlockMap;
using snapshot::kBlockSize;
using snapshot::testing::blocks;
using snapshot::testing::Bytes;
using stasis::testing::eventually;
using ::testing::HasSubstr;

constexpr uint64_t kBytes = 512 * kBlockSize;
Deadline soon() { return Deadline::after(Milliseconds(10'000)); }

class MappingChannelTest : public snapshot::testing::StoreTest {
 protected:
  void SetUp() override {
    auto ram = create_memory_file("ram", kBytes);
    ASSERT_OK(ram);
    ram_ = std::move(*ram);
  }
  // As a program that maps memory, with one end of a socket; it uses its memory from go() on.
  Process started(int socket, const char* how = nullptr) {
    return started({"map-ram", std::to_string(kBytes)}, socket, how);
  }
  // With the library; its output and messages go to files.
  Process started(std::vector<std::string> argv, int socket, const char* how = nullptr) {
    const auto out = real_file_system().create(dir_.path() / "out");
    const auto err = real_file_system().create(dir_.path() / "err");
    EXPECT_OK(out);
    EXPECT_OK(err);
    const Path bin = contract::value(executable_directory());
    SpawnOptions options;
    options.argv = std::move(argv);
    options.argv[0] = bin / options.argv[0];
    options.env = {{"LD_PRELOAD", bin.parent_path() / "lib" / "libstasis-preload.so"},
                   {"STASIS_RAM_FD", "3"},
                   {"STASIS_MAPPING_FD", "5"}};
    if (how) options.env.emplace_back(how, "1");
    options.fds = {{ram_.get(), 3}, {socket, 5}};
    auto input = unix_socket_pair();
    EXPECT_OK(input);
    input_ = std::move(input->first);
    options.stdin_fd = input->second.get();
    options.stdout_fd = out->get();
    options.stderr_fd = err->get();
    auto process = spawn(options);
    EXPECT_OK(process);
    return std::move(*process);
  }
  void go() { input_.reset(); }
  ExitStatus end_of(Process& process) {
    const auto ended = process.wait(Deadline::after(Milliseconds(10'000)));
    EXPECT_OK(ended);
    EXPECT_TRUE(*ended) << "it still waits";
    return ended->value_or(ExitStatus{});
  }
  Path pages_socket() const { return dir_.path() / "pages"; }
  // Of what is not mapped.
  std::unique_ptr<pager::PageServer> serving(const pager::MappedPlan& plan) const {
    pager::PageServerOptions options;
    options.served = plan.served;
    auto pages = pager::PageServer::start(pages_socket(), plan.memory, options);
    EXPECT_OK(pages);
    return std::move(*pages);
  }
  std::unique_ptr<pager::PageServer> serving_all(std::shared_ptr<const snapshot::AddressSpace> memory) const {
    auto pages = pager::PageServer::start(pages_socket(), std::move(memory), {});
    EXPECT_OK(pages);
    return std::move(*pages);
  }
  // A program whose memory `pages` serves, all of it, and where that is.
  Process started_served(pager::PageServer& pages, uint64_t& address) {
    auto opened = MappingChannel::open();
    EXPECT_OK(opened);
    MappingChannel channel = std::move(*opened);
    Process program = started(channel.peer());
    channel.close_peer();
    EXPECT_OK(channel.await_library(soon()));
    EXPECT_OK(pages.expect_peer(program.pid()));
    const auto served = channel.serve(kBytes, pages_socket(), soon());
    EXPECT_OK(served);
    address = served->address;
    EXPECT_OK(pages.await_handshake(soon()));
    return program;
  }
  Bytes output() const { return snapshot::testing::read_whole_file(dir_.path() / "out"); }
  std::string messages() const {
    std::ifstream file(dir_.path() / "err");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // Two layers: runs that are mapped, runs that are copied, zeros between them, and zeros over data.
  std::shared_ptr<const snapshot::AddressSpace> two_generations() {
    snapshot::testing::Random random(7);
    memory_.write(0, snapshot::testing::random_bytes(random, 100 * kBlockSize));
    memory_.write(200 * kBlockSize, snapshot::testing::random_bytes(random, 2 * kBlockSize));
    const auto first = take(memory_, {blocks(0, 512)}, *open(*BlockMap::zeros(kBytes)));
    memory_.write(50 * kBlockSize, snapshot::testing::random_bytes(random, 20 * kBlockSize));
    memory_.write(511 * kBlockSize, snapshot::testing::random_bytes(random, kBlockSize));
    memory_.zero(blocks(10, 7));
    const auto second = take(memory_, {blocks(0, 512)}, *open(first->map));
    return open(second->map);
  }

  UniqueFd ram_;
  UniqueFd input_;
  snapshot::testing::Memory memory_{kBytes};
};

TEST_F(MappingChannelTest, TheProgramHasTheMemoryAndItsWritesStayItsOwn) {
  const auto memory = two_generations();
  const auto plan = pager::plan_mapping(
      memory, [](snapshot::LayerId) { return true; }, contract::value(pager::mapping_limits()));
  EXPECT_GT(plan.mapped_bytes, 0u);
  EXPECT_GT(plan.copied_bytes, 0u);
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer());
  channel->close_peer();
  ASSERT_OK(channel->await_library(soon()));
  const auto mapped = channel->map(plan, {}, soon());
  ASSERT_OK(mapped);
  go();
  EXPECT_EQ(mapped->address % kBlockSize, 0u);
  EXPECT_EQ(mapped->tracker.fd() >= 0, probe_userfaultfd().write_protect_async);
  EXPECT_TRUE(end_of(program).success()) << messages();
  EXPECT_EQ(output(), memory_.content);
  EXPECT_TRUE(contract::value(real_file_system().data_ranges(ram_.get())).empty()) << "its memory file was not touched";
  EXPECT_EQ(snapshot::testing::read_all(*memory), memory_.content) << "nor was a layer";
}

// Of two layers the newer one cannot be mapped.
TEST_F(MappingChannelTest, WhatIsNotMappedIsServed) {
  const auto memory = two_generations();
  const snapshot::LayerId first = memory->map().layers()[0];
  const auto plan = pager::plan_mapping(
      memory, [&](snapshot::LayerId id) { return id == first; }, contract::value(pager::mapping_limits()));
  EXPECT_EQ(plan.served, (std::vector<Range>{blocks(50, 20), blocks(511, 1)}));
  EXPECT_GT(plan.mapped_bytes, 0u);
  const auto pages = serving(plan);
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer());
  channel->close_peer();
  ASSERT_OK(channel->await_library(soon()));
  ASSERT_OK(pages->expect_peer(program.pid()));
  EXPECT_FAILS(channel->map(plan, {}, soon()), Code::kInvalidArgument) << "nobody would serve";
  const auto mapped = channel->map(plan, pages_socket(), soon());
  ASSERT_OK(mapped);
  ASSERT_OK(pages->await_handshake(soon()));
  EXPECT_EQ(pages->regions().size(), 2u);
  EXPECT_EQ(pages->regions().front().host_address, mapped->address + 50 * kBlockSize);
  go();
  EXPECT_TRUE(end_of(program).success()) << messages();
  EXPECT_EQ(output(), memory_.content);
  // The last page is counted after it has been there for the program to end with it.
  EXPECT_TRUE(eventually([&] {
    const pager::PageServerStats stats = pages->stats();
    return stats.pages_by_fault + stats.pages_around == 21;
  }));
  EXPECT_TRUE(contract::value(real_file_system().data_ranges(ram_.get())).empty()) << "its memory file was not touched";
}

TEST_F(MappingChannelTest, AsManyPiecesAreServedAsAPlanMayHave) {
  auto newest = open(*BlockMap::zeros(kBytes));
  std::vector<Range> pieces;
  for (uint64_t at = 0; at < 512; at += 2) pieces.push_back(blocks(at, 1));
  for (const Range& piece : pieces) memory_.write(piece.offset, snapshot::testing::block_of(7));
  const auto taken = take(memory_, pieces, *newest);
  ASSERT_OK(taken);
  const auto memory = open(taken->map);
  const auto plan = pager::plan_mapping(
      memory, [](snapshot::LayerId) { return false; }, contract::value(pager::mapping_limits()));
  EXPECT_EQ(plan.served.size(), static_cast<size_t>(MAPPING_MAX_SERVED));
  const auto pages = serving(plan);
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer());
  ASSERT_OK(channel->await_library(soon()));
  ASSERT_OK(pages->expect_peer(program.pid()));
  ASSERT_OK(channel->map(plan, pages_socket(), soon()));
  go();
  EXPECT_TRUE(end_of(program).success()) << messages();
  EXPECT_EQ(output(), memory_.content);
}

TEST_F(MappingChannelTest, MoreLayersThanOneMessageHolds) {
  auto newest = open(*BlockMap::zeros(kBytes));
  for (uint64_t layer = 0; layer < 40; ++layer) {
    memory_.write(layer * 5 * kBlockSize, snapshot::testing::block_of(static_cast<uint8_t>(layer + 1)));
    const auto taken = take(memory_, {blocks(layer * 5, 1)}, *newest);
    ASSERT_OK(taken);
    newest = open(taken->map);
  }
  const auto plan = pager::plan_mapping(
      newest, [](snapshot::LayerId) { return true; }, contract::value(pager::mapping_limits()));
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer());
  ASSERT_OK(channel->await_library(soon()));
  ASSERT_OK(channel->map(plan, {}, soon()));
  go();
  EXPECT_TRUE(end_of(program).success()) << messages();
  EXPECT_EQ(output(), memory_.content);
}

TEST_F(MappingChannelTest, AProgramThatBootsKeepsItsMemoryFileAndTellsItsTracker) {
  memory_.write(0, Bytes(3 * kBlockSize, std::byte{7}));
  ASSERT_OK(real_file_system().write_at(ram_.get(), 0, Bytes(3 * kBlockSize, std::byte{7})));
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer(), "STASIS_BOOTS");
  channel->close_peer();
  const auto booted = channel->await_library(soon());
  ASSERT_OK(booted);
  EXPECT_EQ(booted->tracker.fd() >= 0, probe_userfaultfd().write_protect_async);
  if (booted->tracker.fd() >= 0) {
    EXPECT_OK(booted->tracker.register_write_protect({booted->address, kBytes}));
  }
  go();
  EXPECT_TRUE(end_of(program).success()) << messages();
  EXPECT_EQ(output(), memory_.content);
}

// As a service manager asks for it, for all that it starts.
TEST_F(MappingChannelTest, NothingOfTheProgramIsMergedWhateverItHasInherited) {
  constexpr int kSetMemoryMerge = 67;  // newer than Debian 12's headers
  if (::prctl(kSetMemoryMerge, 1, 0, 0, 0) != 0) GTEST_SKIP() << "this kernel merges no pages of a whole process";
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer(), "STASIS_BOOTS");
  ASSERT_EQ(::prctl(kSetMemoryMerge, 0, 0, 0, 0), 0);
  channel->close_peer();
  ASSERT_OK(channel->await_library(soon()));
  go();
  EXPECT_TRUE(end_of(program).success()) << messages();
}

// Whether the process waits to receive something (recvfrom).
bool waits_to_be_let_go(pid_t pid) {
  int call = -1;
  return std::ifstream("/proc/" + std::to_string(pid) + "/syscall") >> call && call == SYS_recvfrom;
}

void close(MappingChannel& channel) {
  auto another = MappingChannel::open();
  ASSERT_OK(another);
  channel = std::move(*another);
}

TEST_F(MappingChannelTest, AProgramThatIsHeldHasDoneNothingUntilItIsLetGo) {
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer(), "STASIS_HELD");
  channel->close_peer();
  ASSERT_TRUE(eventually([&] { return waits_to_be_let_go(program.pid()); }));
  EXPECT_FAILS(channel->await_library(Deadline::after(Milliseconds(0))), Code::kDeadlineExceeded);
  channel->let_go();
  EXPECT_OK(channel->await_library(soon()));
  close(*channel);
  EXPECT_EQ(end_of(program).code, 1) << messages();
}

TEST_F(MappingChannelTest, AProgramThatIsHeldEndsWithWhoHoldsIt) {
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer(), "STASIS_HELD");
  close(*channel);
  EXPECT_EQ(end_of(program).code, 1);
  EXPECT_THAT(messages(), HasSubstr("wait to be let go"));
}

// Or a thread of QEMU's that starts a coroutine while its memory is scanned waits until that is over.
TEST_F(MappingChannelTest, StacksForCoroutinesAreThereBeforeTheyAreAskedFor) {
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started({"take-stacks", "40"}, channel->peer());
  EXPECT_TRUE(end_of(program).success()) << messages();
  std::string made(40, '-');
  made[0] = made[32] = '+';
  const Bytes told = output();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(told.data()), told.size()), made);
}

TEST_F(MappingChannelTest, AProgramThatDoesNotTakeItsMemoryOverIsTold) {
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  EXPECT_FAILS(channel->await_library(Deadline::after(Milliseconds(0))), Code::kDeadlineExceeded);
  channel->close_peer();
  EXPECT_FAILS(channel->await_library(soon()), Code::kUnavailable);
}

TEST_F(MappingChannelTest, APageServerThatIsNotThereEndsTheProgram) {
  auto channel = MappingChannel::open();
  ASSERT_OK(channel);
  Process program = started(channel->peer());
  channel->close_peer();
  ASSERT_OK(channel->await_library(soon()));
  EXPECT_FAILS(channel->serve(kBytes, std::string(108, 'x'), soon()), Code::kInvalidArgument);
  EXPECT_FAILS(channel->serve(kBytes, dir_.path() / "nobody", soon()), Code::kUnavailable);
  EXPECT_EQ(end_of(program).code, 1);
  EXPECT_THAT(messages(), HasSubstr("connect to the page server"));
}

// Whatever was there before is not the guest's.
TEST_F(MappingChannelTest, ServedMemoryIsEmptyAndItsPagesAreAskedFor) {
  ASSERT_OK(real_file_system().write_at(ram_.get(), 0, Bytes(kBlockSize, std::byte{7})));
  const auto pages = serving_all(two_generations());
  uint64_t address = 0;
  Process program = started_served(*pages, address);
  go();
  EXPECT_TRUE(end_of(program).success()) << messages();
  EXPECT_EQ(output(), memory_.content);
}

// In the memory file each of them would be a page of its own.
TEST_F(MappingChannelTest, ServedZerosThatAreOnlyReadCostTheProgramNothing) {
  const auto pages = serving_all(open(*BlockMap::zeros(kBytes)));
  uint64_t address = 0;
  Process program = started_served(*pages, address);
  std::vector<std::byte> bytes(kBytes);
  const MemorySource there = MemorySource::of_process(program.pid(), address);
  ASSERT_OK(there.read(real_file_system(), 0, bytes));
  // Neighbours are counted when they are there, which the reader may have seen by then.
  EXPECT_TRUE(eventually([&] { return pages->stats().pages_zero == kBytes / kBlockSize; }));
  const auto pagemap = real_file_system().open_read("/proc/" + std::to_string(program.pid()) + "/pagemap");
  ASSERT_OK(pagemap);
  const Range all{address, kBytes};
  if (kernel_tells_written_pages()) {
    EXPECT_TRUE(contract::value(scan_private_pages(pagemap->get(), all)).empty());
  }
  EXPECT_TRUE(contract::value(real_file_system().data_ranges(ram_.get())).empty());
  go();
  EXPECT_TRUE(end_of(program).success()) << messages();
  EXPECT_EQ(output(), memory_.content);
}

// Every way in which a plan can be wrong: the program ends instead of running on another memory.
class WrongPlanTest : public MappingChannelTest {
 protected:
  void SetUp() override {
    MappingChannelTest::SetUp();
    layer_ = dir_.path() / "layer";
    snapshot::testing::write_whole_file(layer_, Bytes(16 * kBlockSize, std::byte{1}));
  }
  static mapping_header header(uint32_t entries) { return {MAPPING_MAGIC, kBytes, entries, 1, {}, 0}; }
  // What the program says at its end.
  std::string told(const mapping_header& header, const std::vector<mapping_entry>& entries, int files = 1) {
    auto sockets = unix_socket_pair();
    EXPECT_OK(sockets);
    const auto table = create_memory_file("table", entries.size() * sizeof(mapping_entry));
    EXPECT_OK(real_file_system().write_at(table->get(), 0, std::as_bytes(std::span(entries))));
    const std::array first{table->get()};
    EXPECT_OK(send_all(sockets->first.get(), std::as_bytes(std::span(&header, 1)), first));
    const auto layer = real_file_system().open_read(layer_);
    for (int i = 0; i < files; ++i) {
      const std::array fds{layer->get()};
      EXPECT_OK(send_all(sockets->first.get(), std::array{std::byte{0}}, fds));
    }
    return told_by(std::move(*sockets));
  }
  std::string told_by(std::pair<UniqueFd, UniqueFd> sockets) {
    Process program = started(sockets.second.get());
    sockets.second.reset();
    EXPECT_TRUE(contract::value(wait_readable(sockets.first.get(), soon()))) << "it has not mapped its memory";
    shut_down_socket(sockets.first.get());
    const ExitStatus end = end_of(program);
    EXPECT_TRUE(end.exited && end.code == 1) << end.text();
    EXPECT_TRUE(output().empty());
    std::string text = messages();
    (void)fs_.remove(dir_.path() / "out");
    (void)fs_.remove(dir_.path() / "err");
    return text;
  }

  Path layer_;
};

TEST_F(WrongPlanTest, Pieces) {
  const std::vector<mapping_entry> wrong{
      {1, kBlockSize, 0, 0, 0},                            // no whole blocks
      {0, kBlockSize + 1, 0, 0, 0},                        //
      {0, kBlockSize, 100, 0, 0},                          //
      {0, 0, 0, 0, 0},                                     // nothing
      {kBytes, kBlockSize, 0, 0, 0},                       // behind the end
      {kBytes - kBlockSize, 2 * kBlockSize, 0, 0, 0},      //
      {0, UINT64_MAX - kBlockSize + 1, 0, 0, 0},           //
      {UINT64_MAX - kBlockSize + 1, kBlockSize, 0, 0, 0},  //
      {0, kBlockSize, 0, 1, 0},                            // no such file
      {0, kBlockSize, 0, 0, 3},                            // neither mapped nor copied nor served
      {0, kBlockSize, kBlockSize, 0, MAPPING_SERVED},      // of no file
      {0, kBlockSize, 0, 1, MAPPING_SERVED},               //
  };
  for (size_t i = 0; i < wrong.size(); ++i) EXPECT_THAT(told(header(1), {wrong[i]}), HasSubstr("wrong piece")) << i;
  EXPECT_THAT(told(header(2), {{0, 2 * kBlockSize, 0, 0, 0}, {kBlockSize, kBlockSize, 0, 0, 0}}),
              HasSubstr("wrong piece"))
      << "they overlap";
}

TEST_F(WrongPlanTest, MorePiecesToServeThanThereMayBe) {
  std::vector<mapping_entry> entries;
  for (uint64_t i = 0; i <= MAPPING_MAX_SERVED; ++i) {
    entries.push_back({i * kBlockSize, kBlockSize, 0, 0, MAPPING_SERVED});
  }
  EXPECT_THAT(told({MAPPING_MAGIC, kBytes, MAPPING_MAX_SERVED + 1, 0, "/pages", 0}, entries, 0),
              HasSubstr("wrong piece"));
}

TEST_F(WrongPlanTest, PiecesBehindTheEndOfTheirLayer) {
  for (const mapping_entry& entry : {mapping_entry{0, 17 * kBlockSize, 0, 0, 0},
                                     {0, kBlockSize, 16 * kBlockSize, 0, 0},
                                     {0, kBlockSize, UINT64_MAX - kBlockSize + 1, 0, 0}}) {
    EXPECT_THAT(told(header(1), {entry}), HasSubstr("shorter than the plan"));
  }
}

TEST_F(WrongPlanTest, Headers) {
  const std::vector<mapping_entry> entries{{0, kBlockSize, 0, 0, 0}};
  EXPECT_THAT(told({MAPPING_MAGIC + 1, kBytes, 1, 1, {}, 0}, entries), HasSubstr("wrong header"));
  EXPECT_THAT(told({MAPPING_MAGIC, kBytes * 2, 1, 1, {}, 0}, entries), HasSubstr("another size"));
  EXPECT_THAT(told({MAPPING_MAGIC, kBytes, 2, 1, {}, 0}, entries), HasSubstr("wrong length"));
  EXPECT_THAT(told({MAPPING_MAGIC, kBytes, MAPPING_MAX_ENTRIES + 1, 1, {}, 0}, entries), HasSubstr("wrong header"));
  EXPECT_THAT(told({MAPPING_MAGIC, kBytes, 1, MAPPING_MAX_FILES + 1, {}, 0}, entries), HasSubstr("wrong header"));
  EXPECT_THAT(told({MAPPING_MAGIC, kBytes, 1, 1, "/pages", 0}, entries), HasSubstr("nothing to serve"));
  EXPECT_THAT(told({MAPPING_MAGIC, kBytes, 0, 1, "/pages", 0}, {}), HasSubstr("nothing to serve"));
  EXPECT_THAT(told(header(1), {{0, kBlockSize, 0, 0, MAPPING_SERVED}}), HasSubstr("the other way round"));
  mapping_header endless = header(0);
  std::fill(std::begin(endless.page_server), std::end(endless.page_server), 'x');
  EXPECT_THAT(told(endless, {}, 0), HasSubstr("wrong header"));
}

TEST_F(WrongPlanTest, ThatEndTooEarly) {
  EXPECT_THAT(told(header(1), {{0, kBlockSize, 0, 0, 0}}, 0), HasSubstr("cut short"));
  auto silent = unix_socket_pair();
  ASSERT_OK(silent);
  EXPECT_THAT(told_by(std::move(*silent)), HasSubstr("cut short"));
  auto half = unix_socket_pair();
  ASSERT_OK(half);
  EXPECT_OK(send_all(half->first.get(), Bytes(10, std::byte{7})));
  EXPECT_THAT(told_by(std::move(*half)), HasSubstr("cut short"));
}

TEST_F(WrongPlanTest, ALayerThatIsNoFile) {
  layer_ = "/dev/zero";
  EXPECT_THAT(told(header(1), {{0, kBlockSize, 0, 0, 0}}), HasSubstr("not a file"));
}

}  // namespace
}  // namespace stasis::vmm
