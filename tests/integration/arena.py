"""What the contract suite of the VMM drivers asks of a Linux guest: an arena of memory that only commands write.

Listens on a TCP port. One connection is one command, one line: "count", "fill OFFSET LENGTH SEED", "zero OFFSET LENGTH",
"rewrite OFFSET LENGTH", "checksum OFFSET LENGTH", "churn SEED"; all numbers decimal, offsets and lengths multiples of 4096. The answer is a
number, or "!" and the reason. Runs on Debian's python3-minimal: no mmap, no ctypes.
"""

import array
import gc
import os
import random
import socket
import sys
import zlib

PORT = 49990
PAGE = 4096
SIZE = 8 << 20
IDLE_SECONDS = 2  # a connection whose other end was left behind by a restore says nothing any more


class Arena:
    def __init__(self):
        # Beyond malloc's threshold: anonymous memory of its own, which never moves. Touched, since it is copied.
        self.memory = array.array("B", bytes(SIZE + PAGE))
        address, _ = self.memory.buffer_info()
        start = -address % PAGE
        self.pages = memoryview(self.memory)[start : start + SIZE]
        self.counter = 0
        self.kept = []  # by churn

    def count(self):
        self.counter += 1
        return self.counter

    def fill(self, offset, length, seed):
        for at in range(offset, offset + length, PAGE):
            word = (seed << 32) + at // PAGE + 1
            self.pages[at : at + PAGE] = word.to_bytes(8, "little") * (PAGE // 8)
        return 0

    def zero(self, offset, length):
        for at in range(offset, offset + length, PAGE):
            self.pages[at : at + PAGE] = bytes(PAGE)
        return 0

    def rewrite(self, offset, length):
        for at in range(offset, offset + length, PAGE):
            self.pages[at] = self.pages[at]
        return 0

    def churn(self, seed):
        """Memory of the kernel's and the allocator's choice: up to 40 pieces of up to 1 MiB are kept, some are dropped, a file
        is written or goes."""
        dice = random.Random(seed)
        for _ in range(dice.randrange(1, 12)):
            if len(self.kept) < 40 and dice.random() < 0.6:
                self.kept.append(bytearray(dice.randbytes(PAGE) * dice.randrange(1, 256)))
            elif self.kept:
                self.kept.pop(dice.randrange(len(self.kept)))
        path = f"/tmp/churn-{dice.randrange(8)}"
        if os.path.exists(path) and dice.random() < 0.5:
            os.unlink(path)
        else:
            with open(path, "wb") as file:
                file.write(dice.randbytes(PAGE) * dice.randrange(1, 128))
        return 0

    def checksum(self, offset, length):
        return zlib.crc32(self.pages[offset : offset + length])


def execute(arena, line):
    name, *numbers = line.split()
    if name not in ("count", "fill", "zero", "rewrite", "checksum", "churn"):
        return "!no such command"
    return str(getattr(arena, name)(*map(int, numbers)))


def serve(arena, listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(IDLE_SECONDS)
            try:
                line = b""
                while not line.endswith(b"\n"):
                    part = connection.recv(200)
                    if not part:
                        break
                    line += part
                if line:
                    connection.sendall(execute(arena, line.decode()).encode() + b"\n")
            except (OSError, ValueError, TypeError) as error:
                print(error, file=sys.stderr)


def main():
    listener = socket.create_server(("0.0.0.0", PORT))
    if os.fork() != 0:
        return  # it listens: commands may come
    os.setsid()
    nothing = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    gc.disable()
    serve(Arena(), listener)


main()
