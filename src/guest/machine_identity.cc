#include "guest/machine_identity.h"

#include <fcntl.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <vector>

#include "base/fd.h"
#include "guest/small_files.h"

namespace stasis::guest {
namespace {

constexpr int64_t kBehindNs = 50'000'000;
constexpr int64_t kAheadNs = 5'000'000'000;
constexpr size_t kMaxEntropy = 4096;
constexpr size_t kMaxHosts = size_t{1} << 20;

}  // namespace

bool valid_hostname(std::string_view name) {
  bool characters = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
  return !name.empty() && name.size() <= 63 && characters && name.front() != '-' && name.front() != '.';
}

bool valid_machine_id(std::string_view id) {
  return id.size() == 32 &&
         std::all_of(id.begin(), id.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string hosts_with_name(std::string_view hosts, const std::string& hostname) {
  std::string out;
  while (!hosts.empty()) {
    std::string_view line = hosts.substr(0, hosts.find('\n'));
    hosts.remove_prefix(std::min(hosts.size(), line.size() + 1));
    bool old = line.starts_with("127.0.1.1 ") || line.starts_with("127.0.1.1\t");
    if (!old) out.append(line).push_back('\n');
  }
  return out + "127.0.1.1 " + hostname + "\n";
}

Status set_hostname(const MachineScope& scope, const std::string& name) {
  if (!valid_hostname(name)) return fail(Code::kInvalidArgument, "'" + name + "' is not a host name");
  if (scope.kernel && sethostname(name.data(), name.size()) != 0) return fail_errno(errno, "set host name");
  STASIS_TRY(write_small_file(scope.root + "/etc/hostname", name + "\n"));
  std::string hosts = read_small_file(scope.root + "/etc/hosts", kMaxHosts).value_or("127.0.0.1 localhost\n");
  return write_small_file(scope.root + "/etc/hosts", hosts_with_name(hosts, name));
}

Status set_machine_id(const MachineScope& scope, const std::string& id) {
  if (!valid_machine_id(id)) return fail(Code::kInvalidArgument, "machineId is not 32 lower-case hexadecimal digits");
  return write_small_file(scope.root + "/etc/machine-id", id + "\n");
}

Status add_entropy(const MachineScope& scope, std::string_view bytes) {
  if (bytes.empty() || bytes.size() > kMaxEntropy) {
    return fail(Code::kInvalidArgument, "entropy must be 1 to " + std::to_string(kMaxEntropy) + " bytes");
  }
  if (!scope.kernel) return {};
  UniqueFd fd(open("/dev/random", O_RDWR | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open /dev/random");
  std::vector<char> buffer(sizeof(rand_pool_info) + bytes.size() + sizeof(__u32));
  auto* pool = reinterpret_cast<rand_pool_info*>(buffer.data());
  pool->entropy_count = static_cast<int>(bytes.size() * 8);
  pool->buf_size = static_cast<int>(bytes.size());
  std::memcpy(pool->buf, bytes.data(), bytes.size());
  if (ioctl(fd.get(), RNDADDENTROPY, pool) != 0) return fail_errno(errno, "add entropy");
  // Adding alone does not change the generator's key until the kernel's next reseed, up to a minute away.
  // (ENODATA: it has no key yet, and makes the first one from what was added.)
  if (ioctl(fd.get(), RNDRESEEDCRNG, nullptr) != 0 && errno != ENODATA) {
    return fail_errno(errno, "reseed the random generator");
  }
  return {};
}

bool clock_is_off(int64_t now_ns, int64_t host_ns) {
  return now_ns < host_ns - kBehindNs || now_ns > host_ns + kAheadNs;
}

Status correct_clock(const MachineScope& scope, int64_t unix_ns) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (!scope.kernel || !clock_is_off(now.tv_sec * 1'000'000'000 + now.tv_nsec, unix_ns)) return {};
  const timespec wanted{unix_ns / 1'000'000'000, unix_ns % 1'000'000'000};
  if (clock_settime(CLOCK_REALTIME, &wanted) != 0) return fail_errno(errno, "set the clock");
  return {};
}

Status write_run_file(const MachineScope& scope, const std::string& name, std::string_view content) {
  std::string directory = scope.root + "/run/e2b";
  if (mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, "create " + directory);
  return write_small_file(directory + "/." + name, content);
}

}  // namespace stasis::guest
