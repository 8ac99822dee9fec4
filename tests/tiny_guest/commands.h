/* The tiny guest: what a test can ask of a guest without an operating system, one line of text a command over the
 * serial port. Used by the 64-bit ELF (guest.c, on a real VMM) and by the test double of Firecracker: both run this
 * same code.
 *
 *   <letter> <sequence> <numbers...>\n     all numbers in hexadecimal without prefix, at most 120 bytes
 *   =<sequence> <result>\n                 the answer; !<sequence>\n for a command that is not understood or out of
 * bounds
 *
 *   c                     adds one to the counter, result: its new value
 *   f offset length seed  fills with words that follow from seed and position
 *   z offset length       fills with zeros
 *   d offset length       rewrites the first word of each page with the same value (dirty, but not changed)
 *   t offset length       reads the first word of each page
 *   s offset length       result: checksum
 *   b offset length       gives the pages back, as a balloon would (the double only)
 *
 * Offsets are those of guest memory as VMMs number it in memory files and handshakes; multiples of 8 (b: of 4096). What
 * a guest must keep (the counter) is in guest memory too, at TG_STATE_OFFSET; tests use what is above TG_ARENA_OFFSET.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#define TG_PAGE 4096ull
#define TG_STATE_OFFSET (2ull << 20)
#define TG_ARENA_OFFSET (4ull << 20)
#define TG_MAX_LINE 120

typedef unsigned long long tg_u64;

/* How the commands reach guest memory. */
struct tg_machine {
  void* context;
  tg_u64 memory_bytes;
  tg_u64* (*word)(void* context, tg_u64 offset);                 /* where the word at `offset` is */
  void (*written)(void* context, tg_u64 offset, tg_u64 length);  /* 0: nobody wants to know */
  int (*give_back)(void* context, tg_u64 offset, tg_u64 length); /* 0: not supported; returns 0 for success */
};

/* Executes a line (without its newline, terminated by 0) and writes the answer with its newline and a final 0. */
void tg_execute(const struct tg_machine* machine, const char* line, char answer[TG_MAX_LINE]);

/* One step of the checksum over 64-bit words, from 0. */
static inline tg_u64 tg_checksum_step(tg_u64 sum, tg_u64 word) { return (sum ^ word) * 0x100000001b3ull + 1; }
/* The word that f puts at `offset`: never 0. */
static inline tg_u64 tg_pattern(tg_u64 seed, tg_u64 offset) {
  tg_u64 x = seed * 0x9e3779b97f4a7c15ull + offset;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  return (x ^ (x >> 27)) | 1;
}

#ifdef __cplusplus
}
#endif
