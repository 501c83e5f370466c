"""The kernel's jhash: Bob Jenkins' lookup3 over bytes, which decides buckets of hash tables and bits of Bloom filters.

With BPF_F_ZERO_SEED the kernel hashes with seed 0, and so do we always: tables have its order of walking, its batch
boundaries and its false positives. Values are uint64 with the upper half zero.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, hot, peek8, peek32

_U0, _U1, _U4, _U8, _U12, _U32 = (np.uint64(n) for n in (0, 1, 4, 8, 12, 32))
_M32 = np.uint64(0xFFFFFFFF)
_START = np.uint64(0xDEADBEEF)
_R4, _R6, _R8, _R11, _R14, _R16, _R19, _R24, _R25 = (np.uint64(n) for n in (4, 6, 8, 11, 14, 16, 19, 24, 25))


@hot
def _rol(value: Scalar, bits: Scalar) -> Scalar:
    return ((value << bits) | (value >> (_U32 - bits))) & _M32


@hot
def _mix(a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    a = ((a - c) & _M32) ^ _rol(c, _R4)
    c = (c + b) & _M32
    b = ((b - a) & _M32) ^ _rol(a, _R6)
    a = (a + c) & _M32
    c = ((c - b) & _M32) ^ _rol(b, _R8)
    b = (b + a) & _M32
    a = ((a - c) & _M32) ^ _rol(c, _R16)
    c = (c + b) & _M32
    b = ((b - a) & _M32) ^ _rol(a, _R19)
    a = (a + c) & _M32
    c = ((c - b) & _M32) ^ _rol(b, _R4)
    b = (b + a) & _M32
    return a, b, c


@hot
def _last(a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    c = ((c ^ b) - _rol(b, _R14)) & _M32
    a = ((a ^ c) - _rol(c, _R11)) & _M32
    b = ((b ^ a) - _rol(a, _R25)) & _M32
    c = ((c ^ b) - _rol(b, _R16)) & _M32
    a = ((a ^ c) - _rol(c, _R4)) & _M32
    b = ((b ^ a) - _rol(a, _R14)) & _M32
    return ((c ^ b) - _rol(b, _R24)) & _M32


@hot
def _word(place: Scalar, size: Scalar) -> Scalar:
    """Up to four bytes at a machine address as a little-endian number."""
    if size >= _U4:
        return peek32(place)
    value, done = _U0, _U0
    while done < size:
        value |= peek8(place + done) << (done * _U8)
        done += _U1
    return value


@hot
def jhash(key: Scalar, size: Scalar, seed: Scalar) -> Scalar:
    """32-bit hash of `size` bytes at a machine address."""
    a = (_START + size + seed) & _M32
    b, c = a, a
    while size > _U12:
        a, b, c = _mix((a + peek32(key)) & _M32, (b + peek32(key + _U4)) & _M32, (c + peek32(key + _U8)) & _M32)
        key += _U12
        size -= _U12
    if size == _U0:
        return c
    a = (a + _word(key, size)) & _M32
    if size > _U4:
        b = (b + _word(key + _U4, size - _U4)) & _M32
    if size > _U8:
        c = (c + _word(key + _U8, size - _U8)) & _M32
    return _last(a, b, c)
