/* take-stacks COUNT: takes stacks for coroutines as QEMU does (qemu_alloc_stack()), uses and keeps them; for tests of
 * the preloaded library. On standard output one character for each: '-' if taking it changed none of the process's
 * mappings, '+' if it did. Exits with 0 if every stack was zeros, its own, and had its guard page. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096U
#define LENGTH ((1U << 20) + PAGE)

void* map_for_something_else(size_t length);

static long mappings(void) {
  FILE* maps = fopen("/proc/self/maps", "r");
  long lines = 0;
  for (int c; (c = fgetc(maps)) != EOF;) lines += c == '\n';
  fclose(maps);
  return lines;
}

/* Whether the page can be read, without reading it. */
static int readable(char* page) {
  char byte;
  struct iovec here = {&byte, 1};
  struct iovec there = {page, 1};
  return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 1;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const long count = strtol(argv[1], NULL, 10);
  char** stacks = calloc((size_t)count, sizeof *stacks);
  static const char zeros[LENGTH];
  (void)mappings(); /* its buffers are there from now on */
  for (long i = 0; i < count; ++i) {
    const long before = mappings();
    stacks[i] = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stacks[i] == MAP_FAILED || mprotect(stacks[i], PAGE, PROT_NONE) != 0) return 3;
    putchar(mappings() == before ? '-' : '+');
    if (readable(stacks[i])) return 4;
    if (memcmp(stacks[i] + PAGE, zeros, LENGTH - PAGE) != 0) return 5;
    memset(stacks[i] + PAGE, (int)i + 1, LENGTH - PAGE);
  }
  /* What a library maps is no stack, whatever its length. */
  char* other = map_for_something_else(LENGTH);
  if (other == MAP_FAILED || !readable(other)) return 9;
  /* A guard page is a stack's own: the same call for another page is done. */
  if (mprotect(stacks[0] + PAGE, PAGE, PROT_NONE) != 0 || readable(stacks[0] + PAGE)) return 6;
  for (long i = 0; i < count; ++i) {
    if (stacks[i][LENGTH - 1] != (char)(i + 1)) return 7;
    if (munmap(stacks[i], LENGTH) != 0 || readable(stacks[i] + LENGTH - PAGE)) return 8;
  }
  return 0;
}
