/* libstasis-preload.so: hands a stock QEMU's guest memory to Stasis's page server.
 *
 * QEMU maps its RAM from the memory file that the supervisor gave it (descriptor STASIS_RAM_FD). This library wraps
 * mmap; when that file is mapped it registers the mapping with userfaultfd and sends the userfaultfd, in Firecracker's
 * own handshake (src/pager/handshake.h), to the socket STASIS_UFFD_SOCKET. It keeps its copy of the userfaultfd and of
 * the socket open: with no copy left the kernel would drop the registration, and missing pages would silently read as
 * zeros; and the end of the socket tells the page server that QEMU has gone. Any failure ends QEMU: it must not run on
 * memory that nobody serves. C, without a runtime of its own, because it lives inside another program. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Newer than Debian 12's headers (Linux 6.4, 6.7). */
#define FEATURE_WP_UNPOPULATED (1ULL << 13)
#define FEATURE_WP_ASYNC (1ULL << 15)

static void* (*real_mmap)(void*, size_t, int, int, int, off_t);
static struct stat ram;
static char socket_path[sizeof(((struct sockaddr_un*)0)->sun_path)];
static bool armed;

static void give_up(const char* what) {
  fprintf(stderr, "stasis-preload: %s: %s\n", what, strerror(errno));
  _exit(1);
}

/* Environment variables reach children: nothing of ours may. */
__attribute__((constructor)) static void set_up(void) {
  real_mmap = (void* (*)(void*, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
  const char* fd_text = getenv("STASIS_RAM_FD");
  const char* path = getenv("STASIS_UFFD_SOCKET");
  if (fd_text != NULL && path != NULL) {
    if (strlen(path) >= sizeof socket_path) give_up("socket path too long");
    strcpy(socket_path, path);
    if (fstat(atoi(fd_text), &ram) != 0) give_up("STASIS_RAM_FD");
    armed = true;
  }
  unsetenv("LD_PRELOAD");
  unsetenv("STASIS_RAM_FD");
  unsetenv("STASIS_UFFD_SOCKET");
}

static int open_uffd(uint64_t features) {
  const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) give_up("userfaultfd");
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  if (ioctl(fd, UFFDIO_API, &api) == 0) return fd;
  close(fd);
  return -1;
}

/* Not UFFD_USER_MODE_ONLY: QEMU's block I/O reaches guest memory from kernel mode. */
static int register_memory(void* address, size_t length, bool* write_protect) {
  const uint64_t base = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_SHMEM;
  const uint64_t async =
      UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC;
  int fd = open_uffd(base | async);
  *write_protect = fd >= 0;
  if (fd < 0) fd = open_uffd(base);
  if (fd < 0) give_up("UFFDIO_API");
  struct uffdio_register request = {
      .range = {.start = (uintptr_t)address, .len = length},
      .mode = UFFDIO_REGISTER_MODE_MISSING | (*write_protect ? UFFDIO_REGISTER_MODE_WP : 0)};
  if (ioctl(fd, UFFDIO_REGISTER, &request) != 0) give_up("UFFDIO_REGISTER");
  return fd;
}

static void hand_over(int uffd, void* address, size_t length, off_t offset, bool write_protect) {
  const int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s < 0) give_up("socket");
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  strcpy(name.sun_path, socket_path);
  if (connect(s, (struct sockaddr*)&name, sizeof name) != 0) give_up("connect to the page server");

  char text[256];
  const int n =
      snprintf(text, sizeof text,
               "[{\"base_host_virt_addr\":%llu,\"size\":%zu,\"offset\":%lld,\"page_size\":4096,\"page_size_kib\":4096,"
               "\"stasis_write_protect\":%s}]",
               (unsigned long long)(uintptr_t)address, length, (long long)offset, write_protect ? "true" : "false");
  char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
  memset(control, 0, sizeof control);
  struct iovec part = {.iov_base = text, .iov_len = (size_t)n};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &uffd, sizeof uffd);
  if (sendmsg(s, &message, MSG_NOSIGNAL) != n) give_up("send the handshake");
}

static bool is_guest_memory(int protection, int flags, int fd) {
  struct stat st;
  return armed && fd >= 0 && (protection & PROT_WRITE) && (flags & MAP_SHARED) && fstat(fd, &st) == 0 &&
         st.st_dev == ram.st_dev && st.st_ino == ram.st_ino;
}

void* mmap(void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  if (real_mmap == NULL) real_mmap = (void* (*)(void*, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
  void* mapped = real_mmap(address, length, protection, flags, fd, offset);
  if (mapped == MAP_FAILED || !is_guest_memory(protection, flags, fd)) return mapped;
  armed = false; /* one mapping is the guest's memory; QEMU does not map it twice */
  bool write_protect = false;
  const int uffd = register_memory(mapped, length, &write_protect);
  hand_over(uffd, mapped, length, offset, write_protect);
  return mapped;
}

void* mmap64(void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  return mmap(address, length, protection, flags, fd, offset);
}
