/* libstasis-preload.so: puts a restored guest's memory where a stock QEMU believes that its memory file is.
 *
 * QEMU maps its RAM from the memory file that the supervisor gave it (descriptor STASIS_RAM_FD). This library wraps
 * mmap; when that file has been mapped, a thread of its own waits on STASIS_MAPPING_FD, an inherited socket
 * (mapping_message.h), to be told where the memory comes from. Until then the guest has no memory that means anything:
 * a QEMU that is to load a machine does not touch it before it loads. Then it puts anonymous memory over the memory
 * file, and of each piece of it does one of two things, or nothing where it is zeros:
 *
 * - mapped: it puts private mappings of snapshot layers over that. What the guest writes is then anonymous memory too,
 *   and what it does not write is shared with every clone through the page cache.
 * - served: it registers it with userfaultfd and sends the userfaultfd, in Firecracker's own handshake
 *   (src/pager/handshake.h), to the page server's socket. It keeps its copy of the userfaultfd and of the socket open:
 *   with no copy left the kernel would drop the registration, and missing pages would silently read as zeros; and the
 *   end of the socket tells the page server that QEMU has gone. A page of zeros that is only read costs nothing there;
 *   in the memory file each would be a page of its own.
 *
 * A QEMU that is started while its disk and network are still being made (STASIS_HELD) is held before its main program
 * begins, until the supervisor sends a byte.
 *
 * A QEMU that boots (STASIS_MAPPING_FD but no plan to wait for: STASIS_BOOTS) keeps its memory file; the library only
 * sends a userfaultfd, with which the driver can have written pages told.
 *
 * For every QEMU it keeps stacks of coroutines ready (take_stack()).
 *
 * Any failure ends QEMU: it must not run on memory that nobody serves. C, without a runtime of its own, because it
 * lives inside another program. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "mapping_message.h"

/* Newer than Debian 12's headers (Linux 6.4, 6.7). */
#define FEATURE_WP_UNPOPULATED (1ULL << 13)
#define FEATURE_WP_ASYNC (1ULL << 15)

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

#define PAGE 4096U

static void* (*real_mmap)(void*, size_t, int, int, int, off_t);
static int (*real_mprotect)(void*, size_t, int);
static struct stat ram;
static int mapping_fd = -1;
static bool armed;
static bool boots;
/* Guest memory, once QEMU has mapped it. */
static char* memory;
static size_t memory_length;
static int memory_protection;

__attribute__((noreturn)) static void give_up(const char* what) {
  fprintf(stderr, "stasis-preload: %s: %s\n", what, strerror(errno));
  _exit(1);
}

__attribute__((noreturn)) static void refuse(const char* what) {
  errno = EINVAL;
  give_up(what);
}

static void find_real(void) {
  real_mmap = (void* (*)(void*, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
  real_mprotect = (int (*)(void*, size_t, int))dlsym(RTLD_NEXT, "mprotect");
}

/* Where QEMU's program itself is, without its libraries. */
static uintptr_t program_start;
static uintptr_t program_end;

static int find_program(struct dl_phdr_info* object, size_t size, void* unused) {
  (void)size, (void)unused;
  program_start = UINTPTR_MAX;
  for (size_t i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)* segment = &object->dlpi_phdr[i];
    if (segment->p_type != PT_LOAD) continue;
    const uintptr_t start = object->dlpi_addr + segment->p_vaddr;
    if (start < program_start) program_start = start;
    if (start + segment->p_memsz > program_end) program_end = start + segment->p_memsz;
  }
  return 1; /* the first object is the program */
}

static void await_release(void) {
  char byte;
  ssize_t n;
  do {
    n = recv(mapping_fd, &byte, 1, 0);
  } while (n < 0 && errno == EINTR);
  if (n == 0) errno = EPIPE;
  if (n != 1) give_up("wait to be let go");
}

/* Environment variables reach children: nothing of ours may. */
__attribute__((constructor)) static void set_up(void) {
  find_real();
  dl_iterate_phdr(find_program, NULL);
  const char* fd_text = getenv("STASIS_RAM_FD");
  const char* mapping_text = getenv("STASIS_MAPPING_FD");
  if (fd_text != NULL && mapping_text != NULL) {
    mapping_fd = atoi(mapping_text);
    if (fstat(atoi(fd_text), &ram) != 0) give_up("STASIS_RAM_FD");
    /* Inherited from who asked for it for all that it starts. A page that the guest wrote and that was merged with the
     * page of zeros would look as if nobody had written it. Kernels before 6.4 merge nothing that is not asked for. */
    (void)prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0);
    boots = getenv("STASIS_BOOTS") != NULL;
    if (getenv("STASIS_HELD") != NULL) await_release();
    armed = true;
  }
  unsetenv("LD_PRELOAD");
  unsetenv("STASIS_BOOTS");
  unsetenv("STASIS_HELD");
  unsetenv("STASIS_RAM_FD");
  unsetenv("STASIS_MAPPING_FD");
}

#define ASYNC_FEATURES \
  (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC)

/* -1 if this kernel does not have it with these features. */
static int open_uffd(uint64_t features) {
  const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -1;
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  if (ioctl(fd, UFFDIO_API, &api) == 0) return fd;
  close(fd);
  return -1;
}

/* Not UFFD_USER_MODE_ONLY: QEMU's block I/O reaches guest memory from kernel mode. */
static int open_served(bool* write_protect) {
  const uint64_t base = UFFD_FEATURE_EVENT_REMOVE;
  int fd = open_uffd(base | ASYNC_FEATURES);
  *write_protect = fd >= 0;
  if (fd < 0) fd = open_uffd(base);
  if (fd < 0) give_up("userfaultfd");
  return fd;
}

static void register_piece(int uffd, uint64_t offset, uint64_t length, bool write_protect) {
  struct uffdio_register request = {
      .range = {.start = (uintptr_t)memory + offset, .len = length},
      .mode = UFFDIO_REGISTER_MODE_MISSING | (write_protect ? UFFDIO_REGISTER_MODE_WP : 0)};
  if (ioctl(uffd, UFFDIO_REGISTER, &request) != 0) give_up("UFFDIO_REGISTER");
}

/* Sends `length` bytes of `data` with the descriptor, unless that is -1. */
static bool send_with(int s, const void* data, size_t length, int fd) {
  char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
  memset(control, 0, sizeof control);
  struct iovec part = {.iov_base = (void*)data, .iov_len = length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  return sendmsg(s, &message, MSG_NOSIGNAL) == (ssize_t)length;
}

/* What is to be said to the page server: each region that it serves. */
struct handshake {
  size_t length;
  char text[MAPPING_MAX_SERVED * 192];
};

static void add_region(struct handshake* handshake, uint64_t offset, uint64_t length, bool write_protect) {
  const size_t room = sizeof handshake->text - handshake->length;
  const int n = snprintf(
      handshake->text + handshake->length, room,
      "%c{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,\"page_size\":4096,\"page_size_kib\":4096,"
      "\"stasis_write_protect\":%s}",
      handshake->length == 0 ? '[' : ',', (unsigned long long)((uintptr_t)memory + offset), (unsigned long long)length,
      (unsigned long long)offset, write_protect ? "true" : "false");
  if (n < 0 || (size_t)n + 1 >= room) refuse("too many pieces are to be served");
  handshake->length += (size_t)n;
}

static void hand_over(struct handshake* handshake, int uffd, const char* path) {
  const int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s < 0) give_up("socket");
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  strcpy(name.sun_path, path);
  if (connect(s, (struct sockaddr*)&name, sizeof name) != 0) give_up("connect to the page server");
  handshake->text[handshake->length++] = ']';
  if (!send_with(s, handshake->text, handshake->length, uffd)) give_up("send the handshake");
}

/* `length` bytes of `data`, and the descriptors that come with them, at most MAPPING_FD_BATCH: their number. */
static size_t receive(void* data, size_t length, int* fds) {
  char control[CMSG_SPACE(MAPPING_FD_BATCH * sizeof(int))] __attribute__((aligned(8)));
  struct iovec part = {.iov_base = data, .iov_len = length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t n;
  do {
    n = recvmsg(mapping_fd, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
  } while (n < 0 && errno == EINTR);
  if (n < 0) give_up("receive the plan of guest memory");
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  if ((size_t)n != length || (message.msg_flags & MSG_CTRUNC) || header == NULL || header->cmsg_level != SOL_SOCKET ||
      header->cmsg_type != SCM_RIGHTS)
    refuse("the plan of guest memory is cut short");
  const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  memcpy(fds, CMSG_DATA(header), count * sizeof(int));
  return count;
}

struct plan {
  struct mapping_header header;
  const struct mapping_entry* entries;
  int files[MAPPING_MAX_FILES];
  uint64_t sizes[MAPPING_MAX_FILES];
};

static void receive_plan(struct plan* plan) {
  int batch[MAPPING_FD_BATCH];
  if (receive(&plan->header, sizeof plan->header, batch) != 1 || plan->header.magic != MAPPING_MAGIC ||
      plan->header.entries > MAPPING_MAX_ENTRIES || plan->header.files > MAPPING_MAX_FILES ||
      memchr(plan->header.page_server, 0, sizeof plan->header.page_server) == NULL)
    refuse("the plan of guest memory has a wrong header");
  struct stat st;
  if (fstat(batch[0], &st) != 0) give_up("look at the plan");
  const size_t bytes = plan->header.entries * sizeof *plan->entries;
  if ((uint64_t)st.st_size != bytes) refuse("the plan of guest memory has a wrong length");
  if (bytes > 0) {
    plan->entries = real_mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, batch[0], 0);
    if (plan->entries == MAP_FAILED) give_up("map the plan");
  }
  close(batch[0]);
  for (uint32_t have = 0; have < plan->header.files;) {
    char byte;
    const size_t count = receive(&byte, 1, batch);
    if (count == 0 || count > plan->header.files - have) refuse("the plan of guest memory has a wrong number of files");
    for (size_t i = 0; i < count; ++i, ++have) {
      if (fstat(batch[i], &st) != 0) give_up("look at a layer");
      if (!S_ISREG(st.st_mode)) refuse("a layer is not a file");
      plan->files[have] = batch[i];
      plan->sizes[have] = (uint64_t)st.st_size;
    }
  }
}

static void check_file(const struct plan* plan, const struct mapping_entry* e) {
  if (e->file >= plan->header.files) refuse("the plan of guest memory has a wrong piece");
  if (e->file_offset > plan->sizes[e->file] || e->length > plan->sizes[e->file] - e->file_offset)
    refuse("a layer is shorter than the plan of guest memory says");
}

/* Everything before anything is mapped. */
static void check_plan(const struct plan* plan) {
  const size_t length = memory_length;
  if (plan->header.size != length) refuse("the plan is of another size than guest memory");
  uint64_t end = 0;
  uint32_t served = 0;
  for (uint32_t i = 0; i < plan->header.entries; ++i) {
    const struct mapping_entry* e = &plan->entries[i];
    if (e->offset % PAGE != 0 || e->length % PAGE != 0 || e->file_offset % PAGE != 0 || e->length == 0 ||
        e->offset < end || e->offset > length || e->length > length - e->offset || e->how > MAPPING_SERVED)
      refuse("the plan of guest memory has a wrong piece");
    if (e->how == MAPPING_SERVED) {
      if (e->file != 0 || e->file_offset != 0 || ++served > MAPPING_MAX_SERVED)
        refuse("the plan of guest memory has a wrong piece");
    } else {
      check_file(plan, e);
    }
    end = e->offset + e->length;
  }
  if ((served > 0) != (plan->header.page_server[0] != 0))
    refuse("the plan of guest memory names a page server and nothing to serve, or the other way round");
}

static void copy_in(char* to, int file, uint64_t offset, uint64_t length) {
  while (length > 0) {
    const ssize_t n = pread(file, to, length, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) give_up("read a layer");
    if (n == 0) refuse("a layer has become shorter");
    to += n;
    offset += (uint64_t)n;
    length -= (uint64_t)n;
  }
}

static void answer(int tracker) {
  const struct mapping_answer here = {.address = (uintptr_t)memory};
  if (!send_with(mapping_fd, &here, sizeof here, tracker)) give_up("answer the supervisor");
}

/* The driver registers memory with it when it needs to. */
static void answer_with_tracker(void) {
  const int tracker = open_uffd(ASYNC_FEATURES);
  answer(tracker);
  if (tracker >= 0) close(tracker);
}

static void map_pieces(const struct plan* plan) {
  for (uint32_t i = 0; i < plan->header.entries; ++i) {
    const struct mapping_entry* e = &plan->entries[i];
    if (e->how == MAPPING_SERVED) continue;
    const int file = plan->files[e->file];
    if (e->how == MAPPING_COPIED)
      copy_in(memory + e->offset, file, e->file_offset, e->length);
    else if (real_mmap(memory + e->offset, e->length, memory_protection, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file,
                       (off_t)e->file_offset) == MAP_FAILED)
      give_up("map a layer");
  }
}

static void serve_pieces(const struct plan* plan) {
  if (plan->header.page_server[0] == 0) return;
  static struct handshake handshake;
  bool write_protect = false;
  const int uffd = open_served(&write_protect);
  for (uint32_t i = 0; i < plan->header.entries; ++i) {
    const struct mapping_entry* e = &plan->entries[i];
    if (e->how != MAPPING_SERVED) continue;
    register_piece(uffd, e->offset, e->length, write_protect);
    add_region(&handshake, e->offset, e->length, write_protect);
  }
  hand_over(&handshake, uffd, plan->header.page_server);
}

/* Zeros first: anonymous memory, in small pages (QEMU asks for huge ones, of which every one that is written would cost
 * 2 MiB), since every page that is touched is private to this guest. */
static void map_memory(struct plan* plan) {
  check_plan(plan);
  const int anonymous = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE;
  if (real_mmap(memory, memory_length, memory_protection, anonymous, -1, 0) == MAP_FAILED)
    give_up("make room for guest memory");
  (void)madvise(memory, memory_length, MADV_NOHUGEPAGE);
  map_pieces(plan);
  serve_pieces(plan);
  for (uint32_t i = 0; i < plan->header.files; ++i) close(plan->files[i]);
  if (plan->entries != NULL) munmap((void*)plan->entries, plan->header.entries * sizeof *plan->entries);
  answer_with_tracker();
}

static void* take_order(void* unused) {
  static struct plan plan;
  receive_plan(&plan);
  map_memory(&plan);
  close(mapping_fd);
  return unused;
}

/* QEMU's own threads take its signals. */
static void start_thread(void) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = pthread_create(&thread, NULL, take_order, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error != 0) {
    errno = error;
    give_up("start a thread");
  }
  pthread_detach(thread);
}

static bool is_guest_memory(int protection, int flags, int fd, off_t offset) {
  struct stat st;
  return armed && fd >= 0 && offset == 0 && (protection & PROT_WRITE) && (flags & MAP_SHARED) && fstat(fd, &st) == 0 &&
         st.st_dev == ram.st_dev && st.st_ino == ram.st_ino;
}

/* QEMU maps a stack for every coroutine, and a guard page below it, until it keeps more than 64 of them (its
 * util/oslib-posix.c and util/qemu-coroutine.c): three when it is stopped for a live snapshot. For both it needs its
 * mmap_lock for writing, while the driver's scan of guest memory holds that for reading nearly all the time: it waited
 * for the end of the scan, 1 ms of 4 GiB. So they are made ahead, 32 at once, which takes 80 us. */
#define STACK_LENGTH ((1U << 20) + PAGE)
#define STACKS_AT_ONCE 32U
static pthread_mutex_t stacks_lock = PTHREAD_MUTEX_INITIALIZER;
static char* next_stack;
static size_t stacks_left;
/* The stack that this thread has got last, until it asks for the guard page: it has that already. */
static __thread void* unguarded;

static bool make_stacks(void) {
  char* all = real_mmap(NULL, (size_t)STACKS_AT_ONCE * STACK_LENGTH, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return false;
  for (size_t i = 0; i < STACKS_AT_ONCE; ++i) {
    if (real_mprotect(all + i * STACK_LENGTH, PAGE, PROT_NONE) != 0) {
      munmap(all, (size_t)STACKS_AT_ONCE * STACK_LENGTH);
      return false;
    }
  }
  next_stack = all;
  stacks_left = STACKS_AT_ONCE;
  return true;
}

/* NULL: there is no room for more. QEMU unmaps a stack as any other. */
static void* take_stack(void) {
  void* stack = NULL;
  pthread_mutex_lock(&stacks_lock);
  if (stacks_left > 0 || make_stacks()) {
    stack = next_stack;
    next_stack += STACK_LENGTH;
    --stacks_left;
  }
  pthread_mutex_unlock(&stacks_lock);
  unguarded = stack;
  return stack;
}

int mprotect(void* address, size_t length, int protection) {
  if (real_mprotect == NULL) find_real();
  const bool has_guard = unguarded != NULL && address == unguarded && length == PAGE && protection == PROT_NONE;
  unguarded = NULL;
  return has_guard ? 0 : real_mprotect(address, length, protection);
}

/* Whether QEMU itself called, and no library: that may want as much for something else, without a guard page. (dladdr()
 * would tell as well, but goes through the 20,000 symbols that QEMU exports: 0.1 ms.) */
static bool is_of_the_program(void* caller) {
  return (uintptr_t)caller >= program_start && (uintptr_t)caller < program_end;
}

static void* map(void* caller, void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  if (real_mmap == NULL) find_real();
  if (address == NULL && length == STACK_LENGTH && protection == (PROT_READ | PROT_WRITE) && fd == -1 &&
      flags == (MAP_PRIVATE | MAP_ANONYMOUS) && is_of_the_program(caller)) {
    void* stack = take_stack();
    if (stack != NULL) return stack;
  }
  void* mapped = real_mmap(address, length, protection, flags, fd, offset);
  if (mapped == MAP_FAILED || !is_guest_memory(protection, flags, fd, offset)) return mapped;
  armed = false; /* one mapping is the guest's memory; QEMU does not map it twice */
  memory = mapped;
  memory_length = length;
  memory_protection = protection;
  if (boots) {
    answer_with_tracker();
    close(mapping_fd);
    return mapped;
  }
  answer(-1);
  start_thread();
  return mapped;
}

void* mmap(void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  return map(__builtin_return_address(0), address, length, protection, flags, fd, offset);
}

void* mmap64(void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  return map(__builtin_return_address(0), address, length, protection, flags, fd, offset);
}
