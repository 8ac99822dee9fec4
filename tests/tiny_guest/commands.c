#include "commands.h"

struct command {
  char letter;
  tg_u64 sequence;
  tg_u64 argument[3];
  int arguments;
};

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/* Reads one number and the blank before it; 0 if there is none. */
static int read_number(const char** text, tg_u64* value) {
  const char* at = *text;
  if (*at != ' ' || hex_digit(at[1]) < 0) return 0;
  *value = 0;
  for (++at; hex_digit(*at) >= 0; ++at) *value = *value * 16 + (tg_u64)hex_digit(*at);
  *text = at;
  return 1;
}

static int parse(const char* line, struct command* command) {
  command->letter = *line;
  command->sequence = 0;
  command->arguments = 0;
  if (*line == 0) return 0;
  ++line;
  if (!read_number(&line, &command->sequence)) return 0;
  while (command->arguments < 3 && read_number(&line, &command->argument[command->arguments])) ++command->arguments;
  return *line == 0;
}

static char* put_number(char* out, tg_u64 value) {
  int shift = 60;
  while (shift > 0 && (value >> shift) == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) *out++ = "0123456789abcdef"[(value >> shift) & 15];
  return out;
}

static void note_written(const struct tg_machine* machine, tg_u64 offset, tg_u64 length) {
  if (machine->written) machine->written(machine->context, offset, length);
}

static tg_u64 count(const struct tg_machine* machine) {
  tg_u64* counter = machine->word(machine->context, TG_STATE_OFFSET);
  ++*counter;
  note_written(machine, TG_STATE_OFFSET, 8);
  return *counter;
}

static tg_u64 fill(const struct tg_machine* machine, tg_u64 offset, tg_u64 length, tg_u64 seed, int zero) {
  for (tg_u64 at = offset; at < offset + length; at += 8) {
    *machine->word(machine->context, at) = zero ? 0 : tg_pattern(seed, at);
  }
  note_written(machine, offset, length);
  return length;
}

static tg_u64 visit_pages(const struct tg_machine* machine, tg_u64 offset, tg_u64 length, int rewrite) {
  tg_u64 pages = 0;
  for (tg_u64 at = offset; at < offset + length; at += TG_PAGE, ++pages) {
    volatile tg_u64* word = machine->word(machine->context, at);
    const tg_u64 value = *word;
    if (!rewrite) continue;
    *word = value;
    note_written(machine, at, 8);
  }
  return pages;
}

static tg_u64 checksum(const struct tg_machine* machine, tg_u64 offset, tg_u64 length) {
  tg_u64 sum = 0;
  for (tg_u64 at = offset; at < offset + length; at += 8) {
    sum = tg_checksum_step(sum, *machine->word(machine->context, at));
  }
  return sum;
}

/* 1 if the range is one that the commands may use. */
static int usable(const struct tg_machine* machine, tg_u64 offset, tg_u64 length) {
  return offset % 8 == 0 && length % 8 == 0 && offset >= TG_STATE_OFFSET && length <= machine->memory_bytes &&
         offset <= machine->memory_bytes - length;
}

static int give_back(const struct tg_machine* machine, tg_u64 offset, tg_u64 length) {
  return machine->give_back && machine->give_back(machine->context, offset, length) == 0;
}

static int run(const struct tg_machine* machine, const struct command* command, tg_u64* result) {
  const tg_u64 offset = command->argument[0];
  const tg_u64 length = command->argument[1];
  if (command->letter == 'c' && command->arguments == 0) {
    *result = count(machine);
    return 1;
  }
  if (command->arguments < 2 || !usable(machine, offset, length)) return 0;
  *result = length;
  switch (command->letter) {
    case 'f':
      if (command->arguments != 3) return 0;
      fill(machine, offset, length, command->argument[2], 0);
      return 1;
    case 'z':
      fill(machine, offset, length, 0, 1);
      return 1;
    case 'd':
      *result = visit_pages(machine, offset, length, 1);
      return 1;
    case 't':
      *result = visit_pages(machine, offset, length, 0);
      return 1;
    case 's':
      *result = checksum(machine, offset, length);
      return 1;
    case 'b':
      return give_back(machine, offset, length);
    default:
      return 0;
  }
}

void tg_execute(const struct tg_machine* machine, const char* line, char answer[TG_MAX_LINE]) {
  struct command command;
  tg_u64 result = 0;
  const int done = parse(line, &command) && run(machine, &command, &result);
  char* out = answer;
  *out++ = done ? '=' : '!';
  out = put_number(out, command.sequence);
  if (done) {
    *out++ = ' ';
    out = put_number(out, result);
  }
  *out++ = '\n';
  *out = 0;
}
