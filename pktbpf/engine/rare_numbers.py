"""bpf_strtol and bpf_strtoul (kernel/bpf/helpers.c, lib/kstrtox.c): at most 63 characters behind spaces and sign."""

from __future__ import annotations

import numpy as np

from pktbpf.abi.helpers import BY_NAME
from pktbpf.engine.arith import M8, M32, U0
from pktbpf.engine.common_helpers import F_MEMORY, R1, R2, R3, R4
from pktbpf.engine.memory import argument, reach
from pktbpf.hot import Scalar, hot, peek8, poke64
from pktbpf.maps.layout import READ, WRITE

STRTOL, STRTOUL = BY_NAME["strtol"].id, BY_NAME["strtoul"].id
EINVAL, ERANGE = np.uint64((1 << 64) - 22), np.uint64((1 << 64) - 34)
_U1, _U8, _U9, _U10, _U16 = (np.uint64(n) for n in (1, 8, 9, 10, 16))
_LONGEST = np.uint64(63)
_FLAGS = np.uint64(0x1F)  # BPF_STRTOX_BASE_MASK
_MOST = np.uint64((1 << 64) - 1)
_SIGN = np.uint64(1 << 63)
_SPACE, _TAB, _RETURN, _MINUS, _ZERO, _NINE = (np.uint64(ord(c)) for c in " \t\r-09")
_LOWER, _A, _X, _NO_BREAK = np.uint64(0x20), np.uint64(ord("a")), np.uint64(ord("x")), np.uint64(0xA0)


@hot
def digit(character: Scalar) -> Scalar:
    """Value of a digit or letter, 255 for anything else."""
    if character >= _ZERO and character <= _NINE:
        return character - _ZERO
    lower = character | _LOWER
    if lower >= _A and lower <= np.uint64(ord("z")):
        return lower - _A + _U10
    return np.uint64(255)


@hot
def _prefix(text: Scalar, at: Scalar, end: Scalar, base: Scalar) -> Scalar:
    """(base, first digit): 0x and 0 decide the base when it is 0, and 0x may stand before base 16."""
    if at < end and peek8(text + at) == _ZERO:
        hexadecimal = at + np.uint64(2) < end and peek8(text + at + _U1) | _LOWER == _X
        hexadecimal = hexadecimal and digit(peek8(text + at + np.uint64(2))) < _U16
        if base == U0:
            base = _U16 if hexadecimal else _U8
        if base == _U16 and at + _U1 < end and peek8(text + at + _U1) | _LOWER == _X:
            return base, at + np.uint64(2)
        return base, at
    return (_U10 if base == U0 else base), at


@hot
def parse(text: Scalar, size: Scalar, base: Scalar) -> Scalar:
    """(characters used or -errno, magnitude, negative) of a number at a machine address (__bpf_strtoull)."""
    if size == U0 or (base != U0 and base != _U8 and base != _U10 and base != _U16):
        return EINVAL, U0, False
    at = U0
    while at < size and _is_space(peek8(text + at)):
        at += _U1
    negative = at < size and peek8(text + at) == _MINUS
    if negative:
        at += _U1
    if at >= size:
        return EINVAL, U0, False
    if size - at > _LONGEST:
        size = at + _LONGEST
    base, at = _prefix(text, at, size, base)
    value, start, overflow = U0, at, False
    while at < size:
        number = digit(peek8(text + at))
        if number >= base:
            break
        if value > (_MOST - number) // base:
            overflow = True
        value = value * base + number
        at += _U1
    if at == start:
        return EINVAL, U0, False
    return (ERANGE if overflow else at), value, negative


@hot
def _is_space(character: Scalar) -> Scalar:
    return character == _SPACE or (character >= _TAB and character <= _RETURN) or character & M8 == _NO_BREAK


@hot
def strtox(number: Scalar, block: Scalar) -> Scalar:
    """bpf_strtol and bpf_strtoul(buf, buf_len, flags, res): (r0, fault)."""
    size, flags = argument(block, R2) & M32, argument(block, R3)
    text, result = reach(argument(block, R1), size, READ, block), reach(argument(block, R4), _U8, WRITE, block)
    if text == U0 or result == U0:
        return U0, F_MEMORY
    if flags & ~_FLAGS:
        poke64(result, U0)
        return EINVAL, 0
    used, value, negative = parse(text, size, flags & _FLAGS)
    if np.int64(used) < 0:
        poke64(result, U0)
        return used, 0
    if number == STRTOUL:
        poke64(result, U0 if negative else value)
        return (EINVAL if negative else used), 0
    if value > _SIGN or (value == _SIGN and not negative):
        poke64(result, U0)
        return ERANGE, 0
    poke64(result, U0 - value if negative else value)
    return used, 0
