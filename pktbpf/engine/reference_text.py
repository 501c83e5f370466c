"""Formatted text and numbers of the reference engine: bpf_snprintf, bpf_trace_printk, bpf_strtol in readable Python.

`prepare` checks a format and reads its arguments, `render` writes them; both as the kernel does, so an output
that is full hides addresses (%pI4) from the length, and everything of a word behind %p is swallowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

EINVAL, ENOSPC, ERANGE = 22, 28, 34
PACKED = 512
_SPACES = frozenset(b"\t\n\v\f\r \xa0")
_FIELD = re.compile(rb"[0+\- ]*(?:[1-9][0-9]*)?")
_NUMBER = re.compile(rb"(l?l?)([diuxX])")
_ADDRESS = re.compile(rb"p([iI])([46])")

ReadText = Callable[[int, int], "bytes | None"]


class Refused(Exception):
    """The helper's negative answer."""

    def __init__(self, errno: int):
        self.errno = errno
        super().__init__(errno)


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a prepared format. kind: text, char, string, address, number, pointer, symbol."""

    kind: str
    flags: bytes = b""
    width: int = -1
    text: bytes = b""
    value: int = 0
    base: int = 10
    upper: bool = False


def _alnum(c: int) -> bool:
    if c < 0x80:
        return chr(c).isalnum()
    return c >= 0xC0 and c not in (0xD7, 0xF7)


def _ends_word(rest: bytes) -> bool:
    """The end, a space or punctuation comes next."""
    if not rest:
        return True
    c = rest[0]
    return c in _SPACES or (c > 0x20 and c != 0x7F and not 0x80 <= c < 0xA0 and not _alnum(c))


def ip_text(raw: bytes, letter: str) -> bytes:
    """%pI4, %pi4, %pI6, %pi6 of 4 or 16 bytes."""
    if len(raw) == 4:
        return ".".join(str(b) if letter == "I" else f"{b:03d}" for b in raw).encode()
    words = [raw[n : n + 2].hex() for n in range(0, 16, 2)]
    return (":" if letter == "I" else "").join(words).encode()


class Arguments:
    """64-bit arguments one after the other, and the room that they take when packed.

    string: (address, limit) to the bytes before a NUL. memory: (address, size) to bytes. None where nothing is there.
    """

    def __init__(self, values: list[int], string: ReadText, memory: ReadText):
        self._values = iter(values)
        self._string, self._memory = string, memory
        self._used = 0

    def next(self) -> int:
        """The next value; EINVAL when there is none left."""
        try:
            return next(self._values)
        except StopIteration:
            raise Refused(EINVAL) from None

    def take(self, size: int) -> None:
        """Count an argument of 4 or 8 bytes."""
        self._used = (self._used + 3) // 4 * 4
        self.take_bytes(size)

    def take_bytes(self, size: int) -> None:
        """Count bytes without alignment."""
        if self._used + size > PACKED:
            raise Refused(ENOSPC)
        self._used += size

    def string(self, address: int, user: bool) -> bytes:
        """The string at an address, cut to the room; empty where nothing can be read."""
        room = PACKED - self._used
        if not room:
            raise Refused(ENOSPC)
        found = None if user else self._string(address, room - 1)
        text = b"" if found is None else found.split(b"\0")[0][: room - 1]
        self._used += len(text) + 1
        return text

    def raw(self, address: int, size: int, room: int) -> bytes:
        """`size` bytes, zeros where they cannot be read."""
        if self._used + room > PACKED:
            raise Refused(ENOSPC)
        found = self._memory(address, size)
        return bytes(size) if found is None else found


def prepare(format: bytes, args: Arguments) -> list[Piece]:
    """The pieces of a format. Raises Refused."""
    pieces: list[Piece] = []
    at = 0
    while at < len(format):
        c = format[at]
        if c == 0x7F or (c < 0x20 and c not in _SPACES):
            raise Refused(EINVAL)
        if c != 0x25:
            pieces.append(Piece("text", text=format[at : at + 1]))
            at += 1
        elif format[at + 1 : at + 2] == b"%":
            pieces.append(Piece("text", text=b"%"))
            at += 2
        else:
            piece, at = _conversion(format, at + 1, args)
            pieces.append(piece)
    return pieces


def _conversion(format: bytes, at: int, args: Arguments) -> tuple[Piece, int]:
    value = args.next()
    field = _FIELD.match(format, at)
    assert field is not None
    spec = field.group()
    flags = spec[: len(spec) - len(spec.lstrip(b"0+- "))]
    width = min(int(spec[len(flags) :] or b"-1"), (1 << 23) - 1)
    at = field.end()
    rest = format[at:]
    number = _NUMBER.match(rest)
    if number is not None:
        return _number(number, value, flags, width, args), at + number.end()
    if rest[:1] == b"c":
        args.take_bytes(1)
        return Piece("char", flags, width, bytes([value & 0xFF])), at + 1
    if rest[:1] == b"s" and _ends_word(rest[1:]):
        return Piece("string", flags, width, args.string(value, False)), at + 1
    if rest[:1] == b"p":
        return _pointer(rest, value, flags, width, args, at)
    raise Refused(EINVAL)


def _number(match: re.Match[bytes], value: int, flags: bytes, width: int, args: Arguments) -> Piece:
    long, letter = bool(match[1]), match[2]
    args.take(8 if long else 4)
    bits = 64 if long else 32
    value &= (1 << bits) - 1
    if letter in (b"d", b"i"):
        value -= (value >> bits - 1) << bits
        return Piece("number", flags + b"s", width, value=value)
    return Piece("number", flags, width, value=value, base=16 if letter in b"xX" else 10, upper=letter == b"X")


def _pointer(rest: bytes, value: int, flags: bytes, width: int, args: Arguments, at: int) -> tuple[Piece, int]:
    """%p and its kind; the word behind it is swallowed when it is written."""
    word = 1
    while word < len(rest) and _alnum(rest[word]):
        word += 1
    address = _ADDRESS.match(rest)
    if _ends_word(rest[1:]):
        args.take(8)
        piece = Piece("pointer", flags, width, value=value)
    elif rest[1:2] in (b"k", b"u") and rest[2:3] == b"s" and _ends_word(rest[3:]):
        piece = Piece("address", text=args.string(value, rest[1:2] == b"u"))
    elif rest[1:2] and rest[1:2] in b"KxsS":
        args.take(8)
        kind = "symbol" if rest[1:2] in b"sS" else "pointer"
        piece = Piece(kind, flags, width, rest[1:2], value)
    elif rest[1:2] == b"B":
        text = f"0x{value:x}".encode()
        args.raw(0, 0, 19)  # refuses for lack of room
        args.take_bytes(len(text) + 1)
        piece = Piece("address", text=text)
    elif address is not None:
        count, room = (4, 16) if address[2] == b"4" else (16, 40)
        text = ip_text(args.raw(value, count, room), address[1].decode())
        args.take_bytes(len(text) + 1)
        piece = Piece("address", text=text)
    else:
        raise Refused(EINVAL)
    return piece, at + word


def render(pieces: list[Piece], size: int, key: int) -> tuple[bytes, int]:
    """(what is written, with its NUL, at most `size` bytes; how long it would be without limit)."""
    out = bytearray()
    for piece in pieces:
        if piece.kind == "address":
            if len(out) < size:
                out += piece.text
        elif piece.kind == "number":
            out += _digits(piece)
        elif piece.kind == "pointer":
            out += _hashed(piece, key)
        elif piece.kind == "symbol":
            out += _padded(f"0x{piece.value:x}".encode(), piece)
        else:
            out += _padded(piece.text, piece)
    written = bytes(out[: size - 1]) + b"\0" if size else b""
    return written, len(out)


def _padded(text: bytes, piece: Piece) -> bytes:
    if piece.kind == "text":
        return text
    return text.ljust(piece.width) if b"-" in piece.flags else text.rjust(piece.width)


def _hashed(piece: Piece, key: int) -> bytes:
    value = piece.value
    if piece.text != b"x" and 0 < value < (1 << 64) - 4095:
        value = ((value ^ key) * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 32
    if piece.width < 0:
        return _digits(Piece("number", piece.flags + b"0", 16, value=value, base=16))
    return _digits(Piece("number", piece.flags, piece.width, value=value, base=16))


def _digits(piece: Piece) -> bytes:
    """A number in its field, as number() of lib/vsprintf.c."""
    flags, value = piece.flags, piece.value
    sign = b""
    if b"s" in flags:
        sign = b"-" if value < 0 else b"+" if b"+" in flags else b" " if b" " in flags else b""
    digits = f"{abs(value):x}" if piece.base == 16 else str(abs(value))
    text = (digits.upper() if piece.upper else digits).encode()
    if b"-" in flags:
        return (sign + text).ljust(piece.width)
    if b"0" in flags:
        return sign + text.rjust(piece.width - len(sign), b"0")
    return (sign + text).rjust(piece.width)


# --- numbers --------------------------------------------------------------------------------------------------------

_DIGITS = {8: rb"[0-7]*", 10: rb"[0-9]*", 16: rb"[0-9a-fA-F]*"}


def parse(text: bytes, base: int) -> tuple[int, int]:
    """(characters used, value with its sign) of __bpf_strtoull. Raises Refused."""
    rest = text.lstrip(bytes(_SPACES))
    negative = rest[:1] == b"-"
    start = len(text) - len(rest) + negative
    rest = rest[negative:][:63]
    if base not in (0, 8, 10, 16) or not rest:
        raise Refused(EINVAL)
    rest = rest.split(b"\0")[0]
    prefixed = rest[:2].lower() == b"0x"
    if not base:
        base = 16 if re.match(rb"0[xX][0-9a-fA-F]", rest) else 8 if rest[:1] == b"0" else 10
    skip = 2 if base == 16 and prefixed else 0
    digits = re.match(_DIGITS[base], rest[skip:])
    assert digits is not None
    if not digits.group():
        raise Refused(EINVAL)
    value = int(digits.group(), base)
    if value >> 64:
        raise Refused(ERANGE)
    return start + skip + digits.end(), -value if negative else value
