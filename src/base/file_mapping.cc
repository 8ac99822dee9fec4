#include "base/file_mapping.h"

#include <signal.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <utility>

namespace stasis {

// A guarded range of addresses. The handler reads it without a lock: `begin` is set last and cleared first.
struct FileMapping::Slot {
  std::atomic<uint64_t> begin = 0;  // 0: free
  std::atomic<uint64_t> end = 0;
  std::atomic<bool> broken = false;
};

struct FileMappingGuard {
  static constexpr size_t kSlots = 4096;
  static constexpr uint64_t kPage = 4096;
  using Slot = FileMapping::Slot;

  static inline std::array<Slot, kSlots> slots;
  static inline std::mutex mutex;  // who takes and frees slots
  static inline struct sigaction previous;

  static Status install() {
    static const int error = [] {
      struct sigaction action {};
      action.sa_sigaction = on_bus_error;
      action.sa_flags = SA_SIGINFO | SA_ONSTACK;
      return ::sigaction(SIGBUS, &action, &previous) == 0 ? 0 : errno;
    }();
    if (error != 0) return fail_errno(error, "install a handler of SIGBUS");
    return {};
  }

  // Runs in the thread that touched the page, in place of the instruction that did.
  static void on_bus_error(int signal, siginfo_t* info, void* context) {
    const int saved = errno;
    if (info->si_code > 0 && replace(reinterpret_cast<uint64_t>(info->si_addr))) {
      errno = saved;
      return;
    }
    pass_on(signal, info, context);
  }

  static bool replace(uint64_t address) {
    for (Slot& slot : slots) {
      const uint64_t begin = slot.begin.load(std::memory_order_acquire);
      if (begin == 0 || address < begin || address >= slot.end.load(std::memory_order_relaxed)) continue;
      slot.broken.store(true);                                       // before anybody can see the zeros
      void* page = reinterpret_cast<void*>(address & ~(kPage - 1));  // NOLINT(performance-no-int-to-ptr)
      return ::mmap(page, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
    }
    return false;
  }

  // Not ours: what would have happened without this handler.
  static void pass_on(int signal, siginfo_t* info, void* context) {
    if ((previous.sa_flags & SA_SIGINFO) != 0) return previous.sa_sigaction(signal, info, context);
    if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
    ::signal(signal, SIG_DFL);  // the instruction runs again, and ends the process
    if (info->si_code <= 0) (void)::raise(signal);
  }

  static Slot* take(std::span<const std::byte> range) {
    const std::lock_guard lock(mutex);
    for (Slot& slot : slots) {
      if (slot.begin.load(std::memory_order_relaxed) != 0) continue;
      slot.broken.store(false, std::memory_order_relaxed);
      slot.end.store(reinterpret_cast<uint64_t>(range.data() + range.size()), std::memory_order_relaxed);
      slot.begin.store(reinterpret_cast<uint64_t>(range.data()), std::memory_order_release);
      return &slot;
    }
    return nullptr;
  }

  static void give_back(Slot* slot) {
    const std::lock_guard lock(mutex);
    slot->begin.store(0, std::memory_order_relaxed);
  }
};

Result<FileMapping> FileMapping::map(int fd, size_t length) {
  STASIS_TRY(FileMappingGuard::install());
  STASIS_ASSIGN(Mapping mapping, Mapping::shared_read_only(fd, length));
  STASIS_ASSIGN(Mapping for_kernel, Mapping::shared_read_only(fd, length));
  Slot* slot = FileMappingGuard::take(mapping.bytes());
  if (slot == nullptr) return fail(Code::kResourceExhausted, "too many files are mapped");
  return FileMapping(std::move(mapping), std::move(for_kernel), slot);
}

FileMapping::FileMapping(FileMapping&& other) noexcept
    : mapping_(std::move(other.mapping_)),
      for_kernel_(std::move(other.for_kernel_)),
      slot_(std::exchange(other.slot_, nullptr)) {}

FileMapping& FileMapping::operator=(FileMapping&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(for_kernel_, other.for_kernel_);
  std::swap(slot_, other.slot_);
  return *this;
}

FileMapping::~FileMapping() {
  if (slot_ != nullptr) FileMappingGuard::give_back(slot_);  // while the addresses are still ours
}

bool FileMapping::intact() const {
  std::atomic_thread_fence(std::memory_order_acquire);  // what was read was read before
  return slot_ != nullptr && !slot_->broken.load(std::memory_order_acquire);
}

uint64_t FileMapping::resident_pages(Range range) const {
  std::array<unsigned char, 64> pages;
  const std::span<std::byte> bytes = mapping_.bytes().subspan(range.offset, range.length);
  const size_t count = bytes.size() / FileMappingGuard::kPage;
  if (count > pages.size() || ::mincore(bytes.data(), bytes.size(), pages.data()) != 0) return 0;
  uint64_t resident = 0;
  for (size_t i = 0; i < count; ++i) resident |= uint64_t{pages[i] & 1U} << i;
  return resident;
}

}  // namespace stasis
