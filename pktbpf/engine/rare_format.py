"""Formatted text in the compiled core: what bpf_snprintf and bpf_trace_printk make of a format and 64-bit arguments.

Two passes, as in the kernel, because its results show it: `gather` checks the format and packs the arguments into 512
bytes (bpf_bprintf_prepare), `render` reads the format again and the packed arguments with it (bstr_printf). All
addresses are machine addresses; a format ends with a NUL byte. Hashed pointers (%p) keep the kernel's form only.
"""

from __future__ import annotations

import numpy as np

from pktbpf.engine.arith import M8, M32, U0, sext32
from pktbpf.engine.memory import reach, region_row
from pktbpf.hot import Scalar, hot, peek8, peek32, peek64, poke8, poke32, poke64
from pktbpf.maps.layout import READ, copy

EINVAL, ENOSPC = np.uint64((1 << 64) - 22), np.uint64((1 << 64) - 28)
PACKED = np.uint64(512)  # MAX_BPRINTF_BIN_ARGS

LEFT, PLUS, SPACE, ZERO, SIGN, SMALL = (np.uint64(1 << n) for n in range(6))
_U1, _U2, _U3, _U4, _U8, _U10, _U16, _U32 = (np.uint64(n) for n in (1, 2, 3, 4, 8, 10, 16, 32))
_NO_WIDTH = np.int64(-1)
_WIDEST = np.int64((1 << 23) - 1)  # FIELD_WIDTH_MAX
_POINTER_WIDTH = np.int64(16)
_LAST_POINTERS = np.uint64((1 << 64) - 4095)  # error pointers
_MIX = np.uint64(0x9E3779B97F4A7C15)
(
    C_PERCENT, C_0, C_1, C_9, C_PLUS, C_MINUS, C_SPACE, C_P, C_K, C_U, C_S, C_BIG_K, C_X, C_BIG_S, C_BIG_B, C_I,
    C_BIG_I, C_4, C_6, C_C, C_L, C_D, C_BIG_X, C_DOT, C_COLON, C_A, C_BIG_A, C_E,
) = (np.uint64(ord(c)) for c in "%019+- pkusKxSBiI46cldX.:aAe")  # fmt: skip


# --- the kernel's character classes (lib/ctype.c: Latin-1) ----------------------------------------------------------


@hot
def is_space(c: Scalar) -> Scalar:
    """isspace()."""
    return c == C_SPACE or (c >= np.uint64(9) and c <= np.uint64(13)) or c == np.uint64(0xA0)


@hot
def is_alnum(c: Scalar) -> Scalar:
    """isalnum()."""
    lower = c | _U32
    if c < np.uint64(0x80):
        return (c >= C_0 and c <= C_9) or (lower >= C_A and lower <= np.uint64(ord("z")))
    return c >= np.uint64(0xC0) and c != np.uint64(0xD7) and c != np.uint64(0xF7)


@hot
def ends_word(c: Scalar) -> Scalar:
    """What must follow a plain %p or %s: the end, a space or punctuation."""
    if c == U0 or is_space(c):
        return True
    return c > _U32 and c != np.uint64(0x7F) and not (c >= np.uint64(0x80) and c < np.uint64(0xA0)) and not is_alnum(c)


# --- first pass -----------------------------------------------------------------------------------------------------


@hot
def text_end(pointer: Scalar, limit: Scalar, block: Scalar) -> Scalar:
    """(machine address, bytes before the NUL) of a program's string; address 0 for none, length `limit` without NUL."""
    at = reach(pointer, _U1, READ, block)
    if at == U0:
        return U0, U0
    row = region_row(block, pointer >> _U32)
    left = peek64(row + _U8) - (pointer & M32)
    if left < limit:
        limit = left
    size = U0
    while size < limit and peek8(at + size) != U0:
        size += _U1
    return at, size


@hot
def pack_string(target: Scalar, room: Scalar, pointer: Scalar, block: Scalar) -> Scalar:
    """Copy a string with its NUL, cut to the room; bytes used. An address that cannot be read gives an empty one."""
    at, size = text_end(pointer, room - _U1, block)
    if at == U0:
        size = U0
    copy(target, at, size)
    poke8(target + size, U0)
    return size + _U1


@hot
def pack_address(target: Scalar, family: Scalar, colons: Scalar, pointer: Scalar, block: Scalar) -> Scalar:
    """An IPv4 (C_4) or IPv6 address as text with its NUL; bytes used. colons: %pI6, or %pI4's numbers unpadded."""
    count = _U4 if family == C_4 else _U16
    source = reach(pointer, count, READ, block)
    at, index = target, U0
    while index < count:
        byte = peek8(source + index) if source != U0 else U0
        if family == C_4:
            if index != U0:
                poke8(at, C_DOT)
                at += _U1
            for unit in (np.uint64(100), _U10, _U1):
                if not colons or byte >= unit or unit == _U1:
                    poke8(at, C_0 + byte // unit % _U10)
                    at += _U1
        else:
            if colons and index != U0 and index & _U1 == U0:
                poke8(at, C_COLON)
                at += _U1
            poke8(at, letter(byte >> _U4, SMALL))
            poke8(at + _U1, letter(byte & np.uint64(15), SMALL))
            at += _U2
        index += _U1
    poke8(at, U0)
    return at + _U1 - target


@hot
def skip_width(fmt: Scalar, at: Scalar) -> Scalar:
    """Past the flags and the width of a conversion."""
    c = peek8(fmt + at)
    while c == C_0 or c == C_PLUS or c == C_MINUS or c == C_SPACE:
        at += _U1
        c = peek8(fmt + at)
    if c >= C_1 and c <= C_9:
        while peek8(fmt + at) >= C_0 and peek8(fmt + at) <= C_9:
            at += _U1
    return at


@hot
def gather(fmt: Scalar, size: Scalar, args: Scalar, count: Scalar, packed: Scalar, block: Scalar) -> Scalar:
    """0 or -errno; the arguments packed for render(). size: of the format without its NUL. count: arguments there."""
    at, used, number = U0, U0, U0
    while at < size:
        c = peek8(fmt + at)
        if c == np.uint64(0x7F) or (c < _U32 and not is_space(c)):
            return EINVAL
        if c != C_PERCENT:
            at += _U1
            continue
        if peek8(fmt + at + _U1) == C_PERCENT:
            at += _U2
            continue
        if number >= count:
            return EINVAL
        at = skip_width(fmt, at + _U1)
        kind, width = classify(fmt, at)
        if kind == U0:
            return EINVAL
        used, fits = pack(packed, used, kind, peek64(args + number * _U8), peek8(fmt + at + _U1), block)
        if not fits:
            return ENOSPC
        at += width
        number += _U1
    return U0


# Kinds of argument.
K_WORD, K_LONG, K_STRING, K_CHAR, K_ADDRESS4, K_ADDRESS6, K_SYMBOL, K_USER = (np.uint64(n) for n in range(1, 9))


@hot
def classify(fmt: Scalar, at: Scalar) -> Scalar:
    """(kind, characters) of the conversion at `at`, kind 0 for one that is not allowed."""
    c, following = peek8(fmt + at), peek8(fmt + at + _U1) if peek8(fmt + at) != U0 else U0
    if c == C_P:
        if ends_word(following):
            return K_LONG, _U1
        third = peek8(fmt + at + _U2)
        if (following == C_K or following == C_U) and third == C_S:
            kind = K_STRING if following == C_K else K_USER
            return (kind if ends_word(peek8(fmt + at + _U3)) else U0), _U3
        if following == C_BIG_K or following == C_X or following == C_S or following == C_BIG_S:
            return K_LONG, _U2
        if following == C_BIG_B:
            return K_SYMBOL, _U2
        if (following == C_I or following == C_BIG_I) and (third == C_4 or third == C_6):
            return (K_ADDRESS4 if third == C_4 else K_ADDRESS6), _U3
        return U0, U0
    if c == C_S:
        return (K_STRING if ends_word(following) else U0), _U1
    if c == C_C:
        return K_CHAR, _U1
    width = U0
    while width < _U2 and peek8(fmt + at + width) == C_L:
        width += _U1
    c = peek8(fmt + at + width)
    if c == C_I or c == C_D or c == C_U or c == C_X or c == C_BIG_X:
        return (K_WORD if width == U0 else K_LONG), width + _U1
    return U0, U0


@hot
def pack(packed: Scalar, used: Scalar, kind: Scalar, value: Scalar, letter_i: Scalar, block: Scalar) -> Scalar:
    """(bytes used, whether it fits) after one argument."""
    room = PACKED - used
    if kind == K_WORD or kind == K_LONG:
        used = (used + _U3) & ~_U3
        size = _U4 if kind == K_WORD else _U8
        if used + size > PACKED:
            return used, False
        if kind == K_WORD:
            poke32(packed + used, value & M32)
        else:
            poke64(packed + used, value)
        return used + size, True
    if kind == K_STRING or kind == K_USER:
        if room == U0:
            return used, False
        if kind == K_USER:  # there is no process whose memory this could be
            value = U0
        return used + pack_string(packed + used, room, value, block), True
    if kind == K_CHAR:
        if room == U0:
            return used, False
        poke8(packed + used, value & M8)
        return used + _U1, True
    if kind == K_SYMBOL:
        need = np.uint64(19)
        if room < need:
            return used, False
        return used + pack_symbol(packed + used, value), True
    need = _U16 if kind == K_ADDRESS4 else np.uint64(40)
    if room < need:
        return used, False
    family = C_4 if kind == K_ADDRESS4 else C_6
    return used + pack_address(packed + used, family, letter_i == C_BIG_I, value, block), True


@hot
def pack_symbol(target: Scalar, value: Scalar) -> Scalar:
    """0x and hexadecimal digits with a NUL, what the kernel writes for an address without a symbol; bytes used."""
    poke8(target, C_0)
    poke8(target + _U1, C_X)
    end = number(target, _U2, np.uint64(32), value, SMALL, _NO_WIDTH, _U16)
    poke8(target + end, U0)
    return end + _U1


# --- second pass ----------------------------------------------------------------------------------------------------


@hot
def put(out: Scalar, at: Scalar, size: Scalar, c: Scalar) -> Scalar:
    """One more character: stored where there is room, counted anyway."""
    if at < size:
        poke8(out + at, c)
    return at + _U1


@hot
def fill(out: Scalar, at: Scalar, size: Scalar, c: Scalar, count: Scalar) -> Scalar:
    """`count` (int64, may be negative) times a character; what has no room takes no time."""
    while count > 0 and at < size:
        poke8(out + at, c)
        at += _U1
        count -= 1
    return at + np.uint64(count) if count > 0 else at


@hot
def letter(digit: Scalar, flags: Scalar) -> Scalar:
    """A digit below 16 as a character."""
    if digit < _U10:
        return C_0 + digit
    return digit - _U10 + (C_A if flags & SMALL else C_BIG_A)


@hot
def number(
    out: Scalar, at: Scalar, size: Scalar, value: Scalar, flags: Scalar, width: Scalar, base: Scalar
) -> Scalar:  # fmt: skip
    """A number in its field (number() of lib/vsprintf.c); the new position."""
    sign = U0
    if flags & SIGN:
        if np.int64(value) < 0:
            sign, value = C_MINUS, U0 - value
        elif flags & PLUS:
            sign = C_PLUS
        elif flags & SPACE:
            sign = C_SPACE
    unit, digits = _U1, np.int64(1)
    while value // unit >= base:
        unit *= base
        digits += 1
    pad = width - digits - (1 if sign else 0)
    if not flags & (LEFT | ZERO):
        at = fill(out, at, size, C_SPACE, pad)
    if sign:
        at = put(out, at, size, sign)
    if flags & ZERO and not flags & LEFT:
        at = fill(out, at, size, C_0, pad)
    while unit != U0:
        at = put(out, at, size, letter(value // unit % base, flags))
        unit //= base
    return fill(out, at, size, C_SPACE, pad) if flags & LEFT else at


@hot
def string(out: Scalar, at: Scalar, size: Scalar, source: Scalar, flags: Scalar, width: Scalar) -> Scalar:
    """A packed string in its field; the new position."""
    length = U0
    while peek8(source + length) != U0:
        length += _U1
    pad = width - np.int64(length)
    if not flags & LEFT:
        at = fill(out, at, size, C_SPACE, pad)
    index = U0
    while index < length:
        at = put(out, at, size, peek8(source + index))
        index += _U1
    return fill(out, at, size, C_SPACE, pad) if flags & LEFT else at


@hot
def pointer_field(
    out: Scalar, at: Scalar, size: Scalar, value: Scalar, c: Scalar, flags: Scalar, width: Scalar, key: Scalar
) -> Scalar:  # fmt: skip
    """%p, %pK (hashed), %px (as it is), %ps and %pS (no symbols off a kernel: 0x and digits)."""
    if c == C_S or c == C_BIG_S:
        digits, rest = np.int64(3), value
        while rest >= _U16:
            rest >>= _U4
            digits += 1
        if not flags & LEFT:
            at = fill(out, at, size, C_SPACE, width - digits)
        at = put(out, put(out, at, size, C_0), size, C_X)
        at = number(out, at, size, value, SMALL, _NO_WIDTH, _U16)
        return fill(out, at, size, C_SPACE, width - digits) if flags & LEFT else at
    if c != C_X and value != U0 and value < _LAST_POINTERS:
        value = (((value ^ key) * _MIX) >> _U32) & M32
    if width < 0:
        flags, width = flags | ZERO, _POINTER_WIDTH
    return number(out, at, size, value, flags | SMALL, width, _U16)


@hot
def field(fmt: Scalar, at: Scalar) -> Scalar:
    """(flags, width, position) of the conversion that begins at `at`, behind its percent sign. Width -1 for none."""
    flags, more = U0, True
    while more:
        c = peek8(fmt + at)
        if c == C_MINUS:
            flags |= LEFT
        elif c == C_PLUS:
            flags |= PLUS
        elif c == C_SPACE:
            flags |= SPACE
        elif c == C_0:
            flags |= ZERO
        else:
            more = False
        if more:
            at += _U1
    width = _NO_WIDTH
    while peek8(fmt + at) >= C_0 and peek8(fmt + at) <= C_9:
        width = np.int64(np.int32((max(width, np.int64(0)) * 10 + np.int64(peek8(fmt + at) - C_0)) & 0xFFFFFFFF))
        at += _U1
    return flags, clamp(width), at


@hot
def clamp(width: Scalar) -> Scalar:
    """A width as its bit field keeps it."""
    return min(max(width, _NO_WIDTH), _WIDEST)


@hot
def render(out: Scalar, size: Scalar, fmt: Scalar, packed: Scalar, key: Scalar) -> Scalar:
    """Write at most `size` bytes with a NUL; how many characters there would be without limit."""
    at, place, args = U0, U0, U0
    while peek8(fmt + place) != U0:
        c = peek8(fmt + place)
        if c != C_PERCENT:
            at = put(out, at, size, c)
            place += _U1
            continue
        flags, width, place = field(fmt, place + _U1)
        c = peek8(fmt + place)
        place += _U1
        if c == C_PERCENT:
            at = put(out, at, size, c)
        elif c == C_C:
            at = fill(out, at, size, C_SPACE, width - 1 if not flags & LEFT else np.int64(0))
            at = put(out, at, size, peek8(packed + args))
            at = fill(out, at, size, C_SPACE, width - 1 if flags & LEFT else np.int64(0))
            args += _U1
        elif c == C_S:
            at = string(out, at, size, packed + args, flags, width)
            args += string(out, U0, U0, packed + args, U0, _NO_WIDTH) + _U1
        elif c == C_P:
            at, args = _pointer(out, at, size, fmt, place, packed, args, flags, width, key)
            while is_alnum(peek8(fmt + place)):
                place += _U1
        else:
            at, place, args = _integer(out, at, size, fmt, place - _U1, packed, args, flags, width)
    if size != U0:
        poke8(out + (at if at < size else size - _U1), U0)
    return at


@hot
def _pointer(
    out: Scalar, at: Scalar, size: Scalar, fmt: Scalar, place: Scalar, packed: Scalar, args: Scalar, flags: Scalar,
    width: Scalar, key: Scalar,
) -> Scalar:  # fmt: skip
    """(position, packed bytes read) after %p and what stands behind it. An address that the first pass made text of is
    neither counted nor passed over once the output is full, and knows no width: so does the kernel."""
    c = peek8(fmt + place)
    if c == C_BIG_S or c == C_S or c == C_X or c == C_BIG_K or c == C_E or not is_alnum(c):
        args = (args + _U3) & ~_U3
        return pointer_field(out, at, size, peek64(packed + args), c, flags, width, key), args + _U8
    if at < size:
        end = string(out, at, size, packed + args, U0, _NO_WIDTH)
        args += end - at + _U1
        at = end
    return at, args


@hot
def _integer(
    out: Scalar, at: Scalar, size: Scalar, fmt: Scalar, place: Scalar, packed: Scalar, args: Scalar, flags: Scalar,
    width: Scalar,
) -> Scalar:  # fmt: skip
    """(position, place behind the conversion, packed bytes read) after a number."""
    args = (args + _U3) & ~_U3
    long = peek8(fmt + place) == C_L
    while peek8(fmt + place) == C_L:
        place += _U1
    c = peek8(fmt + place)
    base = _U10
    if c == C_D or c == C_I:
        flags |= SIGN
    elif c == C_X:
        base, flags = _U16, flags | SMALL
    elif c == C_BIG_X:
        base = _U16
    if long:
        value, args = peek64(packed + args), args + _U8
    else:
        value, args = peek32(packed + args), args + _U4
        if flags & SIGN:
            value = sext32(value)
    return number(out, at, size, value, flags, width, base), place + _U1, args
