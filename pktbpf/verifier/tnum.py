"""Tristate numbers: what is known of each bit of a 64-bit value, as a pair (value, mask).

A set bit in mask is unknown; value holds the known ones and is zero where mask is set. Every function takes and gives
such pairs and contains, for any members of its arguments, the result of the concrete operation modulo 2**64. The
abstraction and its arithmetic are those of the kernel's verifier (tnum), so that ranges derived from it agree.
"""

from __future__ import annotations

Tnum = tuple[int, int]

M64 = 0xFFFF_FFFF_FFFF_FFFF
M32 = 0xFFFF_FFFF
UNKNOWN: Tnum = (0, M64)


def exact(value: int) -> Tnum:
    """The tnum of one value."""
    return value & M64, 0


def between(low: int, high: int) -> Tnum:
    """The smallest tnum with every value from `low` to `high` (unsigned, or both taken modulo 2**64)."""
    low &= M64
    bits = (low ^ (high & M64)).bit_length()
    if bits > 63:
        return UNKNOWN
    tail = (1 << bits) - 1
    return low & ~tail, tail


def shift_left(a: Tnum, count: int) -> Tnum:
    """a << count, count below 64."""
    return (a[0] << count) & M64, (a[1] << count) & M64


def shift_right(a: Tnum, count: int) -> Tnum:
    """a >> count with zeros entering."""
    return a[0] >> count, a[1] >> count


def shift_right_signed(a: Tnum, count: int, bits: int) -> Tnum:
    """a >> count with copies of bit `bits - 1` entering; the result is cut to `bits`."""
    top, full = 1 << (bits - 1), (1 << bits) - 1
    value, mask = a[0] & full, a[1] & full
    if value & top:
        value -= 1 << bits
    if mask & top:
        mask -= 1 << bits
    return (value >> count) & full, (mask >> count) & full


def add(a: Tnum, b: Tnum) -> Tnum:
    """a + b: a bit is unknown where it is in an operand or where an unknown carry may reach it."""
    base = a[0] + b[0]
    unknown = ((a[1] + b[1] + base) ^ base) | a[1] | b[1]
    return base & ~unknown & M64, unknown & M64


def sub(a: Tnum, b: Tnum) -> Tnum:
    """a - b: the same with borrows."""
    base = a[0] - b[0]
    unknown = ((base + a[1]) ^ (base - b[1])) | a[1] | b[1]
    return base & ~unknown & M64, unknown & M64


def negate(a: Tnum) -> Tnum:
    """-a."""
    return sub((0, 0), a)


def bit_and(a: Tnum, b: Tnum) -> Tnum:
    """a & b: known zero wherever one operand has a known zero."""
    value = a[0] & b[0]
    return value, (a[0] | a[1]) & (b[0] | b[1]) & ~value


def bit_or(a: Tnum, b: Tnum) -> Tnum:
    """a | b."""
    value = a[0] | b[0]
    return value, (a[1] | b[1]) & ~value


def bit_xor(a: Tnum, b: Tnum) -> Tnum:
    """a ^ b."""
    unknown = a[1] | b[1]
    return (a[0] ^ b[0]) & ~unknown, unknown


def union(a: Tnum, b: Tnum) -> Tnum:
    """The smallest tnum with every member of both."""
    unknown = (a[0] ^ b[0]) | a[1] | b[1]
    return a[0] & b[0] & ~unknown, unknown


def multiply(a: Tnum, b: Tnum) -> Tnum:
    """a * b by long multiplication: an unknown multiplier bit joins the sums with and without its partial product."""
    total: Tnum = (0, 0)
    while a[0] or a[1]:
        if a[0] & 1:
            total = add(total, b)
        elif a[1] & 1:
            total = union(total, add(total, b))
        a = (a[0] >> 1, a[1] >> 1)
        b = ((b[0] << 1) & M64, (b[1] << 1) & M64)
    return total


def multiply_summed(a: Tnum, b: Tnum) -> Tnum:
    """a * b as kernels before 6.18 had it: the product of the known bits plus everything that unknown bits may add."""
    product: Tnum = (a[0] * b[0] & M64, 0)
    doubt: Tnum = (0, 0)
    while a[0] or a[1]:
        if a[0] & 1:
            doubt = add(doubt, (0, b[1]))
        elif a[1] & 1:
            doubt = add(doubt, (0, b[0] | b[1]))
        a = (a[0] >> 1, a[1] >> 1)
        b = ((b[0] << 1) & M64, (b[1] << 1) & M64)
    return add(product, doubt)


def intersect(a: Tnum, b: Tnum) -> Tnum:
    """What both say; where they contradict each other a known one wins, as in the kernel."""
    unknown = a[1] & b[1]
    return (a[0] | b[0]) & ~unknown, unknown


def overlap(a: Tnum, b: Tnum) -> bool:
    """Whether some value is a member of both."""
    known = ~a[1] & ~b[1]
    return (a[0] & known) == (b[0] & known)


def contains(outer: Tnum, inner: Tnum) -> bool:
    """Whether every member of `inner` is one of `outer`."""
    return not inner[1] & ~outer[1] and outer[0] == inner[0] & ~outer[1]


def following(a: Tnum, value: int) -> int:
    """The smallest member above `value`, or the largest of all where there is none."""
    known, unknown = a
    if value < known:
        return known
    if value >= known | unknown:
        return known | unknown
    value += 1
    wrong = (value ^ known) & ~unknown & M64
    if not wrong:
        return value
    top = 1 << wrong.bit_length() - 1
    if known & top:
        return (value & ~(top * 2 - 1)) | (known & (top * 2 - 1))
    free = unknown & ~value & ~(top * 2 - 1)
    carry = free & -free
    return (value & ~(carry * 2 - 1)) | carry | (known & (carry - 1))


def low32(a: Tnum) -> Tnum:
    """The low 32 bits, upper ones zero."""
    return a[0] & M32, a[1] & M32


def with_low32(a: Tnum, low: Tnum) -> Tnum:
    """`a` with its low 32 bits replaced by those of `low`."""
    return (a[0] & ~M32) | (low[0] & M32), (a[1] & ~M32) | (low[1] & M32)


def text(a: Tnum) -> str:
    """As the kernel prints it: (0x0; 0xff), or the number alone when every bit is known."""
    if not a[1]:
        return str(a[0]) if a[0] <= 0xFFFF else hex(a[0])
    return f"({hex(a[0])}; {hex(a[1])})"
