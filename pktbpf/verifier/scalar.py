"""What is known of a 64-bit value: a tristate number and four ranges, as one tuple of ten integers.

Order: tnum value, tnum mask, signed 64 low and high, unsigned 64 low and high, signed 32 low and high, unsigned 32 low
and high. Signed bounds are negative Python integers where negative. Tuples are compared, hashed and shared freely, and
every function is pure. The domain and its precision are those of the kernel's verifier (reg_bounds_sync), because a
verdict may hang on a bound that is not found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pktbpf.verifier import tnum
from pktbpf.verifier.tnum import M32, M64

Scalar = tuple[int, int, int, int, int, int, int, int, int, int]

S64_MIN, S64_MAX = -(1 << 63), (1 << 63) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1
_T63, _T64 = 1 << 63, 1 << 64
_T31, _T32 = 1 << 31, 1 << 32


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a kernel's deductions go; what it does not find out yet is False.

    single_value: bits and range that have one number in common. crosses_sign: a signed range through zero meets one
    end of the unsigned one (and a third round is made). extended_halves: a sign-extended half that is not negative.
    wrapping_sums: sums of which both ends wrap. signed_products, unknown_products, joined_products: multiplication of
    negative ranges, by an unknown number, of single bits by joining.
    negation: of ranges. apart_bits: unequal by single bits.
    upper_shift: a shift by 32 keeps negative bounds. ranges: those of both widths and of both operands teach each other
    (False: see before_ranges.py). halves_from_wide: bits of the lower half from the 64-bit range.
    """

    single_value: bool = True
    crosses_sign: bool = True
    extended_halves: bool = True
    wrapping_sums: bool = True
    signed_products: bool = True
    unknown_products: bool = True
    joined_products: bool = True
    negation: bool = True
    apart_bits: bool = True
    upper_shift: bool = True
    ranges: bool = True
    halves_from_wide: bool = True


NEWEST = Reach()

UNKNOWN: Scalar = (0, M64, S64_MIN, S64_MAX, 0, M64, S32_MIN, S32_MAX, 0, M32)

_constants: dict[int, Scalar] = {}


def signed64(value: int) -> int:
    """The two's complement reading of the low 64 bits."""
    value &= M64
    return value - _T64 if value >= _T63 else value


def signed32(value: int) -> int:
    """The two's complement reading of the low 32 bits."""
    value &= M32
    return value - _T32 if value >= _T31 else value


def exact(value: int) -> Scalar:
    """The scalar of one value, taken modulo 2**64."""
    value &= M64
    known = _constants.get(value)
    if known is None:
        s64, low = signed64(value), value & M32
        s32 = signed32(value)
        known = (value, 0, s64, s64, value, value, s32, s32, low, low)
        if len(_constants) < 65536:
            _constants[value] = known
    return known


def is_exact(s: Scalar) -> bool:
    """Whether bits and all ranges name one value; bits alone can be known while the ranges contradict each other."""
    return not s[1] and s == exact(s[0])


ZERO = exact(0)


def unbounded(value: int, mask: int) -> Scalar:
    """A tnum with no ranges beside it."""
    return (value, mask, S64_MIN, S64_MAX, 0, M64, S32_MIN, S32_MAX, 0, M32)


def from_bits(s: Scalar, reach: Reach = NEWEST) -> Scalar:
    """Ranges tightened by what the bits say (both widths)."""
    value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32 = s
    low, low_mask = value & M32, mask & M32
    bound = signed32(low | (low_mask & _T31))
    if bound > slo32:
        slo32 = bound
    bound = signed32(low | (low_mask & S32_MAX))
    if bound < shi32:
        shi32 = bound
    if low > ulo32:
        ulo32 = low
    if low | low_mask < uhi32:
        uhi32 = low | low_mask
    bound = signed64(value | (mask & _T63))
    if bound > slo:
        slo = bound
    bound = signed64(value | (mask & S64_MAX))
    if bound < shi:
        shi = bound
    if value > ulo:
        ulo = value
    largest = value | mask
    if largest < uhi:
        uhi = largest
    if reach.single_value and mask != M64 and (mask or not ulo == value == uhi):
        # Range and bits may have a single number in common: the lowest, the largest or one in between.
        following = tnum.following((value, mask), ulo)
        if ulo & ~mask == value:
            if following > uhi:
                return exact(ulo)
        elif following == largest:
            return exact(largest)
        elif following <= uhi < tnum.following((value, mask), following):
            return exact(following)
    return (value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32)


def _deduce32(s: Scalar, crosses: bool) -> Scalar:
    """32-bit ranges from the 64-bit ones where the upper halves agree, and from each other."""
    value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32 = s
    ulo_low, uhi_low = ulo & M32, uhi & M32
    ulo_s, uhi_s = signed32(ulo_low), signed32(uhi_low)
    slo_low, shi_low = slo & M32, shi & M32
    slo_s, shi_s = signed32(slo_low), signed32(shi_low)
    if ulo >> 32 == uhi >> 32:
        ulo32, uhi32 = max(ulo32, ulo_low), min(uhi32, uhi_low)
        if ulo_s <= uhi_s:
            slo32, shi32 = max(slo32, ulo_s), min(shi32, uhi_s)
    if slo >> 32 == shi >> 32:
        if slo_low <= shi_low:
            ulo32, uhi32 = max(ulo32, slo_low), min(uhi32, shi_low)
        if slo_s <= shi_s:
            slo32, shi32 = max(slo32, slo_s), min(shi32, shi_s)
    # Two neighbouring upper halves while the lower half runs from negative to non-negative.
    if ((ulo >> 32) + 1) & M32 == uhi >> 32 and ulo_s < 0 <= uhi_s:
        slo32, shi32 = max(slo32, ulo_s), min(shi32, uhi_s)
    if ((slo >> 32) + 1) & M32 == (shi >> 32) & M32 and slo_s < 0 <= shi_s:
        slo32, shi32 = max(slo32, slo_s), min(shi32, shi_s)
    if signed32(ulo32) <= signed32(uhi32):
        slo32, shi32 = max(slo32, signed32(ulo32)), min(shi32, signed32(uhi32))
    if slo32 & M32 <= shi32 & M32:
        ulo32, uhi32 = max(ulo32, slo32 & M32), min(uhi32, shi32 & M32)
    elif crosses and uhi32 < slo32 & M32:
        # The signed range crosses zero; see _deduce64.
        slo32, uhi32 = signed32(ulo32), min(uhi32, shi32 & M32)
    elif crosses and shi32 & M32 < ulo32:
        shi32, ulo32 = signed32(uhi32), max(ulo32, slo32 & M32)
    return (value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32)


def _deduce64(s: Scalar, crosses: bool) -> Scalar:
    """Signed and unsigned 64-bit ranges from each other."""
    value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32 = s
    if signed64(ulo) <= signed64(uhi):
        slo, shi = max(slo, signed64(ulo)), min(shi, signed64(uhi))
    if slo & M64 <= shi & M64:
        ulo, uhi = max(ulo, slo & M64), min(uhi, shi & M64)
    elif crosses and uhi < slo & M64:
        # The signed range crosses zero and the unsigned one meets only its non-negative part, ...
        slo = signed64(ulo)
        uhi = min(uhi, shi & M64)
    elif crosses and shi & M64 < ulo:
        # ... or only its negative part.
        shi = signed64(uhi)
        ulo = max(ulo, slo & M64)
    return (value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32)


def _deduce_mixed(s: Scalar, extended: bool) -> Scalar:
    """64-bit ranges with their lower halves replaced by the 32-bit bounds, where that is tighter."""
    value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32 = s
    ulo = max(ulo, (ulo & ~M32) | ulo32)
    uhi = min(uhi, (uhi & ~M32) | uhi32)
    slo = max(slo, (slo & ~M32) | ulo32)
    shi = min(shi, (shi & ~M32) | uhi32)
    if extended and slo32 >= 0 and slo >= S32_MIN and shi <= S32_MAX:
        # A sign-extended 32-bit value whose lower half is not negative has a zero upper half.
        slo, shi = slo32, shi32
        ulo, uhi = slo32 & M64, shi32 & M64
        value, mask = tnum.intersect((value, mask), tnum.between(slo, shi))
    return (value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32)


@lru_cache(maxsize=1 << 16)
def sync(s: Scalar, reach: Reach = NEWEST) -> Scalar:
    """Everything that bits and ranges teach each other, to the kernel's depth: three rounds, then the bits again."""
    crosses, extended = reach.crosses_sign, reach.extended_halves
    s = from_bits(s, reach)
    for _ in range(3 if crosses else 2):
        before = s
        s = _deduce_mixed(_deduce64(_deduce32(s, crosses), crosses), extended)
        if s == before:
            break
    value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32 = s
    wide = tnum.intersect((value, mask), tnum.between(ulo, uhi))
    low = tnum.intersect(tnum.low32(wide), tnum.between(ulo32, uhi32))
    value, mask = tnum.bit_or((wide[0] & ~M32, wide[1] & ~M32), low)
    return from_bits((value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32), reach)


def consistent(s: Scalar) -> bool:
    """Whether ranges are not empty and agree with bits that are fully known (the kernel's invariants)."""
    if s is UNKNOWN or is_exact(s):
        return True
    value, mask, slo, shi, ulo, uhi, slo32, shi32, ulo32, uhi32 = s
    if slo > shi or ulo > uhi or slo32 > shi32 or ulo32 > uhi32:
        return False
    if not mask and not (ulo == uhi == value and slo == shi == signed64(value)):
        return False
    low = value & M32
    return bool(mask & M32) or (ulo32 == uhi32 == low and slo32 == shi32 == signed32(low))


def checked(s: Scalar) -> Scalar:
    """`s`, or its bits alone where the ranges contradict each other (an impossible branch)."""
    return s if consistent(s) else unbounded(s[0], s[1])


def zero_extend(s: Scalar) -> Scalar:
    """The lower half alone, upper half zero; not yet synchronised."""
    value, mask, _, _, _, _, slo32, shi32, ulo32, uhi32 = s
    slo, shi = (slo32, shi32) if slo32 >= 0 and shi32 >= 0 else (0, M32)
    return (value & M32, mask & M32, slo, shi, ulo32, uhi32, slo32, shi32, ulo32, uhi32)


def cut(s: Scalar, size: int) -> Scalar:
    """What a load of `size` (1, 2, 4) bytes leaves: cut and zero-extended; not yet synchronised."""
    bits = (1 << size * 8) - 1
    value, mask, _, _, ulo, uhi, slo32, shi32, ulo32, uhi32 = s
    value &= bits
    mask &= bits
    if ulo & ~bits == uhi & ~bits:
        ulo &= bits
        uhi &= bits
    else:
        ulo, uhi = 0, bits
    if size < 4:
        slo32, shi32, ulo32, uhi32 = S32_MIN, S32_MAX, 0, M32
    return (value, mask, signed64(ulo), signed64(uhi), ulo, uhi, slo32, shi32, ulo32, uhi32)


@lru_cache(maxsize=1 << 14)
def truncate(s: Scalar, size: int) -> Scalar:
    """The same, synchronised."""
    return sync(cut(s, size))


def sign_extend(s: Scalar, size: int) -> Scalar:
    """The low `size` (1, 2, 4) bytes sign-extended to 64 bits."""
    bits = size * 8
    half, full = 1 << (bits - 1), 1 << bits

    def extended(number: int) -> int:
        number &= full - 1
        return number - full if number & half else number

    if not s[1]:
        return exact(extended(s[0]))
    slo, shi = s[2], s[3]
    if (slo & M64) >> bits == (shi & M64) >> bits:
        first, second = extended(shi), extended(slo)
        high, low = max(first, second), min(first, second)
        if (high >= 0) == (low >= 0):
            value, mask = tnum.between(low, high)
            return (value, mask, low, high, low & M64, high & M64, signed32(low), signed32(high), low & M32, high & M32)
    return (0, M64, -half, half - 1, 0, M64, -half, half - 1, 0, M32)


def sign_extend32(s: Scalar, size: int) -> Scalar:
    """The low `size` (1, 2) bytes sign-extended to 32 bits; the upper half is left to `zero_extend`."""
    bits = size * 8
    half, full = 1 << (bits - 1), 1 << bits

    def extended(number: int) -> int:
        number &= full - 1
        return number - full if number & half else number

    value, mask, slo, shi, ulo, uhi, slo32, shi32, _, _ = s
    if not mask:
        result = extended(value)
        low = result & M32
        return (result & M64, 0, slo, shi, ulo, uhi, signed32(low), signed32(low), low, low)
    if (slo32 & M32) >> bits == (shi32 & M32) >> bits:
        first, second = extended(shi32), extended(slo32)
        high, below = max(first, second), min(first, second)
        if (high >= 0) == (below >= 0):
            value, mask = tnum.low32(tnum.between(below, high))
            return (value, mask, slo, shi, ulo, uhi, below, high, below & M32, high & M32)
    return (0, M32, slo, shi, ulo, uhi, -half, half - 1, 0, M32)


def within(outer: Scalar, inner: Scalar) -> bool:
    """Whether every value that `inner` allows is allowed by `outer`, ranges and bits."""
    return outer == inner or (
        outer[4] <= inner[4]
        and outer[5] >= inner[5]
        and outer[2] <= inner[2]
        and outer[3] >= inner[3]
        and outer[8] <= inner[8]
        and outer[9] >= inner[9]
        and outer[6] <= inner[6]
        and outer[7] >= inner[7]
        and not inner[1] & ~outer[1]
        and outer[0] == inner[0] & ~outer[1]
    )


def holds(s: Scalar, value: int) -> bool:
    """Whether the concrete 64-bit `value` is allowed by every part; for tests of soundness."""
    value &= M64
    low = value & M32
    return (
        (value & ~s[1] & M64) == s[0]
        and s[2] <= signed64(value) <= s[3]
        and s[4] <= value <= s[5]
        and s[6] <= signed32(low) <= s[7]
        and s[8] <= low <= s[9]
    )
