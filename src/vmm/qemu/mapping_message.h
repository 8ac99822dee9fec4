/* How the driver tells the preloaded library (preload.c) where guest memory comes from, over a socket pair that QEMU
 * inherits. Both are of one build. C, for the library's sake.
 *
 * Library, when QEMU has mapped its memory file: one mapping_answer. The driver may take as long as it likes from then
 * on, while QEMU goes on starting and then waits. Driver: one mapping_header with one descriptor, a memory file of
 * `entries` mapping_entry; then one byte with each batch of at most MAPPING_FD_BATCH descriptors, until there have been
 * `files` of them. Library, when guest memory is as it was told: one mapping_answer, with a userfaultfd of QEMU's
 * memory where the kernel can write-protect it asynchronously (Linux 6.7); nothing is registered with that yet. A QEMU
 * that boots: the library's first answer is the only message, and has that userfaultfd. A message that is not like that
 * ends QEMU. */
#pragma once

#include <stdint.h>

#define MAPPING_MAGIC UINT64_C(0x33504D5349534154) /* "TASISMP3" */
#define MAPPING_MAX_ENTRIES 262144
#define MAPPING_MAX_FILES 1024
#define MAPPING_MAX_SERVED 256
#define MAPPING_FD_BATCH 16
#define MAPPING_MAX_PATH 108 /* of a unix socket, with its end */

struct mapping_header {
  uint64_t magic;
  uint64_t size;    /* of guest memory, bytes */
  uint32_t entries; /* pieces, ascending and disjoint; what is in none is zeros */
  uint32_t files;
  char page_server[MAPPING_MAX_PATH]; /* listens here and serves the pieces that are to be served; empty: none is */
  uint32_t reserved;                  /* 0 */
};

#define MAPPING_MAPPED 0
#define MAPPING_COPIED 1 /* read instead of mapped */
#define MAPPING_SERVED 2 /* by the page server; `file_offset` and `file` are 0. At most MAPPING_MAX_SERVED pieces */

struct mapping_entry {
  uint64_t offset; /* in guest memory; all multiples of 4096 */
  uint64_t length;
  uint64_t file_offset;
  uint32_t file; /* which of the descriptors, from 0 */
  uint32_t how;
};

struct mapping_answer {
  uint64_t address; /* of guest memory in QEMU */
};
