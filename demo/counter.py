"""Runs in the guest: 32 MiB of random data with their checksum, and a counter every 100 ms.

/run/counter has the count, /run/checksum the checksum; making /run/ask asks for the checksum to be computed again from memory.
"""
import hashlib
import os
import time


def publish(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


data = bytearray()
for _ in range(32):
    data += os.urandom(1 << 20)
publish("/run/checksum", hashlib.sha1(data).hexdigest())
count = 0
while True:
    count += 1
    publish("/run/counter", str(count))
    if os.path.exists("/run/ask"):
        publish("/run/checksum", hashlib.sha1(data).hexdigest())
        os.unlink("/run/ask")
    time.sleep(0.1)
