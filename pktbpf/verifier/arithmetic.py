"""ALU operations on what is known of their operands (scalar.py), 64 and 32 bits wide.

`apply(operation, bits, dst, src)` gives the result or None where the kernel's verifier gives up and knows nothing:
division, modulo, and shifts by an amount that is not one known number below the width. Mirrors
adjust_scalar_min_max_vals; shared results are remembered, since loops and branches ask the same again and again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache

from pktbpf.verifier import scalar, tnum
from pktbpf.verifier.scalar import NEWEST, S32_MAX, S32_MIN, S64_MAX, S64_MIN, Reach, Scalar, signed32, signed64
from pktbpf.verifier.tnum import M32, M64

Range = tuple[int, int]
BEFORE_WRAPS = Reach(wrapping_sums=False)


def _add(lo: int, hi: int, lo2: int, hi2: int, smallest: int, largest: int) -> Range:
    low, high = lo + lo2, hi + hi2
    return (low, high) if smallest <= low <= largest and smallest <= high <= largest else (smallest, largest)


def _add_unsigned(lo: int, hi: int, lo2: int, hi2: int, largest: int, wraps: bool) -> Range:
    """Both ends may wrap together; only the upper one wrapping says nothing."""
    low, high = lo + lo2, hi + hi2
    if high > largest and (low <= largest or not wraps):
        return 0, largest
    return low & largest, high & largest


def _sub_unsigned(lo: int, hi: int, lo2: int, hi2: int, largest: int, wraps: bool) -> Range:
    low, high = lo - hi2, hi - lo2
    if low < 0 and (high >= 0 or not wraps):
        return 0, largest
    return low & largest, high & largest


def _add_all(a: Scalar, b: Scalar, reach: Reach = NEWEST) -> Scalar:
    wraps = reach.wrapping_sums
    value, mask = tnum.add(a[:2], b[:2])
    return (
        value,
        mask,
        *_add(a[2], a[3], b[2], b[3], S64_MIN, S64_MAX),
        *_add_unsigned(a[4], a[5], b[4], b[5], M64, wraps),
        *_add(a[6], a[7], b[6], b[7], S32_MIN, S32_MAX),
        *_add_unsigned(a[8], a[9], b[8], b[9], M32, wraps),
    )


def _sub_all(a: Scalar, b: Scalar, reach: Reach = NEWEST) -> Scalar:
    wraps = reach.wrapping_sums
    value, mask = tnum.sub(a[:2], b[:2])
    return (
        value,
        mask,
        *_add(a[2], a[3], -b[3], -b[2], S64_MIN, S64_MAX),
        *_sub_unsigned(a[4], a[5], b[4], b[5], M64, wraps),
        *_add(a[6], a[7], -b[7], -b[6], S32_MIN, S32_MAX),
        *_sub_unsigned(a[8], a[9], b[8], b[9], M32, wraps),
    )


def _mul(lo: int, hi: int, lo2: int, hi2: int, smallest: int, largest: int) -> Range:
    products = (lo * lo2, lo * hi2, hi * lo2, hi * hi2)
    low, high = min(products), max(products)
    return (low, high) if smallest <= low and high <= largest else (smallest, largest)


def _mul_unsigned(lo: int, hi: int, lo2: int, hi2: int, largest: int) -> Range:
    return (lo * lo2, hi * hi2) if hi * hi2 <= largest and lo * lo2 <= largest else (0, largest)


def _mul_positive(s: Scalar, other: Scalar, low: int, half: int, smallest: int, largest: int) -> tuple[int, ...]:
    """Products as kernels before 6.14 knew them: of numbers that are not negative and fit into half the width."""
    if s[low] < 0 or other[low] < 0 or s[low + 3] > half or other[low + 3] > half:
        return smallest, largest, 0, largest * 2 + 1
    ulo, uhi = s[low + 2] * other[low + 2], s[low + 3] * other[low + 3]
    return (ulo, uhi, ulo, uhi) if uhi <= largest else (smallest, largest, ulo, uhi)


def _mul_bits(a: Scalar, b: Scalar, reach: Reach) -> tnum.Tnum:
    return (tnum.multiply if reach.joined_products else tnum.multiply_summed)(a[:2], b[:2])


def _mul_all(a: Scalar, b: Scalar, reach: Reach) -> Scalar:
    value, mask = _mul_bits(a, b, reach)
    if not reach.signed_products:
        wide = _mul_positive(a, b, 2, M32, S64_MIN, S64_MAX)
        return (value, mask, *wide, *_mul_positive(a, b, 6, 0xFFFF, S32_MIN, S32_MAX))  # type: ignore[return-value]
    return (
        value,
        mask,
        *_mul(a[2], a[3], b[2], b[3], S64_MIN, S64_MAX),
        *_mul_unsigned(a[4], a[5], b[4], b[5], M64),
        *_mul(a[6], a[7], b[6], b[7], S32_MIN, S32_MAX),
        *_mul_unsigned(a[8], a[9], b[8], b[9], M32),
    )


def _signed_like(low: int, high: int, bits: int) -> Range:
    """An unsigned range read as signed, if it does not cross the sign boundary."""
    read, smallest, largest = (signed64, S64_MIN, S64_MAX) if bits == 64 else (signed32, S32_MIN, S32_MAX)
    return (read(low), read(high)) if read(low) <= read(high) else (smallest, largest)


def _bitwise(operation: str, a: Scalar, b: Scalar, reach: Reach) -> Scalar:
    """AND, OR and XOR: the bits first, then each width's range from them."""
    joined = {"AND": tnum.bit_and, "OR": tnum.bit_or, "XOR": tnum.bit_xor}[operation]((a[0], a[1]), (b[0], b[1]))
    value, mask = joined
    low, low_mask = value & M32, mask & M32
    if not a[1] & M32 and not b[1] & M32:
        half: tuple[int, int, int, int] = (signed32(low), signed32(low), low, low)
    else:
        ulo32, uhi32 = _bit_range(operation, low, low_mask, a[8], a[9], b[8], b[9])
        half = (*_signed_like(ulo32, uhi32, 32), ulo32, uhi32)
    if not a[1] and not b[1]:
        return scalar.exact(value)
    ulo, uhi = _bit_range(operation, value, mask, a[4], a[5], b[4], b[5])
    return scalar.from_bits((value, mask, *_signed_like(ulo, uhi, 64), ulo, uhi, *half), reach)


def _bit_range(operation: str, value: int, mask: int, lo: int, hi: int, lo2: int, hi2: int) -> Range:
    if operation == "AND":
        return value, min(hi, hi2)
    if operation == "OR":
        return max(lo, lo2), value | mask
    return value, value | mask



def _left32(s: Scalar, count: int, high_count: int) -> tuple[int, int, int, int]:
    if high_count > 31 or s[9] > 1 << (31 - high_count):
        return S32_MIN, S32_MAX, 0, M32
    return S32_MIN, S32_MAX, (s[8] << count) & M32, (s[9] << high_count) & M32


def _left(bits: int, s: Scalar, count: int, reach: Reach) -> Scalar:
    if bits == 32:
        value, mask = tnum.shift_left(tnum.low32(s[:2]), count)
        return scalar.from_bits((value & M32, mask & M32, S64_MIN, S64_MAX, 0, M64, *_left32(s, count, count)), reach)
    # A shift by 32 is how compilers begin a sign extension: a non-negative lower half keeps its bounds.
    negative = reach.upper_shift
    shi = s[7] << 32 if count == 32 and (negative or s[7] >= 0) else S64_MAX
    slo = s[6] << 32 if count == 32 and (negative or s[6] >= 0) else S64_MIN
    ulo, uhi = (0, M64) if s[5] > 1 << (63 - count) else ((s[4] << count) & M64, (s[5] << count) & M64)
    value, mask = tnum.shift_left(s[:2], count)
    return scalar.from_bits((value, mask, slo, shi, ulo, uhi, *_left32(s, count, count)), reach)


def _right(bits: int, s: Scalar, count: int, reach: Reach) -> Scalar:
    if bits == 32:
        value, mask = tnum.shift_right(tnum.low32(s[:2]), count)
        return scalar.from_bits(
            (value, mask, S64_MIN, S64_MAX, 0, M64, S32_MIN, S32_MAX, s[8] >> count, s[9] >> count), reach
        )
    value, mask = tnum.shift_right(s[:2], count)
    return scalar.from_bits(
        (value, mask, S64_MIN, S64_MAX, s[4] >> count, s[5] >> count, S32_MIN, S32_MAX, 0, M32), reach
    )


def _right_signed(bits: int, s: Scalar, count: int, reach: Reach) -> Scalar:
    if bits == 32:
        value, mask = tnum.shift_right_signed(tnum.low32(s[:2]), count, 32)
        return scalar.from_bits((value, mask, S64_MIN, S64_MAX, 0, M64, s[6] >> count, s[7] >> count, 0, M32), reach)
    value, mask = tnum.shift_right_signed(s[:2], count, 64)
    return scalar.from_bits((value, mask, s[2] >> count, s[3] >> count, 0, M64, S32_MIN, S32_MAX, 0, M32), reach)


def _known_amount(bits: int, src: Scalar) -> bool:
    if bits == 32:
        exact = not src[1] & M32 and src[6] == src[7] and src[8] == src[9]
    else:
        exact = not src[1] and src[2] == src[3] and src[4] == src[5]
    return exact and src[5] < bits


def unsettled(operation: str, bits: int, dst: Scalar, src: Scalar, reach: Reach) -> Scalar | None:
    """`apply` without the last step: ranges and bits have not taught each other yet."""
    if operation == "ADD":
        return _add_all(dst, src, reach)
    if operation == "SUB":
        return _sub_all(dst, src, reach)
    if operation in ("AND", "OR", "XOR"):
        return _bitwise(operation, dst, src, reach)
    if operation == "MUL":
        return _mul_all(dst, src, reach)
    if operation == "NEG":
        return _sub_all(scalar.ZERO, dst, reach) if reach.negation else None
    if operation in ("LSH", "RSH", "ARSH") and _known_amount(bits, src):
        count = src[8] if bits == 32 else src[4]
        return {"LSH": _left, "RSH": _right, "ARSH": _right_signed}[operation](bits, dst, count, reach)
    return None


def known_by_then(operation: str, bits: int, src: Scalar, reach: Reach) -> bool:
    """Before 6.10 only sums, differences and AND were followed where the second operand is not one number."""
    return reach.unknown_products or operation in ("ADD", "SUB", "AND") or not src[1] & (M64 if bits == 64 else M32)


# Operations on two numbers, for which the long way gives one number, too; shifts and divisions have exceptions.
_ON_NUMBERS: dict[str, Callable[[int, int], int]] = {
    "ADD": operator.add, "SUB": operator.sub, "MUL": operator.mul, "AND": operator.and_, "OR": operator.or_,
    "XOR": operator.xor,
}  # fmt: skip


def apply(operation: str, bits: int, dst: Scalar, src: Scalar) -> Scalar | None:
    """The result of `dst operation src`; NEG takes `dst` alone. None: nothing is known of it."""
    if not dst[1] and not src[1] and scalar.is_exact(dst) and scalar.is_exact(src):
        on_numbers = _ON_NUMBERS.get(operation)
        if on_numbers is not None:
            return scalar.exact(on_numbers(dst[0], src[0]) & (M64 if bits == 64 else M32))
    return settled(operation, bits, dst, src)


@lru_cache(maxsize=1 << 16)
def settled(operation: str, bits: int, dst: Scalar, src: Scalar) -> Scalar | None:
    """`apply` by way of bits and ranges."""
    result = unsettled(operation, bits, dst, src, NEWEST)
    if result is None:
        return None
    return scalar.sync(scalar.zero_extend(result) if bits == 32 else result)


def add_constant(s: Scalar, delta: int, half: bool, settled: bool = True) -> Scalar:
    """`s + delta`, the upper half cleared if `half`: how the range of one register moves to another linked with it.

    Before 6.18 the result was not `settled`, and only 64-bit sums were linked.
    """
    if not settled:
        return _add_all(s, scalar.exact(delta), BEFORE_WRAPS)
    result = _add_all(s, scalar.exact(delta))
    return scalar.sync(scalar.zero_extend(result) if half else result)
