"""Runs in the guest: writes round numbers to page after page and to the disk, each only after the one before.

So at any one moment no page is more than one round behind another, and the disk is never ahead of the memory. Before
a page or the block is written its old number is checked: a snapshot that is not of one moment shows in the first round
after it was restored. /run/round holds the rounds done, /run/broken says what was wrong. With nothing but what python3-minimal has.
"""
import os

PAGES = 512
PAGE = 4096


def number(buffer, page=0):
    return int.from_bytes(buffer[page * PAGE : page * PAGE + 8], "little")


def put(buffer, page, value):
    buffer[page * PAGE : page * PAGE + 8] = value.to_bytes(8, "little")


def say(name, text):
    with open(f"/run/{name}.new", "w") as file:
        file.write(str(text))
    os.rename(f"/run/{name}.new", f"/run/{name}")


def block_for(disk):
    """A buffer that O_DIRECT takes: one that is aligned, found by trying."""
    room = memoryview(bytearray(2 * PAGE))
    for start in range(0, PAGE, 16):
        block = room[start : start + PAGE]
        try:
            os.pwritev(disk, [block], 0)
            return block
        except OSError:
            pass
    raise RuntimeError("no buffer is aligned")


def main():
    memory = bytearray(PAGES * PAGE)
    disk = os.open("/root/ordered", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    block = block_for(disk)
    turn = 0
    while True:
        turn += 1
        for page in range(PAGES):
            if number(memory, page) != turn - 1:
                return say("broken", f"page {page} has {number(memory, page)} in round {turn}")
            put(memory, page, turn)
        os.preadv(disk, [block], 0)
        if number(block) != turn - 1:
            return say("broken", f"the disk has {number(block)} in round {turn}")
        put(block, 0, turn)
        os.pwritev(disk, [block], 0)
        say("round", turn)


main()
