// How the page server is connected to and left: VMMs that are slow, silent, dead or strangers, and a stop at any
// moment.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "pager/testing/vmm_thread.h"

namespace stasis::pager {
namespace {

using testing::content_of;
using testing::FakeVmm;
using ::testing::HasSubstr;
using testing::PageServerTest;

TEST_F(PageServerTest, StopsBeforeAnyoneConnected) {
  start_server();
  server_.reset();
  EXPECT_FALSE(exists(real_file_system(), socket_path()));
}

TEST_F(PageServerTest, StopsInTheMiddleOfTheHandshakeWithoutWaitingForTheVmm) {
  PageServerOptions options;
  options.handshake_deadline = Milliseconds(3'600'000);  // a stop that waited for it would not come back
  start_server(std::move(options));
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  FakeVmm vmm;
  vmm.set_up();
  vmm.connect(socket_path());
  vmm.send("[");
  int unread = 1;  // none: the server has read the message and waits for the rest of it
  while (unread != 0) ASSERT_EQ(::ioctl(vmm.socket.get(), SIOCOUTQ, &unread), 0);
  server_.reset();
  EXPECT_EQ(failure_.get_future().wait_for(std::chrono::milliseconds(0)), std::future_status::timeout);
}

TEST_F(PageServerTest, VmmThatDiesInTheMiddleOfTheHandshakeIsTold) {
  start_server();
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  FakeVmm vmm;
  vmm.set_up();
  vmm.connect(socket_path());
  vmm.send("[");
  vmm.socket.reset();
  EXPECT_THAT(failure_.get_future().get().message, HasSubstr("closed the connection"));
}

TEST_F(PageServerTest, SilentVmmIsGivenUp) {
  PageServerOptions options;
  options.handshake_deadline = Milliseconds(20);
  start_server(std::move(options));
  EXPECT_TRUE(server_->expect_peer(::getpid()));
  EXPECT_EQ(failure_.get_future().get().code, Code::kDeadlineExceeded);
}

TEST_F(PageServerTest, StrangersAreTurnedAway) {
  PageServerOptions options;
  options.handshake_deadline = Milliseconds(200);
  start_server(std::move(options));
  EXPECT_TRUE(server_->expect_peer(1));
  const auto stranger = connect_unix(socket_path());
  ASSERT_TRUE(stranger);
  (void)send_all(stranger->get(), std::as_bytes(std::span("[]", 2)), {});  // it may be turned away before
  EXPECT_EQ(failure_.get_future().get().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(server_->regions().empty());
}

// Neither strangers who connect again and again nor a VMM that always has a byte more keep it waiting for longer.
TEST_F(PageServerTest, AFloodOfConnectionsDoesNotMoveTheDeadline) {
  PageServerOptions options;
  options.handshake_deadline = Milliseconds(100);
  start_server(std::move(options));
  EXPECT_TRUE(server_->expect_peer(1));
  auto failure = failure_.get_future();
  const auto given_up = [&] { return failure.wait_for(Milliseconds(0)) == std::future_status::ready; };
  std::vector<std::thread> strangers;
  strangers.reserve(2);
  for (int i = 0; i < 2; ++i) {
    strangers.emplace_back([&] {
      while (!given_up()) (void)connect_unix(socket_path());
    });
  }
  for (std::thread& stranger : strangers) stranger.join();
  EXPECT_EQ(failure.get().code, Code::kDeadlineExceeded);
}

TEST_F(PageServerTest, AVmmThatTalksOnAfterItsHandshakeIsNotTakenForDead) {
  FakeVmm vmm = serve();
  EXPECT_EQ(vmm.touch(0), content_of(0));
  vmm.send("[");
  EXPECT_THAT(failure_.get_future().get().message, HasSubstr("said more"));
}

TEST_F(PageServerTest, OnlyItsOwnerMayConnect) {
  start_server();
  EXPECT_EQ(std::filesystem::status(socket_path()).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

}  // namespace
}  // namespace stasis::pager
