"""Runs in the guest: dirties as many MiB as it is told, says so in /run/dirty, and goes on dirtying 20 MiB/s of them."""
import sys
import time

PAGE = 4096
RATE = 20 << 20
memory = bytearray(int(sys.argv[1]) << 20)
for offset in range(0, len(memory), PAGE):
    memory[offset] = 1
open("/run/dirty", "w").close()
position = 0
while True:
    begun = time.monotonic()
    for _ in range(RATE // 10 // PAGE):
        memory[position] = (memory[position] + 1) % 256
        position = (position + PAGE) % len(memory)
    time.sleep(max(0.0, 0.1 - (time.monotonic() - begun)))
