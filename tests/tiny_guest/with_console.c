/* with-console PROGRAM: what tests name in STASIS_FIRECRACKER, so that a guest's serial port has an input. Takes the
 * arguments of Firecracker, opens the pipe `console` beside the API socket as standard input, and becomes the program
 * that is named in STASIS_TEST_PROGRAM: the process stays the same. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_console(const char* api_socket) {
  char path[4096];
  const char* slash = strrchr(api_socket, '/');
  if (slash == NULL) return -1;
  const int written = snprintf(path, sizeof path, "%.*s/console", (int)(slash - api_socket), api_socket);
  return written < (int)sizeof path ? open(path, O_RDWR) : -1;
}

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (strcmp(argv[i], "--api-sock") != 0) continue;
    const int console = open_console(argv[i + 1]);
    if (console >= 0) dup2(console, STDIN_FILENO);
  }
  const char* program = getenv("STASIS_TEST_PROGRAM");
  if (program == NULL) return 127;
  argv[0] = (char*)program;
  execvp(program, argv);
  perror(program);
  return 127;
}
