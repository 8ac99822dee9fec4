#include "vmm/firecracker/version.h"

#include <charconv>
#include <cstdlib>
#include <utility>

#include "base/file_system.h"
#include "base/memory.h"
#include "base/process.h"
#include "vmm/firecracker/firecracker.h"
#include "vmm/host_cpu.h"

namespace stasis::vmm {
namespace {

constexpr std::pair<int, int> kOldest{1, 13};
constexpr size_t kMaxVersionOutput = 4096;
constexpr Milliseconds kVersionDeadline{10'000};

// "1.16.1" -> {1, 16}; {-1, -1} if it does not begin like that.
std::pair<int, int> major_minor(std::string_view text) {
  std::pair<int, int> version{-1, -1};
  const char* end = text.data() + text.size();
  const auto major = std::from_chars(text.data(), end, version.first);
  if (major.ec != std::errc{} || major.ptr == end || *major.ptr != '.') return {-1, -1};
  const auto minor = std::from_chars(major.ptr + 1, end, version.second);
  return minor.ec == std::errc{} ? version : std::pair{-1, -1};
}

// Standard output of `program --version`.
Result<std::string> version_output(const std::string& program) {
  STASIS_ASSIGN(const UniqueFd output, create_memory_file("version", 0));
  SpawnOptions options;
  options.argv = {program, "--version"};
  options.stdout_fd = output.get();
  options.die_with_parent = true;
  STASIS_ASSIGN(Process process, spawn(options));
  STASIS_ASSIGN(const auto ended, process.wait(Deadline::after(kVersionDeadline)));
  if (!ended) return fail(Code::kDeadlineExceeded, program + " --version does not end");
  if (!ended->success()) return fail(Code::kInternal, program + " --version: " + ended->text());
  std::string text(kMaxVersionOutput, '\0');
  STASIS_ASSIGN(const size_t length,
                real_file_system().read_at(output.get(), 0, std::as_writable_bytes(std::span(text))));
  text.resize(length);
  return text;
}

}  // namespace

std::string firecracker_program() {
  const char* named = std::getenv("STASIS_FIRECRACKER");
  return named != nullptr && *named != '\0' ? named : "firecracker";
}

Result<std::string> supported_version(std::string_view text) {
  const size_t digit = text.find_first_of("0123456789");
  const std::string_view from_digit = digit == std::string_view::npos ? std::string_view{} : text.substr(digit);
  std::string version(from_digit.substr(0, from_digit.find_first_of(" \t\r\n")));
  const auto number = major_minor(version);
  if (number.first < 0)
    return fail(Code::kInternal, "no version of Firecracker: \"" + std::string(text.substr(0, 100)) + "\"");
  if (number < kOldest) {
    return fail(Code::kUnimplemented, "Firecracker " + version + " is too old: 1.13 or later is needed",
                kFirecrackerRemedy);
  }
  return version;
}

Result<VmmInfo> probe_firecracker() {
  auto output = version_output(firecracker_program());
  if (!output) {
    return fail(Code::kNotFound, "Firecracker does not run: " + output.error().message, kFirecrackerRemedy);
  }
  STASIS_ASSIGN(std::string version, supported_version(*output));
  return VmmInfo{"firecracker", std::move(version), "kvm", host_cpu_model()};
}

}  // namespace stasis::vmm
