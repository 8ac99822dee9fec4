#include "snapshot/checksum.h"

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // makes the XXH3 functions choose AVX2 or AVX-512 at run time
#else
#include <xxhash.h>
#endif

#include <array>
#include <charconv>
#include <new>

namespace stasis::snapshot {
namespace {

XXH3_state_t* raw(void* state) { return static_cast<XXH3_state_t*>(state); }

}  // namespace

uint64_t checksum(std::span<const std::byte> data) { return XXH3_64bits(data.data(), data.size()); }

Checksum::Checksum() : state_(reinterpret_cast<State*>(XXH3_createState())) {
  if (!state_) throw std::bad_alloc();
  reset();
}

void Checksum::Free::operator()(State* state) const { XXH3_freeState(raw(state)); }

void Checksum::reset() { XXH3_64bits_reset(raw(state_.get())); }

void Checksum::update(std::span<const std::byte> data) {
  XXH3_64bits_update(raw(state_.get()), data.data(), data.size());
}

uint64_t Checksum::digest() const { return XXH3_64bits_digest(raw(state_.get())); }

std::string checksum_text(uint64_t value) {
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
  const size_t length = static_cast<size_t>(end - digits.data());
  return std::string(digits.size() - length, '0') + std::string(digits.data(), length);
}

}  // namespace stasis::snapshot
