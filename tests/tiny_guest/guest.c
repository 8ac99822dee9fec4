/* The tiny guest's main loop, in ring 3: reads lines from the first serial port by polling and answers them. */
#include "commands.h"

#define SERIAL_DATA 0x3f8
#define SERIAL_STATUS 0x3fd
#define DATA_READY 0x01
#define CAN_SEND 0x20

#define BELOW_4G (3ull << 30) /* memory beyond this offset is found above 4 GiB */

static inline unsigned char in(unsigned short port) {
  unsigned char value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static inline void out(unsigned short port, unsigned char value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static char read_char(void) {
  while (!(in(SERIAL_STATUS)&DATA_READY)) __asm__ volatile("pause");
  return (char)in(SERIAL_DATA);
}

static void write_text(const char* text) {
  for (; *text; ++text) {
    while (!(in(SERIAL_STATUS)&CAN_SEND)) {
    }
    out(SERIAL_DATA, (unsigned char)*text);
  }
}

static tg_u64* word(void* context, tg_u64 offset) {
  (void)context;
  return (tg_u64*)(offset < BELOW_4G ? offset : offset + (1ull << 30));
}

/* A line that is too long loses its end. */
static void read_line(char line[TG_MAX_LINE]) {
  int length = 0;
  for (;;) {
    const char c = read_char();
    if (c == '\n') break;
    if (length < TG_MAX_LINE - 1) line[length++] = c;
  }
  line[length] = 0;
}

/* No guest memory beyond what the page tables of boot.S map is used; the test knows how much there is. */
static const struct tg_machine machine = {0, 7ull << 30, word, 0, 0};

void guest_main(void) {
  char line[TG_MAX_LINE];
  char answer[TG_MAX_LINE];
  for (;;) {
    read_line(line);
    tg_execute(&machine, line, answer);
    write_text(answer);
  }
}
