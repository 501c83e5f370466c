"""Arithmetic of the machine that plain operators do not give: division as the kernel defines it, signed shifts, byte
swaps. All values are uint64; 32-bit forms take and give the low half, zero-extended (RFC 9669, section 4.1).
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, hot

U0, U1, U8, U16, U24, U31, U32, U63 = (np.uint64(n) for n in (0, 1, 8, 16, 24, 31, 32, 63))
M8, M16, M32 = np.uint64(0xFF), np.uint64(0xFFFF), np.uint64(0xFFFFFFFF)
ODD8, ODD16 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)


@hot
def sext8(value: Scalar) -> Scalar:
    """Low 8 bits, sign-extended to 64."""
    return np.uint64(np.int64(np.int8(value & M8)))


@hot
def sext16(value: Scalar) -> Scalar:
    """Low 16 bits, sign-extended to 64."""
    return np.uint64(np.int64(np.int16(value & M16)))


@hot
def sext32(value: Scalar) -> Scalar:
    """Low 32 bits, sign-extended to 64."""
    return np.uint64(np.int64(np.int32(value & M32)))


@hot
def magnitude(value: Scalar) -> Scalar:
    """Absolute value of a signed 64-bit number, as unsigned; of the smallest one it is itself."""
    return U0 - value if np.int64(value) < 0 else value


@hot
def sdiv(a: Scalar, b: Scalar) -> Scalar:
    """Signed division towards zero; by zero 0, smallest by -1 is smallest."""
    if b == U0:
        return U0
    quotient = magnitude(a) // magnitude(b)
    return U0 - quotient if np.int64(a ^ b) < 0 else quotient


@hot
def smod(a: Scalar, b: Scalar) -> Scalar:
    """Signed remainder with the sign of the dividend; by zero the dividend."""
    if b == U0:
        return a
    rest = magnitude(a) % magnitude(b)
    return U0 - rest if np.int64(a) < 0 else rest


@hot
def arsh(a: Scalar, count: Scalar) -> Scalar:
    """Arithmetic shift right of a signed 64-bit number."""
    return np.uint64(np.int64(a) >> np.int64(count))


@hot
def swap16(value: Scalar) -> Scalar:
    """Swap the low two bytes, clear the rest."""
    return (value & M8) << U8 | (value >> U8) & M8


@hot
def swap32(value: Scalar) -> Scalar:
    """Reverse the low four bytes, clear the rest."""
    return swap16(value) << U16 | swap16(value >> U16)


@hot
def swap64(value: Scalar) -> Scalar:
    """Reverse all eight bytes."""
    return swap32(value) << U32 | swap32(value >> U32)
