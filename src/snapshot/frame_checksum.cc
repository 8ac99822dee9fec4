// XXH3-64 as its authors specify it for inputs of more than 240 bytes: stripes of 64 bytes are added to eight lanes,
// and after each KiB the lanes are scrambled. What a KiB of zeros adds is a constant, so that only the scrambling is
// left.
#include "snapshot/frame_checksum.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace stasis::snapshot {
namespace {

constexpr size_t kStripe = 64;
constexpr size_t kBlock = 1024;
constexpr size_t kStripes = kBlock / kStripe;
constexpr size_t kLastStripeSecret = 192 - 64 - 7;
constexpr size_t kScrambleSecret = 192 - 64;
constexpr size_t kMergeSecret = 11;

constexpr uint64_t kPrime32[] = {0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D};
constexpr uint64_t kPrime64[] = {0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
                                 0x27D4EB2F165667C5};

// The secret of XXH3 without a seed.
alignas(64) constexpr std::array<uint8_t, 192> kSecret = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4,
    0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
    0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43,
    0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19,
    0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
    0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
    0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16,
    0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
    0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e};

using Lanes = std::array<uint64_t, 8>;

constexpr uint64_t secret_at(size_t offset) {
  uint64_t word = 0;
  for (size_t i = 0; i < sizeof(word); ++i) word |= uint64_t{kSecret[offset + i]} << (8 * i);
  return word;
}

constexpr Lanes secrets_at(size_t offset) {
  Lanes words{};
  for (size_t lane = 0; lane < words.size(); ++lane) words[lane] = secret_at(offset + 8 * lane);
  return words;
}

// Of each stripe of a block.
constexpr auto kStripeSecrets = [] {
  std::array<Lanes, kStripes> secrets{};
  for (size_t stripe = 0; stripe < kStripes; ++stripe) secrets[stripe] = secrets_at(8 * stripe);
  return secrets;
}();
constexpr Lanes kLastStripe = secrets_at(kLastStripeSecret);
constexpr Lanes kScramble = secrets_at(kScrambleSecret);

void add_stripe(Lanes& lanes, const std::byte* data, const Lanes& secret) {
  Lanes words;
  std::memcpy(words.data(), data, kStripe);
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    const uint64_t key = words[lane] ^ secret[lane];
    lanes[lane] += words[lane ^ 1] + (key & 0xffffffff) * (key >> 32);
  }
}

// What a block of zeros adds.
constexpr Lanes kZeroBlock = [] {
  Lanes lanes{};
  for (const Lanes& secret : kStripeSecrets) {
    for (size_t lane = 0; lane < lanes.size(); ++lane) {
      lanes[lane] += (secret[lane] & 0xffffffff) * (secret[lane] >> 32);
    }
  }
  return lanes;
}();

void scramble(Lanes& lanes) {
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    const uint64_t mixed = (lanes[lane] ^ lanes[lane] >> 47) ^ kScramble[lane];
    lanes[lane] = mixed * kPrime32[0];
  }
}

void add_blocks_portable(Lanes& lanes, const std::byte* data, size_t blocks) {
  for (; blocks > 0; --blocks, data += kBlock) {
    for (size_t stripe = 0; stripe < kStripes; ++stripe) {
      add_stripe(lanes, data + stripe * kStripe, kStripeSecrets[stripe]);
    }
    scramble(lanes);
  }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) inline __m256i four_at(const void* words) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(words));
}

// The same, four lanes at a time.
__attribute__((target("avx2"))) void add_blocks_avx2(Lanes& lanes, const std::byte* data, size_t blocks) {
  const __m256i prime = _mm256_set1_epi64x(kPrime32[0]);
  for (; blocks > 0; --blocks, data += kBlock) {
    for (size_t lane = 0; lane < lanes.size(); lane += 4) {
      __m256i sum = four_at(&lanes[lane]);
      for (size_t stripe = 0; stripe < kStripes; ++stripe) {
        const __m256i words = four_at(data + stripe * kStripe + lane * sizeof(uint64_t));
        const __m256i key = _mm256_xor_si256(words, four_at(&kStripeSecrets[stripe][lane]));
        const __m256i product = _mm256_mul_epu32(key, _mm256_srli_epi64(key, 32));
        const __m256i swapped = _mm256_shuffle_epi32(words, _MM_SHUFFLE(1, 0, 3, 2));
        sum = _mm256_add_epi64(sum, _mm256_add_epi64(product, swapped));
      }
      const __m256i shifted = _mm256_xor_si256(sum, _mm256_srli_epi64(sum, 47));
      const __m256i mixed = _mm256_xor_si256(shifted, four_at(&kScramble[lane]));
      const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
      sum = _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), _mm256_slli_epi64(high, 32));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(&lanes[lane]), sum);
    }
  }
}
#endif

void add_blocks(Lanes& lanes, const std::byte* data, size_t blocks) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return add_blocks_avx2(lanes, data, blocks);
#endif
  add_blocks_portable(lanes, data, blocks);
}

// The last block of a frame ends with a stripe of another secret, and without a scrambling.
void add_last_block(Lanes& lanes, const std::byte* data) {
  for (size_t stripe = 0; stripe + 1 < kStripes; ++stripe) {
    add_stripe(lanes, data + stripe * kStripe, kStripeSecrets[stripe]);
  }
  add_stripe(lanes, data + kBlock - kStripe, kLastStripe);
}

uint64_t folded_product(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

const Lanes FrameChecksum::kStart = {kPrime32[2], kPrime64[0], kPrime64[1], kPrime64[2],
                                     kPrime64[3], kPrime32[1], kPrime64[4], kPrime32[0]};

void FrameChecksum::add(std::span<const std::byte> data) {
  if (data.empty()) return;
  const bool to_the_end = position_ + data.size() == length_;
  position_ += data.size();
  const size_t blocks = data.size() / kBlock - (to_the_end ? 1 : 0);
  add_blocks(lanes_, data.data(), blocks);
  if (to_the_end) add_last_block(lanes_, data.data() + blocks * kBlock);
}

void FrameChecksum::add_zeros(uint64_t bytes) {
  if (bytes == 0) return;
  const bool to_the_end = position_ + bytes == length_;
  position_ += bytes;
  Lanes lanes = lanes_;
  for (size_t blocks = bytes / kBlock - (to_the_end ? 1 : 0); blocks > 0; --blocks) {
    for (size_t lane = 0; lane < lanes.size(); ++lane) lanes[lane] += kZeroBlock[lane];
    scramble(lanes);
  }
  static constexpr std::array<std::byte, kBlock> kZeros{};
  if (to_the_end) add_last_block(lanes, kZeros.data());
  lanes_ = lanes;
}

uint64_t FrameChecksum::digest() const {
  uint64_t hash = length_ * kPrime64[0];
  for (size_t pair = 0; pair < 4; ++pair) {
    hash += folded_product(lanes_[2 * pair] ^ secret_at(kMergeSecret + 16 * pair),
                           lanes_[2 * pair + 1] ^ secret_at(kMergeSecret + 16 * pair + 8));
  }
  hash ^= hash >> 37;
  hash *= 0x165667919E3779F9;
  return hash ^ hash >> 32;
}

}  // namespace stasis::snapshot
