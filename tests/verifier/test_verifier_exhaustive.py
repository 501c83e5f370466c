"""Every abstract operation, exhaustively where numbers are small: all tristate numbers of a few bits, all sets of
neighbouring numbers at every edge of both widths. No concrete result may lie outside the abstract one.

Bits stand at the bottom, at the top and over the middle of 64, where carries leave and halves meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from sound_values import apply, around, extended, holds, reversed_bytes

from pktbpf.verifier import alu, arithmetic, compare, scalar, tnum
from pktbpf.verifier.scalar import Scalar
from pktbpf.verifier.tnum import M32, M64, Tnum

PLACES = (0, 30, 59)  # lowest bit of the five: bottom, over the middle, at the top


def tnums(bits: int, place: int = 0) -> list[Tnum]:
    """All tristate numbers of so many bits, from bit `place` on."""
    full = 1 << bits
    return [(value << place, mask << place) for mask in range(full) for value in range(full) if not value & mask]


def members(a: Tnum) -> list[int]:
    """All values of one."""
    found, bit = [a[0]], 1
    while bit <= a[1]:
        if a[1] & bit:
            found += [value | bit for value in found]
        bit <<= 1
    return found


def inside(a: Tnum, value: int) -> bool:
    """Whether a value is a member."""
    return value & M64 & ~a[1] == a[0]


BINARY: dict[Callable[[Tnum, Tnum], Tnum], Callable[[int, int], int]] = {
    tnum.add: lambda x, y: x + y, tnum.sub: lambda x, y: x - y, tnum.bit_and: lambda x, y: x & y,
    tnum.bit_or: lambda x, y: x | y, tnum.bit_xor: lambda x, y: x ^ y, tnum.multiply: lambda x, y: x * y,
    tnum.multiply_summed: lambda x, y: x * y,
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("operation", list(BINARY), ids=lambda f: f.__name__)
def test_tnum_operations_hold_all_results(operation: Callable[[Tnum, Tnum], Tnum], place: int) -> None:
    concrete = BINARY[operation]
    small = [(a, members(a)) for a in tnums(4, place)]
    # A product of high bits alone is zero: the second factor stays at the bottom.
    others = [(a, members(a)) for a in tnums(4)] if operation.__name__.startswith("multiply") else small
    for (a, xs), (b, ys) in itertools.chain(itertools.product(small, others), itertools.product(others, small)):
        value, mask = operation(a, b)
        assert not value & mask
        assert (value | mask) <= M64
        for x, y in itertools.product(xs, ys):
            assert concrete(x, y) & M64 & ~mask == value, (a, b, x, y)


@pytest.mark.long
@pytest.mark.parametrize("operation", list(BINARY), ids=lambda f: f.__name__)
def test_tnum_operations_hold_all_results_of_five_bits(operation: Callable[[Tnum, Tnum], Tnum]) -> None:
    concrete = BINARY[operation]
    small = [(a, members(a)) for a in tnums(5)]
    for (a, xs), (b, ys) in itertools.product(small, small):
        value, mask = operation(a, b)
        assert all(concrete(x, y) & M64 & ~mask == value for x, y in itertools.product(xs, ys)), (a, b)


@pytest.mark.parametrize("place", PLACES)
def test_tnum_shifts_hold_all_results(place: int) -> None:
    for a in tnums(5, place):
        low = tnum.low32(a)
        for count, x in itertools.product(range(7), members(a)):
            assert inside(tnum.shift_left(a, count), x << count), (a, count, x)
            assert inside(tnum.shift_right(a, count), x >> count), (a, count, x)
            assert inside(tnum.shift_right_signed(a, count, 64), scalar.signed64(x) >> count), (a, count, x)
            half = scalar.signed32(x) >> count & M32
            assert inside(tnum.shift_right_signed(low, count, 32), half), (a, count, x)


@pytest.mark.parametrize("place", PLACES)
def test_tnums_and_their_sets_agree(place: int) -> None:
    small = [(a, set(members(a))) for a in tnums(4, place)]
    for a, xs in small:
        assert all(inside(tnum.negate(a), -x) for x in xs), a
        assert {x & M32 for x in xs} <= set(members(tnum.low32(a)))
    for (a, xs), (b, ys) in itertools.product(small, small):
        assert tnum.overlap(a, b) == bool(xs & ys), (a, b)
        assert tnum.contains(a, b) == (ys <= xs), (a, b)
        assert all(inside(tnum.union(a, b), x) for x in xs | ys), (a, b)
        assert all(inside(tnum.intersect(a, b), x) for x in xs & ys), (a, b)
        joined = tnum.with_low32(a, b)
        assert all(inside(joined, x & ~M32 | y & M32) for x, y in itertools.product(xs, ys)), (a, b)


def test_tnum_between_holds_the_range() -> None:
    for place in PLACES:
        for low in range(32):
            for high in range(low, 32):
                found = tnum.between(low << place, high << place)
                assert all(inside(found, x << place) for x in range(low, high + 1)), (low, high)


def test_tnum_following_is_the_next_member() -> None:
    for a in tnums(5):
        found = sorted(members(a))
        for at in range(34):
            assert tnum.following(a, at) == next((x for x in found if x > at), found[-1])


# ---- scalars

# Where numbers change their sign, their width or their length in bytes.
EDGES = (0, 1 << 31, 1 << 32, 1 << 63, (1 << 63) + (1 << 31))
BYTES = (0x80, 0x100, 0x8000, 0x1_0000, (1 << 32) + 0x80, (1 << 32) - 0x8000, M64 - 0x7F, 0x80000080)


def sets(edges: tuple[int, ...], size: int = 4) -> dict[Scalar, tuple[int, ...]]:
    """Scalars around every set of up to `size` neighbours at the edges, and one member in each half's distance."""
    found: dict[Scalar, set[int]] = {}
    for edge in edges:
        window = [(edge + n - size // 2) & M64 for n in range(size)]
        for chosen in range(1, 1 << size):
            values = [value for n, value in enumerate(window) if chosen >> n & 1]
            found.setdefault(around(values), set()).update(values)
    for low, high in itertools.product((-1, 0, 1), (1 << 32, 1 << 63)):
        values = [low & M64, low + high & M64]
        found.setdefault(around(values), set()).update(values)
    return {s: tuple(values) for s, values in found.items()}


SETS = sets(EDGES)
AMOUNTS = {scalar.exact(n): (n,) for n in (0, 1, 7, 31, 32, 33, 63)}


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL", "AND", "OR", "XOR", "NEG", "LSH", "RSH", "ARSH"])
def test_arithmetic_holds_all_results(name: str, bits: int) -> None:
    _arithmetic(name, bits, SETS)


@pytest.mark.long
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL", "AND", "OR", "XOR", "NEG", "LSH", "RSH", "ARSH"])
def test_arithmetic_holds_all_results_of_more(name: str, bits: int) -> None:
    _arithmetic(name, bits, sets((*EDGES, *BYTES), 5))


def _arithmetic(name: str, bits: int, known: dict[Scalar, tuple[int, ...]]) -> None:
    amounts = AMOUNTS if name.endswith("SH") else {scalar.ZERO: (0,)} if name == "NEG" else known
    for (a, xs), (b, ys) in itertools.product(known.items(), amounts.items()):
        result = arithmetic.apply(name, bits, a, b)
        if result is None:
            assert ys[0] >= bits, (name, bits, a, b)
            assert name.endswith("SH")
            continue
        result = scalar.checked(result)
        for x, y in itertools.product(xs, ys):
            assert scalar.holds(result, apply(name, bits, x, y)), (name, bits, x, y, a, b)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["EQ", "NE", "SET", "GT", "GE", "LT", "LE", "SGT", "SGE", "SLT", "SLE"])
def test_comparisons_keep_all_possible_values(name: str, bits: int) -> None:
    _comparisons(name, bits, SETS)


@pytest.mark.long
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["EQ", "NE", "SET", "GT", "GE", "LT", "LE", "SGT", "SGE", "SLT", "SLE"])
def test_comparisons_keep_all_possible_values_of_more(name: str, bits: int) -> None:
    _comparisons(name, bits, sets((*EDGES, *BYTES[:4]), 5))


def _comparisons(name: str, bits: int, known: dict[Scalar, tuple[int, ...]]) -> None:
    for (a, xs), (b, ys) in itertools.product(known.items(), known.items()):
        decided = compare.decide(name, bits, a, b)
        taken_a, taken_b, other_a, other_b = compare.learn(name, bits, a, b)
        for x, y in itertools.product(xs, ys):
            taken = holds(name, bits, x, y)
            assert decided is None or decided == taken, (name, bits, x, y, a, b)
            assert scalar.holds(taken_a if taken else other_a, x), (name, bits, x, y, a, b)
            assert scalar.holds(taken_b if taken else other_b, y), (name, bits, x, y, a, b)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["EQ", "NE", "SET", "GT", "GE", "LT", "LE", "SGT", "SGE", "SLT", "SLE"])
def test_a_value_compared_with_itself_stays_possible(name: str, bits: int) -> None:
    for a, xs in SETS.items():
        decided = compare.decide(name, bits, a, a)
        taken, other = compare.learn_same(name, bits, a)
        for x in xs:
            result = holds(name, bits, x, x)
            assert decided is None or decided == result, (name, bits, x, a)
            assert scalar.holds(taken if result else other, x), (name, bits, x, a)


def test_moves_hold_all_results() -> None:
    for s, values in sets((*EDGES, *BYTES), 5).items():
        whole = scalar.checked(scalar.sync(scalar.zero_extend(s)))
        for value in values:
            assert scalar.holds(whole, value & M32), (s, value)
            for size in (1, 2, 4):
                assert scalar.holds(scalar.truncate(s, size), value & (1 << 8 * size) - 1), (s, value, size)
                signed = scalar.checked(scalar.sign_extend(s, size))
                assert scalar.holds(signed, extended(value, size, 64)), (s, value, size)
            for size in (1, 2):
                half = scalar.checked(scalar.sync(scalar.zero_extend(scalar.sign_extend32(s, size))))
                assert scalar.holds(half, extended(value, size, 32)), (s, value, size)
            for bits in (16, 32, 64):
                assert scalar.holds(alu._swapped(s, bits), reversed_bytes(value, bits)), (s, value, bits)


def test_linked_values_hold_all_results() -> None:
    for (s, values), delta in itertools.product(sets(EDGES, 5).items(), (-(1 << 31), -2, -1, 1, 2, (1 << 31) - 1)):
        wide = scalar.checked(arithmetic.add_constant(s, delta, half=False))
        half = scalar.checked(arithmetic.add_constant(s, delta, half=True))
        for value in values:
            assert scalar.holds(wide, value + delta), (s, value, delta)
            assert scalar.holds(half, value + delta & M32), (s, value, delta)


# Where each range begins in a scalar, and how a number of 64 bits is read there.
RANGES: dict[int, Callable[[int], int]] = {
    2: scalar.signed64, 4: lambda value: value & M64, 6: scalar.signed32, 8: lambda value: value & M32,
}  # fmt: skip


def _teach(place: int, chosen: tuple[int, ...]) -> None:
    """Every tristate number of three bits with every range of eight neighbours in the chosen places of a scalar."""
    base = place & ~7
    kinds = [[(at, RANGES[at](base + low), RANGES[at](base + high))
              for low, high in itertools.combinations_with_replacement(range(8), 2)] for at in chosen]  # fmt: skip
    for value, mask in tnums(3):
        known = members((base | value, mask))
        for ranges in itertools.product(*kinds):
            made = list(scalar.unbounded(base | value, mask))
            for at, low, high in ranges:
                made[at : at + 2] = low, high
            s: Scalar = tuple(made)  # type: ignore[assignment]
            settled = scalar.sync(s)
            for member in known:
                assert not scalar.holds(s, member) or scalar.holds(settled, member), (s, member)


CORNERS = [0, 1 << 31, 1 << 32, 1 << 63, (1 << 31) - 8, M64 - 7]


@pytest.mark.parametrize("place", CORNERS)
def test_bits_and_a_range_teach_each_other_nothing_wrong(place: int) -> None:
    for at in RANGES:
        _teach(place, (at,))


@pytest.mark.long
@pytest.mark.parametrize("place", CORNERS)
def test_bits_and_two_ranges_teach_each_other_nothing_wrong(place: int) -> None:
    for chosen in itertools.combinations(RANGES, 2):
        _teach(place, chosen)


def _teach_each_other(points: list[int], first: int, second: int) -> None:
    """Two kinds of ranges between any two points."""
    ends = {at: sorted({RANGES[at](point) for point in points}) for at in (first, second)}
    for one in itertools.combinations_with_replacement(ends[first], 2):
        for other in itertools.combinations_with_replacement(ends[second], 2):
            made = list(scalar.UNKNOWN)
            made[first : first + 2] = one
            made[second : second + 2] = other
            s: Scalar = tuple(made)  # type: ignore[assignment]
            settled = scalar.sync(s)
            assert all(not scalar.holds(s, point) or scalar.holds(settled, point) for point in points), s


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(RANGES, 2)))
def test_ranges_teach_each_other_nothing_wrong(first: int, second: int) -> None:
    for edges in ((0, 1 << 31), (0, 1 << 63), (0, 1 << 32), ((1 << 32) - (1 << 31), (1 << 32) + (1 << 31))):
        _teach_each_other([(edge + n) & M64 for edge in edges for n in (-2, -1, 0, 1)], first, second)


@pytest.mark.long
@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(RANGES, 2)))
def test_ranges_of_all_edges_teach_each_other_nothing_wrong(first: int, second: int) -> None:
    edges = (0, 1 << 31, 1 << 32, (1 << 32) + (1 << 31), (1 << 63) - (1 << 31), 1 << 63)
    _teach_each_other([(edge + n) & M64 for edge in edges for n in (-2, -1, 0, 1)], first, second)
