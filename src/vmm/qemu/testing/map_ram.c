/* map-ram BYTES: what QEMU does with its memory, for tests of the preloaded library. Maps descriptor 3 shared, as guest
 * memory, and asks for huge pages; fails if the kernel may merge its pages, or if its environment tells of the library,
 * as it would tell QEMU's children; when its standard input ends, puts the
 * content on standard output, and then writes to the first page. */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_GET_MEMORY_MERGE
#define PR_GET_MEMORY_MERGE 68
#endif

/* Whatever the driver sets. Others of the name STASIS_ belong to who runs the test. */
static int is_told_of_the_library(void) {
  static const char* const names[] = {"LD_PRELOAD", "STASIS_RAM_FD", "STASIS_MAPPING_FD", "STASIS_BOOTS",
                                      "STASIS_HELD"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    if (getenv(names[i]) != NULL) return 1;
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  if (is_told_of_the_library()) return 6;
  const size_t length = strtoull(argv[1], NULL, 10);
  char* memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
  if (memory == MAP_FAILED) return 3;
  (void)madvise(memory, length, MADV_HUGEPAGE);
  if (prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) > 0) return 5;
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) continue;
  for (size_t done = 0; done < length;) {
    const ssize_t n = write(STDOUT_FILENO, memory + done, length - done);
    if (n <= 0) return 4;
    done += (size_t)n;
  }
  memory[0] = 'x';
  return 0;
}
