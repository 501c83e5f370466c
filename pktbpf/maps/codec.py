"""Bytes <-> what Python code has in hand for keys and values: ints, bytes, typed values, per-CPU lists, prefixes.

Without a type a key or value of 1, 2, 4 or 8 bytes reads as an unsigned little-endian int and any other as bytes. With
a BTF type (anything with `size`, `encode` and `decode`, such as pktbpf.objfile's DataType) it reads as the type says.
What is written may always be bytes of the exact size, or an int that fits.
"""

from __future__ import annotations

import errno
import ipaddress
from typing import Any

from pktbpf.errors import MapError

INTEGER_SIZES = (1, 2, 4, 8)


def encode(data: Any, size: int, kind: Any, what: str) -> bytes:
    """Bytes of a key or value. kind: its type or None. MapError (EINVAL) for what does not fit."""
    if isinstance(data, bytes | bytearray | memoryview):
        raw = bytes(data)
    elif kind is not None:
        raw = kind.encode(data)
    elif isinstance(data, int):
        raw = _number(int(data), size, what)
    elif hasattr(data, "__index__"):
        raw = _number(data.__index__(), size, what)
    else:
        raise MapError(errno.EINVAL, f"{what} takes bytes or an int, not {type(data).__name__}")
    if len(raw) != size:
        raise MapError(errno.EINVAL, f"{what} takes {size} bytes, not {len(raw)}")
    return raw


def _number(number: int, size: int, what: str) -> bytes:
    try:
        return number.to_bytes(size, "little", signed=number < 0)
    except OverflowError:
        raise MapError(errno.EINVAL, f"{what}: {number} does not fit in {size} bytes") from None


def decode(raw: bytes, kind: Any) -> Any:
    """What the bytes mean to Python code."""
    if kind is not None:
        return kind.decode(raw)
    return int.from_bytes(raw, "little") if len(raw) in INTEGER_SIZES else raw


def prefix(text: str, size: int) -> bytes:
    """Key of an LPM_TRIE for `10.0.0.0/8`, `2001:db8::/32` or an address. size: of the key, 8 for IPv4, 20 for IPv6."""
    try:
        network = ipaddress.ip_interface(text)
    except ValueError:
        raise MapError(errno.EINVAL, f"{text!r} is no address prefix: {_no_prefix(text)}") from None
    raw = network.network.prefixlen.to_bytes(4, "little") + network.ip.packed
    if len(raw) != size:
        raise MapError(errno.EINVAL, f"{text!r} makes a key of {len(raw)} bytes, the map has {size}")
    return raw


def _no_prefix(text: str) -> str:
    """What is wrong with a text that is no prefix."""
    address, _, _ = text.partition("/")
    try:
        longest = ipaddress.ip_address(address).max_prefixlen
    except ValueError:
        return f"{address!r} is no IPv4 or IPv6 address"
    return f"the length is a number of bits, at most {longest}"
