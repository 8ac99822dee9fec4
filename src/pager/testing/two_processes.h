// A page server in the test, and its VMM in a process of its own.
#pragma once

#include <memory>
#include <utility>

#include "pager/testing/page_server_fixture.h"
#include "pager/testing/vmm_process.h"

namespace stasis::pager::testing {

class TwoProcesses : public PageServerFixture {
 protected:
  // Starts a VMM and a page server, and waits until the memory has been handed over. Regions meet at page 128.
  void serve(VmmShape shape = {}, PageServerOptions options = {}) {
    start_vmm(shape);
    start_server(std::move(options));
    ASSERT_TRUE(server_->expect_peer(vmm_->pid()));
    const auto connected = vmm_->wait(vmm_->connect(socket_path()));
    ASSERT_TRUE(connected && connected->ok);
    ASSERT_TRUE(server_->await_handshake(Deadline::after(Milliseconds(20'000))));
  }
  void start_vmm(VmmShape shape = {}) {
    shape.pages = kPages;
    shape.first_half = kPages / 2;
    vmm_ = VmmProcess::start(shape);
    ASSERT_NE(vmm_, nullptr);
  }
  void TearDown() override {
    // It may wait for a page that nobody will bring.
    if (vmm_) vmm_->kill();
    server_.reset();
  }
  bool failed() { return failure_.get_future().wait_for(Milliseconds(0)) == std::future_status::ready; }

  void expect_content(uint64_t first, uint64_t count) {
    std::vector<std::byte> expected;
    for (uint64_t page = first; page < first + count; ++page) expected.push_back(content_of(page));
    const auto reply = vmm_->wait(vmm_->read_all(first, count));
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->value, hash_of(expected)) << "pages " << first << " to " << first + count;
  }

  std::unique_ptr<VmmProcess> vmm_;
};

}  // namespace stasis::pager::testing
