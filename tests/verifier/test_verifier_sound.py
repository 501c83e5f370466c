"""What the abstract operations promise: every concrete result lies in the abstract one. Exhaustive when small."""

from __future__ import annotations

import itertools
import random

import pytest

from pktbpf.verifier import scalar, tnum
from pktbpf.verifier.profile import profile
from pktbpf.verifier.scalar import Scalar
from pktbpf.verifier.tnum import M32, M64, Tnum

SMALL = [(value, mask) for mask in range(16) for value in range(16) if not value & mask]


def members(a: Tnum) -> list[int]:
    """All values of a tnum of four bits."""
    return [x for x in range(16) if x & ~a[1] == a[0]]


BINARY = {
    tnum.add: lambda x, y: x + y, tnum.sub: lambda x, y: x - y, tnum.multiply: lambda x, y: x * y,
    tnum.multiply_summed: lambda x, y: x * y,
    tnum.bit_and: lambda x, y: x & y, tnum.bit_or: lambda x, y: x | y, tnum.bit_xor: lambda x, y: x ^ y,
}  # fmt: skip


@pytest.mark.parametrize("operation", list(BINARY), ids=lambda f: f.__name__)
def test_tnum_operations_hold_all_results(operation: object) -> None:
    concrete = BINARY[operation]  # type: ignore[index]
    for a, b in itertools.product(SMALL, SMALL):
        value, mask = operation(a, b)  # type: ignore[operator]
        assert not value & mask
        for x, y in itertools.product(members(a), members(b)):
            assert concrete(x, y) & M64 & ~mask == value, (a, b, x, y)


def test_tnum_between_holds_the_range() -> None:
    for low in range(64):
        for high in range(low, 64):
            value, mask = tnum.between(low, high)
            assert all(x & ~mask == value for x in range(low, high + 1))


def test_tnum_following_is_the_next_member() -> None:
    for a in SMALL:
        for at in range(18):
            assert tnum.following(a, at) == next((x for x in members(a) if x > at), members(a)[-1])


# Each differs from the next in what its arithmetic finds out.
VERSIONS = ("5.10", "6.1", "6.8", "6.10", "6.12", "6.14", "6.18")
INTERESTING = (
    0, 1, 2, 7, 8, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, M64,
)  # fmt: skip


def samples(rng: random.Random) -> list[int]:
    """A few values near each other or near edges."""
    base = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.getrandbits(64)
    spread = rng.choice((0, 1, 3, 16, 1 << 8, 1 << 31, 1 << 33))
    return [(base + rng.randint(-spread, spread)) & M64 for _ in range(rng.randrange(1, 5))]


def around(values: list[int]) -> Scalar:
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL", "AND", "OR", "XOR", "NEG", "LSH", "RSH", "ARSH"])
def test_arithmetic_holds_all_results(name: str, bits: int, version: str) -> None:
    rng = random.Random(name + str(bits))
    domain = profile(version).domain
    for _ in range(600):
        xs = samples(rng)
        ys = [rng.randrange(bits)] if name.endswith("SH") else samples(rng)
        result = domain.apply(name, bits, around(xs), around(ys))
        if result is None:
            assert version != "6.18"
            continue
        for x, y in itertools.product(xs, ys):
            assert scalar.holds(result, apply(name, bits, x, y)), (name, bits, xs, ys)


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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["EQ", "NE", "SET", "GT", "GE", "LT", "LE", "SGT", "SGE", "SLT", "SLE"])
def test_comparisons_keep_all_possible_values(name: str, bits: int, version: str) -> None:
    rng = random.Random(name + str(bits))
    domain = profile(version).domain
    for _ in range(600):
        xs, ys = samples(rng), samples(rng)
        a, b = around(xs), around(ys)
        decided = domain.decide(name, bits, a, b)
        taken_a, taken_b, other_a, other_b = domain.learn(name, bits, a, b)
        for x, y in itertools.product(xs, ys):
            taken = holds(name, bits, x, y)
            assert decided is None or decided == taken, (name, bits, xs, ys)
            after = (taken_a, taken_b) if taken else (other_a, other_b)
            assert scalar.holds(after[0], x), (name, bits, xs, ys)
            assert scalar.holds(after[1], y), (name, bits, xs, ys)


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(VERSIONS)))
def test_a_newer_kernel_knows_no_less(older: str, newer: str) -> None:
    rng = random.Random(older)
    before, after = profile(older).domain, profile(newer).domain
    for _ in range(3000):
        # The products of 6.18 know other bits, not always more.
        names = ("ADD", "SUB", "AND", "OR", "XOR", "RSH", "ARSH", *(() if newer == "6.18" else ("MUL",)))
        name, bits = rng.choice(names), rng.choice((64, 32))
        a, b = around(samples(rng)), around([rng.randrange(bits)] if name.endswith("SH") else samples(rng))
        old, new = before.apply(name, bits, a, b), after.apply(name, bits, a, b)
        assert new is not None or old is None
        if old is not None and new is not None:
            assert scalar.within(old, new), (name, bits, a, b)


def test_extensions_hold_all_results() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        values = samples(rng)
        s = around(values)
        for size in (1, 2, 4):
            bits = 8 * size
            for value in values:
                low = value & (1 << bits) - 1
                assert scalar.holds(scalar.truncate(s, size), low)
                extended = low - (1 << bits) if low >> bits - 1 else low
                assert scalar.holds(scalar.checked(scalar.sign_extend(s, size)), extended)
                if size < 4:
                    half = scalar.sync(scalar.zero_extend(scalar.sign_extend32(s, size)))
                    assert scalar.holds(half, extended & M32)
