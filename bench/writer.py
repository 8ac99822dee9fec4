"""Runs in the guest: dirties 128 MiB, says so in /run/dirty, and goes on dirtying 20 MiB/s of it."""
import time

PAGE = 4096
RATE = 20 << 20
memory = bytearray(128 << 20)
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
