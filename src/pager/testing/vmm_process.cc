#include "pager/testing/vmm_process.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/memory.h"
#include "base/unix_socket.h"

namespace stasis::pager::testing {

struct VmmProcess::Command {
  enum class Op : uint32_t { kConnect, kReadAll, kWrite, kGiveBack, kUnmap, kMove, kFork, kDisconnect };
  Op op = Op::kReadAll;
  Ticket ticket = 0;
  uint64_t first = 0;
  uint64_t count = 0;
  uint64_t value = 0;
  std::array<char, 108> path = {};
};

namespace {

struct Answer {
  VmmProcess::Ticket ticket = 0;
  VmmReply reply;
};

template <typename Record>
bool read_record(int fd, Record& record) {
  return ::read(fd, &record, sizeof record) == sizeof record;  // one message of a SOCK_SEQPACKET
}

uint64_t add_to_hash(uint64_t hash, std::byte byte) { return (hash ^ std::to_integer<uint64_t>(byte)) * 0x100000001b3; }
constexpr uint64_t kEmptyHash = 0xcbf29ce484222325;

}  // namespace

// The process itself.
class VmmBody {
 public:
  using Command = VmmProcess::Command;
  using Op = Command::Op;

  VmmBody(const VmmShape& shape, int control) : shape_(shape), control_(control) {}

  bool set_up() {
    const uint64_t size = shape_.pages * shape_.page_size;
    const bool huge = shape_.page_size > 4096;
    UniqueFd own;
    if (shape_.shared && shape_.file < 0) {
      own = UniqueFd(::memfd_create("guest", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0)));
      if (::ftruncate(own.get(), static_cast<off_t>(size)) != 0) return false;
    }
    const int file = own ? own.get() : shape_.file;
    const int anonymous = file < 0 ? MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0) : 0;
    // Not reserved: a pool of huge pages may turn out to be empty when one is needed.
    const int flags = (shape_.shared ? MAP_SHARED : MAP_PRIVATE) | anonymous | MAP_NORESERVE;
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, file, 0);
    if (memory == MAP_FAILED) return false;
    memory_ = static_cast<std::byte*>(memory);
    return watch({reinterpret_cast<uint64_t>(memory), size});
  }
  bool watch(Range memory) {
    if (shape_.watch != VmmShape::Watch::kMissing) {
      auto uffd = UserFaultFd::create(true);
      if (!uffd) return false;
      uffd_ = std::move(*uffd);
      return shape_.watch == VmmShape::Watch::kNothing || uffd_.register_missing(memory, true).has_value();
    }
    // With features that UserFaultFd has no use for.
    UniqueFd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    uffdio_api api{};
    api.api = UFFD_API;
    api.features =
        UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS | shape_.features;
    uffdio_register range{};
    range.range = {memory.offset, memory.length};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    const bool done = ::ioctl(fd.get(), UFFDIO_API, &api) == 0 && ::ioctl(fd.get(), UFFDIO_REGISTER, &range) == 0;
    uffd_ = UserFaultFd(std::move(fd));
    return done;
  }

  [[noreturn]] void run() {
    const uint64_t address = reinterpret_cast<uint64_t>(memory_);
    const std::array fds{uffd_.fd()};
    if (!send_all(control_, std::as_bytes(std::span(&address, 1)), fds)) ::_exit(1);
    for (Command command; read_record(control_, command);) {
      std::thread([this, command] { answer(command.ticket, execute(command)); }).detach();
    }
    ::_exit(0);
  }

 private:
  void answer(VmmProcess::Ticket ticket, VmmReply reply) {
    const Answer answer{ticket, reply};
    const std::lock_guard lock(mutex_);
    if (::send(control_, &answer, sizeof answer, MSG_NOSIGNAL) < 0) ::_exit(1);
  }

  std::byte* page(uint64_t number) const { return memory_ + number * shape_.page_size; }
  nlohmann::json region(uint64_t first, uint64_t count) const {
    return {{"base_host_virt_addr", reinterpret_cast<uint64_t>(page(first))},
            {"size", count * shape_.page_size},
            {"offset", first * shape_.page_size},
            {"page_size", shape_.page_size},
            {"page_size_kib", shape_.page_size},
            {"stasis_write_protect", shape_.watch == VmmShape::Watch::kMissingAndWrites}};
  }
  VmmReply connect(const char* path) {
    auto connected = connect_unix(path);
    if (!connected) return {};
    nlohmann::json regions = nlohmann::json::array();
    if (shape_.first_half > 0) regions.push_back(region(0, shape_.first_half));
    regions.push_back(region(shape_.first_half, shape_.pages - shape_.first_half));
    const std::string text = regions.dump();
    const std::array fds{uffd_.fd()};
    const bool sent = send_all(connected->get(), std::as_bytes(std::span(text)), fds).has_value();
    connection_ = std::move(*connected);  // open until the process ends, as with Firecracker
    return {sent, 0};
  }
  bool discard(uint64_t first, uint64_t count) const {
    const std::span range(page(first), count * shape_.page_size);
    return (shape_.shared ? discard_shared(range) : discard_anonymous(range)).has_value();
  }
  VmmReply give_back(const Command& command) const {
    if (command.value == 0) return {discard(command.first, command.count), 0};
    bool ok = true;
    for (uint64_t round = 0; round < command.value; ++round) {
      for (uint64_t at = 0; at < command.count; at += 5) ok &= discard(command.first + at, 1);
    }
    return {ok, 0};
  }

  VmmReply execute(const Command& command) {
    const uint64_t bytes = command.count * shape_.page_size;
    switch (command.op) {
      case Op::kConnect:
        return connect(command.path.data());
      case Op::kReadAll: {
        uint64_t hash = kEmptyHash;
        std::byte last{};
        for (uint64_t i = 0; i < command.count; ++i) {
          last = *static_cast<volatile std::byte*>(page(command.first + i) + 17);
          hash = add_to_hash(hash, last);
        }
        return {true, command.count == 1 ? std::to_integer<uint64_t>(last) : hash};
      }
      case Op::kWrite:
        std::memset(page(command.first), static_cast<int>(command.value), shape_.page_size);
        return {true, 0};
      case Op::kGiveBack:
        return give_back(command);
      case Op::kUnmap:
        return {::munmap(page(command.first), bytes) == 0, 0};
      case Op::kMove:
        return {::mremap(page(command.first), bytes, 2 * bytes, MREMAP_MAYMOVE) != MAP_FAILED, 0};
      case Op::kFork: {
        const pid_t child = ::fork();
        if (child == 0) ::_exit(0);
        return {::waitpid(child, nullptr, 0) == child, 0};
      }
      case Op::kDisconnect:
        connection_.reset();
        return {true, 0};
    }
    return {};
  }

  VmmShape shape_;
  int control_;
  std::byte* memory_ = nullptr;
  UserFaultFd uffd_;
  UniqueFd connection_;
  std::mutex mutex_;
};

std::unique_ptr<VmmProcess> VmmProcess::start(const VmmShape& shape) {
  auto sockets = unix_socket_pair(SOCK_SEQPACKET);
  if (!sockets) return nullptr;
  auto& [ours, theirs] = *sockets;
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ours.reset();
    VmmBody body(shape, theirs.get());
    if (!body.set_up()) ::_exit(1);
    body.run();
  }
  theirs.reset();
  uint64_t address = 0;
  auto hello = receive_with_fds(ours.get(), std::as_writable_bytes(std::span(&address, 1)));
  if (!hello || hello->fds.size() != 1) {
    ::waitpid(pid, nullptr, 0);
    return nullptr;
  }
  return std::unique_ptr<VmmProcess>(
      new VmmProcess(shape, pid, std::move(ours), UserFaultFd(std::move(hello->fds[0])), address));
}

VmmProcess::~VmmProcess() { kill(); }

void VmmProcess::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

VmmProcess::Ticket VmmProcess::send(Command command) {
  command.ticket = next_++;
  (void)::send(control_.get(), &command, sizeof command, MSG_NOSIGNAL);  // to one that is dead: never done
  return command.ticket;
}

VmmProcess::Ticket VmmProcess::connect(const Path& socket) {
  Command command{.op = Command::Op::kConnect};
  socket.native().copy(command.path.data(), command.path.size() - 1);
  return send(command);
}
VmmProcess::Ticket VmmProcess::read(uint64_t page) { return read_all(page, 1); }
VmmProcess::Ticket VmmProcess::read_all(uint64_t first, uint64_t count) {
  return send({.op = Command::Op::kReadAll, .first = first, .count = count});
}
VmmProcess::Ticket VmmProcess::write(uint64_t page, std::byte value) {
  return send({.op = Command::Op::kWrite, .first = page, .count = 1, .value = std::to_integer<uint64_t>(value)});
}
VmmProcess::Ticket VmmProcess::give_back(uint64_t first, uint64_t count) { return give_back_often(first, count, 0); }
VmmProcess::Ticket VmmProcess::give_back_often(uint64_t first, uint64_t count, uint64_t rounds) {
  return send({.op = Command::Op::kGiveBack, .first = first, .count = count, .value = rounds});
}
VmmProcess::Ticket VmmProcess::unmap(uint64_t first, uint64_t count) {
  return send({.op = Command::Op::kUnmap, .first = first, .count = count});
}
VmmProcess::Ticket VmmProcess::move(uint64_t first, uint64_t count) {
  return send({.op = Command::Op::kMove, .first = first, .count = count});
}
VmmProcess::Ticket VmmProcess::fork() { return send({.op = Command::Op::kFork}); }
VmmProcess::Ticket VmmProcess::disconnect() { return send({.op = Command::Op::kDisconnect}); }

bool VmmProcess::receive(Deadline deadline) {
  const auto ready = wait_readable(control_.get(), deadline);
  Answer answer;
  if (!ready || !*ready || !read_record(control_.get(), answer)) return false;
  replies_[answer.ticket] = answer.reply;
  return true;
}

bool VmmProcess::is_done(Ticket ticket) {
  while (!replies_.contains(ticket) && receive(Deadline::after(Milliseconds(0)))) {
  }
  return replies_.contains(ticket);
}

std::optional<VmmReply> VmmProcess::wait(Ticket ticket, Deadline deadline) {
  while (!replies_.contains(ticket)) {
    if (!receive(deadline)) return std::nullopt;
  }
  return replies_[ticket];
}

std::optional<std::byte> VmmProcess::read_now(uint64_t page) {
  const auto reply = wait(read(page));
  return reply ? std::optional(static_cast<std::byte>(reply->value)) : std::nullopt;
}

// "pending:\t1\ntotal:\t3\nAPI:\t..."
uint64_t VmmProcess::faults_waiting() const {
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(uffd_.fd()));
  uint64_t total = 0;
  for (std::string word; info >> word;) {
    if (word == "total:") info >> total;
  }
  return total;
}

bool VmmProcess::await_faults(uint64_t count) const {
  const Deadline deadline = Deadline::after(Milliseconds(20'000));
  while (faults_waiting() != count && !deadline.passed()) std::this_thread::yield();
  return faults_waiting() == count;
}

bool VmmProcess::await_event() const {
  const auto ready = wait_readable(uffd_.fd(), Deadline::after(Milliseconds(20'000)));
  return ready && *ready;
}

// The kernel refuses to install anything while a REMOVE waits, and says so before it sees that the page is there.
bool VmmProcess::await_remove(uint64_t there) const {
  const Range page{address_ + there * shape_.page_size, shape_.page_size};
  const Deadline deadline = Deadline::after(Milliseconds(20'000));
  while (uffd_.zero(page).outcome != InstallOutcome::kTryAgain) {
    if (deadline.passed()) return false;
    std::this_thread::yield();
  }
  return true;
}

// "Anonymous:         1234 kB"
uint64_t VmmProcess::own_bytes() const {
  std::ifstream rollup("/proc/" + std::to_string(pid_) + "/smaps_rollup");
  uint64_t kib = 0;
  for (std::string word; rollup >> word;) {
    if (word == "Anonymous:") rollup >> kib;
  }
  return kib << 10;
}

std::vector<std::byte> VmmProcess::content(uint64_t page) const {
  std::vector<std::byte> bytes(shape_.page_size);
  const auto memory = real_file_system().open_read("/proc/" + std::to_string(pid_) + "/mem");
  const auto read = memory ? real_file_system().read_at(memory->get(), address_ + page * shape_.page_size, bytes)
                           : Result<size_t>(fail(memory.error()));
  if (!read || *read != bytes.size()) bytes.clear();
  return bytes;
}

uint64_t hash_of(const std::vector<std::byte>& bytes) {
  uint64_t hash = kEmptyHash;
  for (const std::byte byte : bytes) hash = add_to_hash(hash, byte);
  return hash;
}

}  // namespace stasis::pager::testing
