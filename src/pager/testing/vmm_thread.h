// A page server, and a VMM that is a thread of this test: it registers memory with the kernel's userfaultfd, does the
// handshake and touches pages, as Firecracker and QEMU do.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "base/unix_socket.h"
#include "base/userfaultfd.h"
#include "pager/testing/page_server_fixture.h"
#include "snapshot/ranges.h"

namespace stasis::pager::testing {

using snapshot::kBlockSize;

// The VMM's side.
struct FakeVmm {
  Mapping memory;
  UserFaultFd uffd;
  UniqueFd socket;

  static nlohmann::json region(uint64_t address, uint64_t size, uint64_t offset) {
    return {{"base_host_virt_addr", address}, {"size", size}, {"offset", offset}, {"page_size_kib", 4096}};
  }

  void set_up() {
    memory = std::move(*Mapping::anonymous(kSize));
    uffd = std::move(*UserFaultFd::create(false));
    ASSERT_TRUE(uffd.register_missing({memory.address(), kSize}, false));
  }
  // Only these are missing; every other page is full of 0xee.
  void set_up_but_for_the_rest(const std::vector<Range>& served) {
    memory = std::move(*Mapping::anonymous(kSize));
    uffd = std::move(*UserFaultFd::create(false));
    const std::array all{Range{0, kSize}};
    for (const Range& range : snapshot::subtract(all, served)) {
      std::ranges::fill(memory.bytes().subspan(range.offset, range.length), std::byte{0xee});
    }
    for (const Range& range : served) {
      ASSERT_TRUE(uffd.register_missing({memory.address() + range.offset, range.length}, false));
    }
  }
  void connect(const Path& path) { socket = std::move(*connect_unix(path)); }
  void send(const std::string& text) const {
    const std::array fds{uffd.fd()};
    ASSERT_TRUE(send_all(socket.get(), std::as_bytes(std::span(text)), fds));
  }
  void hand_over(const Path& path) {
    connect(path);
    // The second half comes first: regions are found by address, wherever they lie in guest memory.
    const uint64_t half = kSize / 2;
    send(
        nlohmann::json::array({region(memory.address() + half, half, half), region(memory.address(), half, 0)}).dump());
  }
  std::byte touch(uint64_t page) const {
    return *static_cast<volatile std::byte*>(memory.bytes().data() + page * kBlockSize + 17);
  }
};

class PageServerTest : public PageServerFixture {
 protected:
  // A page server, and the VMM that has handed its memory over to it.
  FakeVmm serve(PageServerOptions options = {}) {
    start_server(std::move(options));
    FakeVmm vmm;
    vmm.set_up();
    EXPECT_TRUE(server_->expect_peer(::getpid()));
    vmm.hand_over(socket_path());
    return vmm;
  }
};

}  // namespace stasis::pager::testing
