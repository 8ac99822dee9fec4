// What a VMM may say when it hands its memory over, and what it is refused for.
#include "pager/handshake.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "base/memory.h"
#include "base/unix_socket.h"
#include "pager/array_end.h"

namespace stasis::pager {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMemory = 8 << 20;
constexpr std::array kWhole{Range{0, kMemory}};
Deadline soon() { return Deadline::after(Milliseconds(20'000)); }

UniqueFd new_userfaultfd(int flags) {
  return UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | flags)));
}

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// `page_sizes` is spliced into the object, so that a name may be there, or not, or wrong.
std::string region(uint64_t address, uint64_t size, uint64_t offset, const std::string& page_sizes) {
  return R"({"base_host_virt_addr":)" + std::to_string(address) + R"(,"size":)" + std::to_string(size) +
         R"(,"offset":)" + std::to_string(offset) + page_sizes + "}";
}

constexpr uint64_t kAt = uint64_t{0x7f} << 40;
constexpr uint64_t kHalf = kMemory / 2;
const std::string kNew = R"(,"page_size":4096)";
const std::string kOld = R"(,"page_size_kib":4096)";
const std::string kHuge = R"(,"page_size":2097152)";
std::string whole(const std::string& page_sizes) { return "[" + region(kAt, kMemory, 0, page_sizes) + "]"; }
std::string two(uint64_t second_at, uint64_t second_offset, const std::string& first = kNew,
                const std::string& second = kNew) {
  return "[" + region(kAt, kHalf, 0, first) + "," + region(second_at, kHalf, second_offset, second) + "]";
}
std::string replaced(std::string text, const std::string& what, const std::string& by) {
  return text.replace(text.find(what), what.size(), by);
}

struct Form {
  std::string name;
  std::string text;
  std::string refusal = {};  // part of it; empty: it is accepted
  size_t regions = 1;
  uint64_t page_size = 4096;
};

std::ostream& operator<<(std::ostream& out, const Form& form) { return out << form.name; }

const std::vector<Form> kForms{
    // What Firecracker says, as of its version.
    {"BeforeFirecracker112", whole(kOld)},
    {"Firecracker112", whole(kNew + kOld)},
    {"WithoutTheOldName", whole(kNew)},
    {"HugePagesOldName", whole(R"(,"page_size_kib":2097152)"), "", 1, 2 << 20},
    {"HugePages", whole(kHuge + R"(,"page_size_kib":2097152)"), "", 1, 2 << 20},
    {"TwoRegionsThatTouch", two(kAt + kHalf, kHalf), "", 2},
    {"TwoRegionsWithAGap", two(kAt + 10 * kMemory, kHalf), "", 2},
    {"TheLaterOneLower", two(kAt - kMemory, kHalf), "", 2},
    {"TwoHugeRegionsWithAGap", two(kAt + kMemory, kHalf, kHuge, kHuge), "", 2, 2 << 20},
    {"UnknownFields", whole(kNew + R"(,"of":{"later":["versions\"]",1]})")},
    {"Spaces", " \n" + replaced(whole(kNew), ":", " :\t") + "\r\n"},

    {"TwoSizes", whole(kHuge + kOld), "page_size 2097152 and page_size_kib 4096 (bytes, both) of one region differ"},
    {"TrulyKib", whole(kNew + R"(,"page_size_kib":4)"), "page_size 4096 and page_size_kib 4 (bytes"},
    {"TrulyKibAlone", whole(R"(,"page_size_kib":4)"), "page size 4 is neither"},
    {"OtherSize", whole(R"(,"page_size":16384)"), "page size 16384 is neither 4 KiB nor 2 MiB"},
    {"Gigabyte", whole(R"(,"page_size":1073741824)"), "neither 4 KiB nor 2 MiB"},
    {"ZeroSize", whole(R"(,"page_size":0)"), "page size 0 is neither"},
    {"NoSize", whole(""), "without 'page_size' or 'page_size_kib'"},
    {"SizeInWords", whole(R"(,"page_size":"4K")"), "without a number 'page_size'"},
    {"OldSizeInWords", whole(kNew + R"(,"page_size_kib":"4K")"), "without a number 'page_size_kib'"},
    {"NegativeSize", whole(R"(,"page_size":-4096)"), "without a number 'page_size'"},
    {"FractionalSize", whole(R"(,"page_size":4096.5)"), "without a number 'page_size'"},
    {"MixedPages", two(kAt + kHalf, kHalf, kNew, kHuge), "4 KiB pages beside regions of 2 MiB pages"},
    {"MixedPagesOtherWay", two(kAt + kHalf, kHalf, kHuge, kNew), "4 KiB pages beside regions of 2 MiB pages"},
    {"HugeUnaligned", "[" + region(kAt + 4096, kMemory, 0, kHuge) + "]", "not aligned to its pages"},
    {"HugeUnalignedSize", "[" + region(kAt, kMemory - 4096, 0, kHuge) + "]", "not aligned to its pages"},
    {"UnalignedAddress", "[" + region(kAt + 1, kMemory, 0, kNew) + "]", "not aligned to its pages"},
    {"UnalignedSize", "[" + region(kAt, kMemory - 1, 0, kNew) + "]", "not aligned to its pages"},
    {"UnalignedOffset", "[" + region(kAt, kMemory, 7, kNew) + "]", "not aligned to its pages"},
    {"EmptyRegion", "[" + region(kAt, 0, 0, kNew) + "]", "empty"},
    {"WrapsAround", "[" + region(UINT64_MAX - 4095, kMemory, 0, kNew) + "]", "wraps around"},
    {"NoSizeOfRegion", replaced(whole(kNew), R"("size")", R"("sise")"), "without a number 'size'"},
    {"NoAddress", replaced(whole(kNew), "base_host", "base"), "without a number 'base_host_virt_addr'"},
    {"NoOffset", replaced(whole(kNew), "offset", "of"), "without a number 'offset'"},
    {"OverlapInMemory", two(kAt + kHalf - 4096, kHalf), "overlap in memory"},
    {"OverlapInTheGuest", two(kAt + kHalf, kHalf - 4096), "overlap or leave a gap at offset 4194304"},
    {"GapInTheGuest", two(kAt + kHalf, kHalf + 4096), "overlap or leave a gap at offset 4194304"},
    {"Twice", two(kAt, 0), "overlap"},
    {"TooSmall", "[" + region(kAt, kHalf, 0, kNew) + "]", "the snapshot's memory 8388608"},
    {"TooLarge", "[" + region(kAt, 2 * kMemory, 0, kNew) + "]", "larger than the snapshot's memory"},
    {"NoRegions", "[]", "not a JSON array of regions"},
    {"NotARegion", "[1]", "not an object"},
    {"NotAnArray", region(kAt, kMemory, 0, kNew), "not a JSON array of regions"},
    {"Nonsense", "nonsense", "not a JSON array of regions"},
    {"WronglyClosed", "[}", "not a JSON array of regions"},
    {"MoreAfterIt", whole(kNew) + "x", "not a JSON array of regions"},
};

class HandshakeFormTest : public ::testing::TestWithParam<Form> {
 protected:
  void expect_right(const Result<Handshake>& handshake) const {
    const Form& form = GetParam();
    if (!form.refusal.empty()) {
      ASSERT_FALSE(handshake);
      EXPECT_EQ(handshake.error().code, Code::kInvalidArgument);
      EXPECT_THAT(handshake.error().message, HasSubstr(form.refusal));
      return;
    }
    ASSERT_TRUE(handshake) << handshake.error().message;
    ASSERT_EQ(handshake->regions.size(), form.regions);
    uint64_t before = 0;
    for (const Region& region : handshake->regions) {
      EXPECT_GE(region.host_address, before);
      before = region.host_address + region.size;
      EXPECT_EQ(region.page_size, form.page_size);
    }
    EXPECT_FALSE(handshake->write_protect);
  }
};

INSTANTIATE_TEST_SUITE_P(Forms, HandshakeFormTest, ::testing::ValuesIn(kForms),
                         [](const auto& form) { return form.param.name; });

TEST_P(HandshakeFormTest, OfTheTextAlone) { expect_right(parse_regions(GetParam().text, kWhole)); }

// Of a memory of which a part is to be served: just that part.
TEST(HandshakePartTest, JustWhatIsToBeServedIsHandedOver) {
  const std::vector<Range> part{{4096, 8192}, {kHalf, 4096}};
  const auto regions = [](const std::vector<Range>& ranges) {
    std::string text = "[";
    for (const Range& range : ranges) {
      text += (text.size() > 1 ? "," : "") + region(kAt + range.offset, range.length, range.offset, kNew);
    }
    return text + "]";
  };
  EXPECT_EQ(parse_regions(regions(part), part)->regions.size(), 2U);
  EXPECT_EQ(parse_regions(regions({{8192, 4096}, {kHalf, 4096}, {4096, 4096}}), part)->regions.size(), 3U);
  for (const std::vector<Range>& wrong :
       std::vector<std::vector<Range>>{{{0, kMemory}},
                                       {{4096, 8192}},
                                       {{kHalf, 4096}},
                                       {{4096, 4096}, {kHalf, 4096}},
                                       {{4096, 12288}, {kHalf, 4096}},
                                       {{0, 12288}, {kHalf, 4096}},
                                       {{4096, 8192}, {kHalf, 8192}},
                                       {{4096, 8192}, {kHalf, 4096}, {kMemory, 4096}},
                                       {{4096, 8192}, {16384, 4096}, {kHalf, 4096}}}) {
    EXPECT_FALSE(parse_regions(regions(wrong), part)) << regions(wrong);
  }
}

class HandshakeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto pair = unix_socket_pair();
    ASSERT_TRUE(pair);
    vmm_ = std::move(pair->first);
    server_ = std::move(pair->second);
    uffd_ = new_userfaultfd(O_NONBLOCK);
    ASSERT_TRUE(uffd_);
  }
  Status send(std::string_view text, int fds) const {
    return send_all(vmm_.get(), bytes_of(text), std::vector<int>(static_cast<size_t>(fds), uffd_.get()));
  }
  Result<Handshake> receive(Deadline deadline = soon()) const {
    return receive_handshake(server_.get(), kWhole, deadline);
  }

  static auto descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  }
  // Refused so, and what came with it is closed.
  void expect_refused(const std::string& why) const {
    const auto before = descriptors();
    const auto refused = receive();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
    EXPECT_THAT(refused.error().message, HasSubstr(why));
    EXPECT_EQ(descriptors(), before);
  }

  UniqueFd vmm_;
  UniqueFd server_;
  UniqueFd uffd_;
};

class HandshakePiecesTest : public HandshakeFormTest {};
INSTANTIATE_TEST_SUITE_P(Forms, HandshakePiecesTest, ::testing::ValuesIn(kForms),
                         [](const auto& form) { return form.param.name; });

// However it comes: at once, or each byte by itself, the descriptor with the first.
TEST_P(HandshakePiecesTest, ComesInAnyPieces) {
  const std::string& text = GetParam().text;
  const UniqueFd uffd = new_userfaultfd(O_NONBLOCK);
  for (const size_t piece : {text.size(), size_t{1}}) {
    auto pair = unix_socket_pair();
    const std::array fds{uffd.get()};
    std::thread vmm([&] {
      for (size_t at = 0; at < text.size(); at += piece) {
        const auto part = bytes_of(text).subspan(at, std::min(piece, text.size() - at));
        if (!send_all(pair->first.get(), part, std::span(fds).first(at == 0 ? 1 : 0))) break;
      }
      pair->first.reset();
    });
    const auto handshake = receive_handshake(pair->second.get(), kWhole, soon());
    vmm.join();
    // Byte by byte it may be complete before the one too many has come (page_server_test: AVmmThatTalksOn).
    if (GetParam().name != "MoreAfterIt" || !handshake) expect_right(handshake);
  }
}

TEST_F(HandshakeTest, ListLongerThanOneRead) {
  std::string text = "[";
  for (uint64_t i = 0; i < kMemory / 4096; ++i) {
    if (i > 0) text += ",";
    text += region(kAt + 2 * i * 4096, 4096, i * 4096, kNew + kOld + R"(,"padding":")" + std::string(300, ']') + '"');
  }
  text += "]";
  ASSERT_GT(text.size(), 512U << 10);
  std::thread sender([&] { EXPECT_TRUE(send(text, 1)); });
  const auto handshake = receive();
  sender.join();
  ASSERT_TRUE(handshake) << handshake.error().message;
  EXPECT_EQ(handshake->regions.size(), kMemory / 4096);
  EXPECT_GE(handshake->uffd.fd(), 0);
}

TEST_F(HandshakeTest, WriteProtectionIsTakenForThereOnlyIfAllRegionsSaySo) {
  const std::string yes = kNew + R"(,"stasis_write_protect":true)";
  const std::string no = kNew + R"(,"stasis_write_protect":false)";
  EXPECT_TRUE(parse_regions(whole(yes), kWhole)->write_protect);
  EXPECT_FALSE(parse_regions(whole(no), kWhole)->write_protect);
  EXPECT_FALSE(parse_regions(two(kAt + kHalf, kHalf, yes, no), kWhole)->write_protect);
  EXPECT_TRUE(parse_regions(two(kAt + kHalf, kHalf, yes, yes), kWhole)->write_protect);
}

TEST_F(HandshakeTest, TooManyRegionsAreRefused) {
  std::string text = "[";
  for (uint64_t i = 0; i <= kMaxRegions; ++i) {
    if (i > 0) text += ",";
    text += region(kAt + i * 4096, 4096, i * 4096, kNew);
  }
  EXPECT_THAT(parse_regions(text + "]", std::array{Range{0, (kMaxRegions + 1) * 4096}}).error().message,
              HasSubstr("more than 4096 regions"));
}

TEST_F(HandshakeTest, TwoDescriptorsAreRefused) {
  ASSERT_TRUE(send(whole(kNew), 2));
  expect_refused("expected one descriptor, got 2");
}

// Of them the kernel closes those for which there is no room.
TEST_F(HandshakeTest, MoreDescriptorsThanAreTakenAreRefusedAndClosed) {
  const std::vector<int> many(100, uffd_.get());
  std::vector<std::byte> control(CMSG_SPACE(many.size() * sizeof(int)));
  std::string text = whole(kNew);
  iovec part{text.data(), text.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(many.size() * sizeof(int));
  std::memcpy(CMSG_DATA(rights), many.data(), many.size() * sizeof(int));
  ASSERT_EQ(::sendmsg(vmm_.get(), &header, 0), static_cast<ssize_t>(text.size()));
  expect_refused("expected one descriptor, got 16");
}

TEST_F(HandshakeTest, DescriptorsWithoutARegionListAreRefusedAtTheSecond) {
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(send("[", 1));
  // The list is not complete and its sender stays connected: the second descriptor alone is the reason.
  expect_refused("expected one descriptor, got 2");
}

TEST_F(HandshakeTest, ListWithoutADescriptorIsRefused) {
  ASSERT_TRUE(send(whole(kNew), 0));
  EXPECT_THAT(receive().error().message, HasSubstr("got none"));
}

// Its owner would say what is an event: one of a fork has the number of a descriptor, which is closed.
TEST_F(HandshakeTest, WhatIsNoUserfaultfdIsRefused) {
  uffd_ = std::move(unix_socket_pair()->first);
  ASSERT_TRUE(send(whole(kNew), 1));
  expect_refused("], is no userfaultfd");
}

TEST_F(HandshakeTest, ABlockingUserfaultfdBlocksNobody) {
  uffd_ = new_userfaultfd(0);
  uffdio_api api{};
  api.api = UFFD_API;
  ASSERT_EQ(::ioctl(uffd_.get(), UFFDIO_API, &api), 0);
  ASSERT_TRUE(send(whole(kNew), 1));
  const auto handshake = receive();
  ASSERT_TRUE(handshake) << handshake.error().message;
  ASSERT_NE(::fcntl(handshake->uffd.fd(), F_GETFL) & O_NONBLOCK, 0);
  std::array<FaultEvent, 1> events;
  EXPECT_EQ(handshake->uffd.read_events(events).value(), 0U);
  EXPECT_FALSE(wait_readable(handshake->uffd.fd(), Deadline::after(Milliseconds(0))).value());
}

TEST_F(HandshakeTest, APeerThatIsSilentInTheMiddleIsGivenUp) {
  ASSERT_TRUE(send("[", 1));
  EXPECT_EQ(receive(Deadline::after(Milliseconds(20))).error().code, Code::kDeadlineExceeded);
}

TEST_F(HandshakeTest, APeerThatAlwaysHasAByteMoreIsGivenUpAtTheDeadline) {
  std::thread flood([&] {
    while (send(" ", 0)) {
    }
  });
  const auto refused = receive(Deadline::after(Milliseconds(20)));
  server_.reset();
  flood.join();
  EXPECT_EQ(refused.error().code, Code::kDeadlineExceeded);
}

TEST_F(HandshakeTest, AMessageWithoutEndIsRefusedAtItsBound) {
  std::thread flood([&] {
    const std::string much = "[" + std::string(kMaxHandshakeBytes, ' ');
    while (send(much, 0)) {
    }
  });
  const auto refused = receive();
  server_.reset();
  flood.join();
  EXPECT_THAT(refused.error().message, HasSubstr("longer than 1 MiB"));
}

// Refused while its sender is still connected: nobody waits for a list that this cannot become.
TEST_F(HandshakeTest, WhatIsNoListIsRefusedAtItsFirstByte) {
  ASSERT_TRUE(send("{", 1));
  EXPECT_THAT(receive().error().message, HasSubstr("not a JSON array of regions"));
}

TEST_F(HandshakeTest, WhatNestsTooDeeplyIsRefusedBeforeItIsParsed) {
  ASSERT_TRUE(send(std::string(ArrayEnd::kMaxDepth + 1, '['), 1));
  EXPECT_THAT(receive().error().message, HasSubstr("not a JSON array of regions"));
}

TEST(ArrayEndTest, BracketsInStringsAreNone) {
  const std::string text = R"( [{"a]":"\"]\\","b":[1,{}]}])";
  ArrayEnd end;
  for (const char& byte : text) {
    EXPECT_FALSE(end.reached());
    EXPECT_TRUE(end.look_at({&byte, 1}));
  }
  EXPECT_TRUE(end.reached());
}

}  // namespace
}  // namespace stasis::pager
