#include "vmm/contract/serial_guest.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/poll.h"
#include "tests/tiny_guest/commands.h"

namespace stasis::vmm::contract {
namespace {

std::string hex(uint64_t number) {
  std::ostringstream text;
  text << std::hex << number;
  return text.str();
}

std::string whole_file(const Path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

Result<std::unique_ptr<SerialGuest>> SerialGuest::create(const Path& runtime_dir, const Path& log,
                                                         uint64_t memory_bytes) {
  const Path path = runtime_dir / "console";
  if (::mkfifo(path.c_str(), 0600) != 0) return fail_errno(errno, "make " + path.string());
  UniqueFd console(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!console) return fail_errno(errno, "open " + path.string());
  auto guest = std::unique_ptr<SerialGuest>(new SerialGuest(std::move(console), log, memory_bytes));
  return guest;
}

uint64_t SerialGuest::arena_offset() { return TG_ARENA_OFFSET; }

uint64_t SerialGuest::checksum_of_fill(Range range, uint64_t seed) {
  uint64_t sum = 0;
  const uint64_t start = range.offset + arena_offset();
  for (uint64_t at = start; at < start + range.length; at += 8) sum = tg_checksum_step(sum, tg_pattern(seed, at));
  return sum;
}

uint64_t SerialGuest::checksum_of_zeros(Range range) {
  uint64_t sum = 0;
  for (uint64_t at = 0; at < range.length; at += 8) sum = tg_checksum_step(sum, 0);
  return sum;
}

Result<uint64_t> SerialGuest::ask(char letter, const std::vector<uint64_t>& numbers) {
  const std::string sequence = hex(++sequence_);
  std::string line = std::string(1, letter) + " " + sequence;
  for (const uint64_t number : numbers) line += " " + hex(number);
  line += "\n";
  if (::write(console_.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return fail_errno(errno, "write to the guest's console");
  }
  return await(sequence);
}

Result<uint64_t> SerialGuest::await(const std::string& sequence) {
  const Deadline deadline = Deadline::after(patience_);
  while (!deadline.passed()) {
    const std::string log = whole_file(log_);
    if (log.find("!" + sequence + "\n") != std::string::npos) return fail(Code::kUnimplemented, "the guest refused");
    const std::string mark = "=" + sequence + " ";
    if (const size_t at = log.find(mark); at != std::string::npos && log.find('\n', at) != std::string::npos) {
      uint64_t value = 0;
      std::from_chars(log.data() + at + mark.size(), log.data() + log.size(), value, 16);
      return value;
    }
    std::this_thread::sleep_for(Milliseconds(1));
  }
  return fail(Code::kDeadlineExceeded, "the guest does not answer");
}

Result<uint64_t> SerialGuest::ask_range(char letter, Range range) {
  return ask(letter, {range.offset + arena_offset(), range.length});
}

Result<uint64_t> SerialGuest::count() { return ask('c', {}); }

Status SerialGuest::fill(Range range, uint64_t seed) {
  STASIS_TRY(ask('f', {range.offset + arena_offset(), range.length, seed}));
  return {};
}

std::vector<uint64_t> SerialGuest::filled_page(uint64_t page, uint64_t seed) {
  std::vector<uint64_t> words;
  for (uint64_t at = 0; at < TG_PAGE; at += 8) words.push_back(tg_pattern(seed, arena_offset() + page * TG_PAGE + at));
  return words;
}

Status SerialGuest::zero(Range range) {
  STASIS_TRY(ask_range('z', range));
  return {};
}

Status SerialGuest::rewrite(Range range) {
  STASIS_TRY(ask_range('d', range));
  return {};
}

Result<uint64_t> SerialGuest::checksum(Range range) { return ask_range('s', range); }

Status SerialGuest::give_back(Range range) {
  STASIS_TRY(ask_range('b', range));
  return {};
}

}  // namespace stasis::vmm::contract
