"""Inputs made of good ones by chance: native/driver.c has the same for C."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

MOST = 4096  # bytes of an input

_TELLING = [0, 1, 2, 4, 8, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]


def inputs(seeds: Sequence[bytes], rng: random.Random) -> Iterator[bytes]:
    """The seeds, and then ones that are made of them, without end."""
    yield from seeds
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            _change(data, seeds, rng)
        yield bytes(data[:MOST])


def _change(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(data):
            data[at] = rng.randrange(256)
        case 2:
            width = rng.choice([1, 2, 4, 8])
            number = rng.choice(_TELLING) & (1 << 8 * width) - 1
            data[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
        case 3:
            del data[start:stop]
        case 4:
            data[at:at] = data[start:stop]
        case 5:
            data[start:stop] = data[start:stop][:16] * rng.choice([2, 16, 256])
        case 6:
            other = rng.choice(seeds)
            low, high = sorted(rng.randrange(len(other) + 1) for _ in range(2))
            data[at:stop] = other[low:high]
        case _:
            data[at:at] = rng.randbytes(rng.randrange(16))
