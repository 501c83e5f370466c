"""The concrete side of soundness: sets of numbers, the scalar around them, what instructions really do with numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pktbpf.verifier import scalar, tnum
from pktbpf.verifier.scalar import Scalar
from pktbpf.verifier.tnum import M32, M64

INTERESTING = (
    0, 1, 2, 7, 8, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, M64,
)  # fmt: skip


def samples(rng: random.Random) -> list[int]:
    """A few values near each other or near edges."""
    base = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.getrandbits(64)
    spread = rng.choice((0, 1, 3, 16, 1 << 8, 1 << 31, 1 << 33))
    return [(base + rng.randint(-spread, spread)) & M64 for _ in range(rng.randrange(1, 5))]


def around(values: Sequence[int]) -> Scalar:
    """The smallest scalar with all of them."""
    bits = tnum.exact(values[0])
    for value in values[1:]:
        bits = tnum.union(bits, tnum.exact(value))
    low = [value & M32 for value in values]
    signed, signed32 = [scalar.signed64(v) for v in values], [scalar.signed32(v) for v in low]
    ends = (min(signed), max(signed), min(values), max(values), min(signed32), max(signed32), min(low), max(low))
    return scalar.sync((*bits, *ends))


def apply(name: str, bits: int, x: int, y: int) -> int:
    """The concrete operation."""
    mask = M64 if bits == 64 else M32
    x, y = x & mask, y & mask
    signed = scalar.signed64(x) if bits == 64 else scalar.signed32(x)
    results = {
        "ADD": x + y, "SUB": x - y, "MUL": x * y, "AND": x & y, "OR": x | y, "XOR": x ^ y, "NEG": -x,
        "LSH": x << (y % bits), "RSH": x >> (y % bits), "ARSH": signed >> (y % bits),
    }  # fmt: skip
    return results[name] & mask


def holds(name: str, bits: int, x: int, y: int) -> bool:
    """The concrete comparison."""
    mask = M64 if bits == 64 else M32
    x, y = x & mask, y & mask
    if name == "SET":
        return bool(x & y)
    if name.startswith("S"):
        read = scalar.signed64 if bits == 64 else scalar.signed32
        x, y, name = read(x), read(y), name[1:]
    return {"EQ": x == y, "NE": x != y, "GT": x > y, "GE": x >= y, "LT": x < y, "LE": x <= y}[name]


def extended(value: int, size: int, bits: int) -> int:
    """The low `size` bytes sign-extended to `bits`."""
    half = 1 << 8 * size - 1
    return ((value & (half * 2 - 1)) ^ half) - half & (1 << bits) - 1


def reversed_bytes(value: int, bits: int) -> int:
    """The low bits with the order of bytes reversed."""
    return int.from_bytes((value & (1 << bits) - 1).to_bytes(bits // 8, "little"), "big")
