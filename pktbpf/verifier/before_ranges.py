"""Ranges as kernels before 6.8 learnt them: each width for itself, compares against one known number only.

`sync`, `unsettled`, `decide` and `learn` take and give the tuples of scalar.py, and stand in domain.py for the newer
forms of scalar.py, arithmetic.py and compare.py. Nothing is checked for contradictions: an impossible branch keeps its
empty ranges. Mirrors reg_bounds_sync, is_branch32_taken, is_branch64_taken and reg_set_min_max of 5.10 and 6.1, which
are alike.
"""

from __future__ import annotations

from pktbpf.verifier import arithmetic, compare, scalar, tnum
from pktbpf.verifier.scalar import S32_MAX, S32_MIN, S64_MAX, S64_MIN, Reach, Scalar, signed32, signed64
from pktbpf.verifier.tnum import M32, M64


def _bounds(full: int, low: int, high: int, ulow: int, uhigh: int) -> tuple[int, int, int, int]:
    """Signed and unsigned range of one width, each from the other where the sign is known."""
    read = signed64 if full == M64 else signed32
    if low >= 0 or high < 0:
        ulow, uhigh = max(low & full, ulow), min(high & full, uhigh)
        return read(ulow), read(uhigh), ulow, uhigh
    if read(uhigh) >= 0:
        uhigh = min(high & full, uhigh)
        return read(ulow), read(uhigh), ulow, uhigh
    if read(ulow) < 0:
        ulow = max(low & full, ulow)
        return read(ulow), read(uhigh), ulow, uhigh
    return low, high, ulow, uhigh


def sync(s: Scalar, reach: Reach) -> Scalar:
    """What bits and ranges teach each other in one round."""
    value, mask, *bounds = scalar.from_bits(s, reach)
    wide, half = _bounds(M64, *bounds[:4]), _bounds(M32, *bounds[4:])
    upper = tnum.intersect((value, mask), tnum.between(wide[2], wide[3]))
    known = upper if reach.halves_from_wide else (value, mask)
    lower = tnum.intersect(tnum.low32(known), tnum.between(half[2], half[3]))
    value, mask = tnum.with_low32(upper, lower)
    return scalar.from_bits((value, mask, *wide, *half), reach)


def _wide_from_half(s: Scalar, reach: Reach) -> Scalar:
    """After a 32-bit compare: 64-bit bounds from the half where the upper one is zero, else none."""
    if (s[0] | s[1]) >> 32:
        return sync((s[0], s[1], S64_MIN, S64_MAX, 0, M64, *s[6:]), reach)
    low, high = (s[6], s[7]) if s[6] >= 0 and s[7] >= 0 else (0, M32)
    return sync((s[0], s[1], low, high, s[8], s[9], *s[6:]), reach)


def _half_from_wide(s: Scalar, reach: Reach) -> Scalar:
    """After a 64-bit compare or a narrow load: 32-bit bounds from the 64-bit ones where they fit."""
    low, high, ulow, uhigh = S32_MIN, S32_MAX, 0, M32
    if S32_MIN <= s[2] <= S32_MAX and S32_MIN <= s[3] <= S32_MAX:
        low, high = s[2], s[3]
    if s[5] <= M32:
        ulow, uhigh = s[4], s[5]
    return sync((*s[:6], low, high, ulow, uhigh), reach)


def truncate(s: Scalar, size: int, reach: Reach) -> Scalar:
    """What a load of `size` (1, 2, 4) bytes leaves."""
    cut = scalar.cut(s, size)
    return cut if size == 4 else _half_from_wide(cut, reach)


def unsettled(operation: str, bits: int, dst: Scalar, src: Scalar, reach: Reach) -> Scalar | None:
    """An operation on two scalars; nothing is known where the second operand contradicts itself."""
    low, mask = (2, M64) if bits == 64 else (6, M32)
    slo, shi, ulo, uhi = src[low : low + 4]
    known = not src[1] & mask
    if (known and (slo != shi or ulo != uhi)) or slo > shi or ulo > uhi:
        return None
    return arithmetic.unsettled(operation, bits, dst, src, reach)


def decide(operation: str, bits: int, a: Scalar, b: Scalar) -> bool | None:
    """Whether a compare is decided: only against one known number on the right."""
    full = M64 if bits == 64 else M32
    if b[1] & full:
        return None
    if operation in ("EQ", "NE"):
        return None if a[1] & full else (a[0] & full == b[0] & full) == (operation == "EQ")
    number = scalar.exact(b[0] if bits == 64 else signed32(b[0]))
    return compare.decide(operation, bits, a, number)


def _known(a: Scalar, number: int, bits: int) -> Scalar:
    """`a`, now known to equal `number`; a 32-bit compare leaves the 64-bit bounds for later."""
    if bits == 64:
        return scalar.exact(number)
    low = number & M32
    value, mask = tnum.with_low32(a[:2], (low, 0))
    return (value, mask, *a[2:6], signed32(low), signed32(low), low, low)


def _narrowed(a: Scalar, number: int, operation: str, bits: int) -> Scalar:
    """`a` after `a operation number` (LE, LT, GE, GT and signed forms) held, the limit computed in its own width."""
    signed = operation[0] == "S"
    full, read = (M64, signed64) if bits == 64 else (M32, signed32)
    low = {(64, False): 4, (64, True): 2, (32, False): 8, (32, True): 6}[bits, signed]
    strict = {"LT": -1, "GT": 1}.get(operation[-2:], 0)
    limit = (number + strict) & full
    bounds = list(a)
    if signed:
        limit = read(limit)
    if operation[-2:] in ("LE", "LT"):
        bounds[low + 1] = min(bounds[low + 1], limit)
    else:
        bounds[low] = max(bounds[low], limit)
    return tuple(bounds)  # type: ignore[return-value]


def _held(a: Scalar, number: int, operation: str, bits: int) -> Scalar:
    """`a` where `a operation number` holds; not yet synchronised."""
    full = M64 if bits == 64 else M32
    if operation == "EQ":
        return _known(a, number, bits)
    if operation == "NE":
        return a
    if operation == "SET":
        wanted = number & full
        return a if not wanted or wanted & (wanted - 1) else (a[0] | wanted, a[1] & ~wanted, *a[2:])
    if operation == "CLEAR":
        return scalar.unbounded(a[0] & ~(number & full), a[1] & ~(number & full))
    return _narrowed(a, number, operation, bits)


def _against(a: Scalar, number: int, operation: str, bits: int, reach: Reach) -> tuple[Scalar, Scalar]:
    settle = _half_from_wide if bits == 64 else _wide_from_half
    taken = settle(_held(a, number, operation, bits), reach)
    return taken, settle(_held(a, number, compare.REVERSED[operation], bits), reach)


def learn(operation: str, bits: int, a: Scalar, b: Scalar, reach: Reach) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """Both operands where the branch is taken, then both where it is not."""
    full = M64 if bits == 64 else M32
    if not b[1] & full:
        taken, other = _against(a, b[0], operation, bits, reach)
        return taken, b, other, b
    if not a[1] & full:
        taken, other = _against(b, a[0], compare.FLIPPED[operation], bits, reach)
        return a, taken, a, other
    if bits == 64 and operation in ("EQ", "NE"):
        value, mask = tnum.intersect(a[:2], b[:2])
        joined = (max(a[2], b[2]), min(a[3], b[3]), max(a[4], b[4]), min(a[5], b[5]))
        same = sync((value, mask, *joined, *a[6:]), reach), sync((value, mask, *joined, *b[6:]), reach)
        return (*same, a, b) if operation == "EQ" else (a, b, *same)
    return a, b, a, b


def learn_same(operation: str, bits: int, a: Scalar, reach: Reach) -> tuple[Scalar, Scalar]:
    """A value compared with itself: a known number was decided before, of others nothing is learnt."""
    taken, _, other, _ = learn(operation, bits, a, a, reach)
    return taken, other
