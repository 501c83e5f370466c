"""Conditional jumps on what is known of both operands: whether the branch is decided, and what each side then knows.

Operations are EQ, NE, SET, GT, GE, LT, LE and their signed forms SGT, SGE, SLT, SLE, 64 or 32 bits wide. Mirrors
is_scalar_branch_taken, regs_refine_cond_op and reg_set_min_max of the kernel's verifier.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from pktbpf.verifier import scalar, tnum
from pktbpf.verifier.scalar import NEWEST, Reach, Scalar, signed32, signed64
from pktbpf.verifier.tnum import M32, M64

# a OP b is b FLIPPED[OP] a; a OP b fails exactly when a REVERSED[OP] b holds. CLEAR is the failing side of SET.
FLIPPED = {
    "EQ": "EQ", "NE": "NE", "SET": "SET", "CLEAR": "CLEAR", "GE": "LE", "GT": "LT", "LE": "GE", "LT": "GT",
    "SGE": "SLE", "SGT": "SLT", "SLE": "SGE", "SLT": "SGT",
}  # fmt: skip
REVERSED = {
    "EQ": "NE", "NE": "EQ", "SET": "CLEAR", "GE": "LT", "GT": "LE", "LE": "GT", "LT": "GE",
    "SGE": "SLT", "SGT": "SLE", "SLE": "SGT", "SLT": "SGE",
}  # fmt: skip


def _known(s: Scalar, bits: int) -> bool:
    return not (s[1] if bits == 64 else s[1] & M32)


def _apart(a: Scalar, b: Scalar, bits: int, by_bits: bool) -> bool:
    """Whether the two can never be equal."""
    left, right = (a[:2], b[:2]) if bits == 64 else (tnum.low32(a[:2]), tnum.low32(b[:2]))
    if by_bits and not tnum.overlap(left, right):
        return True
    pairs = ((8, 9), (6, 7)) if bits == 32 else ((4, 5), (2, 3), (8, 9), (6, 7))
    return any(a[low] > b[high] or a[high] < b[low] for low, high in pairs)


def _equality(operation: str, a: Scalar, b: Scalar, bits: int, by_bits: bool) -> bool | None:
    full = M64 if bits == 64 else M32
    if _known(a, bits) and _known(b, bits):
        return (a[0] & full == b[0] & full) == (operation == "EQ")
    if _apart(a, b, bits, by_bits):
        return operation == "NE"
    return None


def _bit_test(a: Scalar, b: Scalar, bits: int) -> bool | None:
    if not _known(b, bits):
        a, b = b, a
    if not _known(b, bits):
        return None
    full = M64 if bits == 64 else M32
    wanted = b[0] & full
    if a[0] & wanted:
        return True
    if not (a[0] | a[1]) & wanted:
        return False
    return None


@lru_cache(maxsize=1 << 16)
def decide(operation: str, bits: int, a: Scalar, b: Scalar) -> bool | None:
    """True: always taken; False: never; None: open."""
    return decided(operation, bits, a, b, NEWEST)


def decided(operation: str, bits: int, a: Scalar, b: Scalar, reach: Reach) -> bool | None:
    """The same for any version from 6.8 on."""
    if operation in ("EQ", "NE"):
        return _equality(operation, a, b, bits, reach.apart_bits)
    if operation == "SET":
        return _bit_test(a, b, bits)
    signed = operation[0] == "S"
    low = {(64, False): 4, (64, True): 2, (32, False): 8, (32, True): 6}[bits, signed]
    lo, hi, lo2, hi2 = a[low], a[low + 1], b[low], b[low + 1]
    kind = operation[-2:]
    if kind == "GT":
        return True if lo > hi2 else False if hi <= lo2 else None
    if kind == "LT":
        return True if hi < lo2 else False if lo >= hi2 else None
    if kind == "GE":
        return True if lo >= hi2 else False if hi < lo2 else None
    return True if hi <= lo2 else False if lo > hi2 else None


def _equal(a: Scalar, b: Scalar, bits: int) -> tuple[Scalar, Scalar]:
    if bits == 64:
        value, mask = tnum.intersect(a[:2], b[:2])
        joined = (max(a[2], b[2]), min(a[3], b[3]), max(a[4], b[4]), min(a[5], b[5]))
        return (value, mask, *joined, *a[6:]), (value, mask, *joined, *b[6:])
    low = tnum.intersect(tnum.low32(a[:2]), tnum.low32(b[:2]))
    half = (max(a[6], b[6]), min(a[7], b[7]), max(a[8], b[8]), min(a[9], b[9]))
    return (
        (*tnum.with_low32(a[:2], low), *a[2:6], *half),
        (*tnum.with_low32(b[:2], low), *b[2:6], *half),
    )


def _unequal(a: Scalar, b: Scalar, bits: int) -> Scalar:
    """`a`, known to differ from the known `b`: only an edge of a range can move."""
    value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32 = a
    if bits == 32:
        u, s = b[0] & M32, signed32(b[0])
        ulo32, uhi32 = ulo32 + (ulo32 == u), uhi32 - (uhi32 == u)
        slo32, shi32 = slo32 + (slo32 == s), shi32 - (shi32 == s)
    else:
        u, s = b[0], signed64(b[0])
        ulo, uhi = ulo + (ulo == u), uhi - (uhi == u)
        slo, shi = slo + (slo == s), shi - (shi == s)
    return (value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32)


def _bits_set(a: Scalar, b: Scalar, bits: int) -> Scalar:
    """`a` after `a & b` was not zero: one single wanted bit is certainly set."""
    wanted = b[0] & (M64 if bits == 64 else M32)
    if wanted & (wanted - 1) or not wanted:
        return a
    value, mask = a[:2]
    return (value | wanted, mask & ~wanted, *a[2:])


def _bits_clear(a: Scalar, b: Scalar, bits: int) -> Scalar:
    """`a` after `a & b` was zero; the ranges are forgotten first, as the kernel does."""
    wanted = b[0] & (M64 if bits == 64 else M32)
    return scalar.unbounded(a[0] & ~wanted, a[1] & ~wanted)


def _ordered(operation: str, a: Scalar, b: Scalar, bits: int) -> tuple[Scalar, Scalar]:
    """LE, LT, SLE, SLT: the upper end of `a` and the lower end of `b`."""
    low = {(64, False): 4, (64, True): 2, (32, False): 8, (32, True): 6}[bits, operation[0] == "S"]
    strict = operation.endswith("LT")
    high = min(a[low + 1], b[low + 1] - strict)
    bottom = max(a[low] + strict, b[low])
    left = (*a[: low + 1], high, *a[low + 2 :])
    right = (*b[:low], bottom, *b[low + 1 :])
    return left, right  # type: ignore[return-value]


def _refine(operation: str, bits: int, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """Both operands, given that `a operation b` holds."""
    if operation in ("GE", "GT", "SGE", "SGT"):
        right, left = _refine(FLIPPED[operation], bits, b, a)
        return left, right
    if operation == "EQ":
        return _equal(a, b, bits)
    if operation in ("LE", "LT", "SLE", "SLT"):
        return _ordered(operation, a, b, bits)
    change = {"NE": _unequal, "SET": _bits_set, "CLEAR": _bits_clear}[operation]
    if _known(b, bits):
        return change(a, b, bits), b
    if _known(a, bits):
        return a, change(b, a, bits)
    return a, b


@lru_cache(maxsize=1 << 16)
def learn(operation: str, bits: int, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """Both operands where the branch is taken, then both where it is not."""
    return learnt(operation, bits, a, b, scalar.sync)


def learnt(
    operation: str, bits: int, a: Scalar, b: Scalar, settle: Callable[[Scalar], Scalar]
) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """The same for any version from 6.8 on, whose deductions are `settle`."""
    taken_a, taken_b, other_a, other_b = unchecked(operation, bits, a, b, settle)
    check = scalar.checked
    return check(taken_a), check(taken_b), check(other_a), check(other_b)


def unchecked(
    operation: str, bits: int, a: Scalar, b: Scalar, settle: Callable[[Scalar], Scalar]
) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """The same with the contradictions of impossible branches left in."""
    taken, other = _refine(operation, bits, a, b), _refine(REVERSED[operation], bits, a, b)
    return settle(taken[0]), settle(taken[1]), settle(other[0]), settle(other[1])


@lru_cache(maxsize=1 << 12)
def learn_same(operation: str, bits: int, a: Scalar) -> tuple[Scalar, Scalar]:
    """A value compared with itself, where the branch is taken and where it is not."""
    return learnt_same(operation, bits, a, scalar.sync)


def learnt_same(operation: str, bits: int, a: Scalar, settle: Callable[[Scalar], Scalar]) -> tuple[Scalar, Scalar]:
    """The same for any version from 6.8 on, whose deductions are `settle`."""
    taken, other = unchecked_same(operation, bits, a, settle)
    return scalar.checked(taken), scalar.checked(other)


def unchecked_same(
    operation: str, bits: int, a: Scalar, settle: Callable[[Scalar], Scalar]
) -> tuple[Scalar, Scalar]:
    """The same with contradictions left in."""
    taken, other = _refine_same(operation, bits, a), _refine_same(REVERSED[operation], bits, a)
    return settle(settle(taken)), settle(settle(other))


def _refine_same(operation: str, bits: int, a: Scalar) -> Scalar:
    """Both operands are one register: the upper end moves first, the lower one then sees it."""
    if operation in ("LE", "LT", "SLE", "SLT", "GE", "GT", "SGE", "SGT"):
        if operation.endswith("E"):
            return a
        low = {(64, False): 4, (64, True): 2, (32, False): 8, (32, True): 6}[bits, operation[0] == "S"]
        return (*a[:low], a[low] + 1, a[low + 1] - 1, *a[low + 2 :])  # type: ignore[return-value]
    if operation in ("NE", "SET", "CLEAR") and _known(a, bits):
        return {"NE": _unequal, "SET": _bits_set, "CLEAR": _bits_clear}[operation](a, a, bits)
    return a
