#include "base/userfaultfd.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <string_view>

#include "base/pagemap.h"
#include "base/sync_point.h"

namespace stasis {
namespace {

// Newer than Debian 12's kernel headers (6.1): values from include/uapi/linux/userfaultfd.h of Linux 6.7.
constexpr uint64_t kFeatureWpUnpopulated = 1U << 13;
constexpr uint64_t kFeatureWpAsync = 1U << 15;

constexpr uint64_t kAsyncFeatures =
    UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | kFeatureWpUnpopulated | kFeatureWpAsync;
constexpr uint64_t kBaseFeatures = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_SHMEM;

UniqueFd new_userfaultfd() { return UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))); }

bool negotiate(int fd, uint64_t features, uint64_t& offered) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  const bool ok = ::ioctl(fd, UFFDIO_API, &api) == 0;
  offered = api.features;
  return ok;
}

// `answer` is the kernel's count of bytes installed, or a negative errno.
InstallResult outcome_of(int ioctl_result, int error_number, int64_t answer) {
  InstallResult result;
  result.bytes = answer > 0 ? static_cast<uint64_t>(answer) : 0;
  if (ioctl_result == 0) return result;
  result.error_number = error_number;
  switch (error_number) {
    case EEXIST:
      result.outcome = InstallOutcome::kExists;
      break;
    case EAGAIN:
      result.outcome = InstallOutcome::kTryAgain;
      break;
    case ESRCH:
      result.outcome = InstallOutcome::kProcessGone;
      break;
    case ENOENT:
      result.outcome = InstallOutcome::kUnregistered;
      break;
    default:
      result.outcome = InstallOutcome::kFailed;
  }
  return result;
}

// `call` installs so many bytes from the start of `range`.
template <typename Call>
InstallResult install(const char* point, Range range, Call call) {
  InstallAttempt attempt{range};
  sync_point(point, &attempt);
  if (attempt.answer) return *attempt.answer;
  InstallResult result = call(attempt.range.length);
  if (attempt.range.length < range.length && result.outcome == InstallOutcome::kDone) {
    result.outcome = InstallOutcome::kTryAgain;
    result.error_number = EAGAIN;
  }
  return result;
}

FaultEvent decode(const uffd_msg& message) {
  FaultEvent event;
  switch (message.event) {
    case UFFD_EVENT_PAGEFAULT:
      event.kind = FaultEvent::Kind::kPageFault;
      event.address = message.arg.pagefault.address;
      event.write_protect = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0;
      event.write = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
      break;
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
      event.kind = message.event == UFFD_EVENT_REMOVE ? FaultEvent::Kind::kRemove : FaultEvent::Kind::kUnmap;
      event.address = message.arg.remove.start;
      event.end = message.arg.remove.end;
      break;
    case UFFD_EVENT_REMAP:
      event.kind = FaultEvent::Kind::kRemap;
      break;
    case UFFD_EVENT_FORK:
      UniqueFd(static_cast<int>(message.arg.fork.ufd)).reset();
      event.kind = FaultEvent::Kind::kFork;
      break;
    default:
      event.kind = FaultEvent::Kind::kUnknown;
  }
  return event;
}

}  // namespace

Result<UserFaultFd> UserFaultFd::received(UniqueFd fd) {
  std::array<char, 64> target{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  if (length < 0) return fail_errno(errno, "read " + link);
  const std::string_view name(target.data(), static_cast<size_t>(length));
  if (name != "anon_inode:[userfaultfd]") {
    return fail(Code::kInvalidArgument, "the descriptor, " + std::string(name) + ", is no userfaultfd");
  }
  if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0) return fail_errno(errno, "make the userfaultfd non-blocking");
  return UserFaultFd(std::move(fd));
}

Result<UserFaultFd> UserFaultFd::create(bool write_protect_async) {
  UniqueFd fd = new_userfaultfd();
  if (!fd) return fail_errno(errno, "create userfaultfd");
  uint64_t offered = 0;
  if (!negotiate(fd.get(), kBaseFeatures | (write_protect_async ? kAsyncFeatures : 0), offered)) {
    return fail(Code::kUnimplemented, "this kernel's userfaultfd lacks a feature that Stasis needs",
                "run Linux 5.7 or newer (6.9 for exact dirty tracking)");
  }
  return UserFaultFd(std::move(fd));
}

Status UserFaultFd::register_missing(Range range, bool write_protect) const {
  uffdio_register request{};
  request.range = {range.offset, range.length};
  request.mode = UFFDIO_REGISTER_MODE_MISSING | (write_protect ? UFFDIO_REGISTER_MODE_WP : 0);
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) != 0) return fail_errno(errno, "register range with userfaultfd");
  return {};
}

Status UserFaultFd::register_write_protect(Range range) const {
  uffdio_register request{};
  request.range = {range.offset, range.length};
  request.mode = UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) != 0) return fail_errno(errno, "track what is written");
  return {};
}

Status UserFaultFd::unregister(Range range) const {
  uffdio_range request{range.offset, range.length};
  if (::ioctl(fd_.get(), UFFDIO_UNREGISTER, &request) != 0) return fail_errno(errno, "end tracking what is written");
  return {};
}

Result<size_t> UserFaultFd::read_events(std::span<FaultEvent> events) const {
  std::array<uffd_msg, 64> messages;
  const size_t wanted = std::min(events.size(), messages.size());
  for (;;) {
    const ssize_t n = ::read(fd_.get(), messages.data(), wanted * sizeof(uffd_msg));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return size_t{0};
    if (n < 0) return fail_errno(errno, "read userfaultfd");
    if (n == 0) return fail(Code::kUnavailable, "userfaultfd: the process has gone");
    ReadEvents read{events, static_cast<size_t>(n) / sizeof(uffd_msg)};
    for (size_t i = 0; i < read.count; ++i) events[i] = decode(messages[i]);
    sync_point("userfaultfd.events", &read);
    return read.count;
  }
}

InstallResult UserFaultFd::copy(uint64_t address, std::span<const std::byte> source, bool write_protect,
                                bool wake) const {
  return install("userfaultfd.copy", {address, source.size()}, [&](uint64_t length) {
    uffdio_copy request{};
    request.dst = address;
    request.src = reinterpret_cast<uint64_t>(source.data());
    request.len = length;
    request.mode = (write_protect ? UFFDIO_COPY_MODE_WP : 0) | (wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE);
    const int result = ::ioctl(fd_.get(), UFFDIO_COPY, &request);
    return outcome_of(result, errno, request.copy);
  });
}

InstallResult UserFaultFd::zero(Range range, bool wake) const {
  return install("userfaultfd.zero", range, [&](uint64_t length) {
    uffdio_zeropage request{};
    request.range = {range.offset, length};
    request.mode = wake ? 0 : UFFDIO_ZEROPAGE_MODE_DONTWAKE;
    const int result = ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &request);
    return outcome_of(result, errno, request.zeropage);
  });
}

Status UserFaultFd::protect(Range range) const {
  uffdio_writeprotect request{};
  request.range = {range.offset, range.length};
  request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  if (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) != 0) return fail_errno(errno, "write-protect range");
  return {};
}

Status UserFaultFd::wake(Range range) const {
  uffdio_range request{range.offset, range.length};
  if (::ioctl(fd_.get(), UFFDIO_WAKE, &request) != 0) return fail_errno(errno, "wake range");
  return {};
}

UserFaultSupport probe_userfaultfd() {
  UserFaultSupport support;
  const UniqueFd fd = new_userfaultfd();
  if (!fd) return support;
  uint64_t offered = 0;
  if (!negotiate(fd.get(), 0, offered)) return support;
  support.available = true;
  support.missing_shmem = (offered & UFFD_FEATURE_MISSING_SHMEM) != 0;
  support.event_remove = (offered & UFFD_FEATURE_EVENT_REMOVE) != 0;
  support.write_protect_async = (offered & kAsyncFeatures) == kAsyncFeatures && kernel_tells_written_pages();
  return support;
}

}  // namespace stasis
