"""`compile`: one expression, one link type -> ClassicProgram; `backend`: which libpcap does it.

Calls are made one at a time, on a thread of their own: looking up a host name happens inside libpcap and cannot be
interrupted, so the caller stops waiting after `timeout` seconds. Nothing is kept between calls but the library.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import threading

from pktbpf.errors import ExpressionError, LinkTypeError
from pktbpf.expression.library import Backend, Request, find
from pktbpf.isa.classic import ClassicInsn
from pktbpf.program import ClassicProgram

MAX_SNAPLEN = 262_144  # tcpdump's MAXIMUM_SNAPLEN, what -s 0 means
MAX_EXPRESSION = 1 << 20  # libpcap's parser recurses; no expression is near this
DEFAULT_TIMEOUT = 30.0

# LINKTYPE_ numbers of capture files whose DLT_ number is another one and is no other link type's (Linux values).
_DLT_OF_LINKTYPE = {100: 11, 101: 12, 102: 15, 103: 16, 106: 19}
_COMMENT = re.compile(r"#[^\n]*")
_lock = threading.Lock()


@functools.lru_cache(maxsize=8)
def _find(choice: str) -> Backend:
    return find(choice)


def _library() -> Backend:
    return _find(os.environ.get("PKTBPF_LIBPCAP", ""))


def backend() -> tuple[str, str]:
    """Which libpcap compiles: (`system`, `wheel` or its path; its version string). Raises ExpressionError for none."""
    library = _library()
    return library.name, library.version


def link_type_number(linktype: str | int) -> int:
    """The DLT number of a name (`EN10MB`, `DLT_RAW`, any case) or number. Raises LinkTypeError for an unknown name."""
    if isinstance(linktype, str):
        name = linktype.strip()
        if name.isascii() and name.isdecimal() and len(name) < 10:
            return link_type_number(int(name))
        if name.upper().startswith(("DLT_", "LINKTYPE_")):
            name = name.split("_", 1)[1]
        number = _library().linktype(name) if name.isascii() and "\0" not in name else None
        if number is None:
            raise LinkTypeError(f"unknown link type {linktype!r}; names are those of tcpdump -L, such as EN10MB or RAW")
        return number
    if not 0 <= linktype < 1 << 31:
        raise LinkTypeError(f"link type {linktype} is no DLT number")
    return _DLT_OF_LINKTYPE.get(linktype, linktype)


def strip_comments(text: str) -> str:
    """The expression in a file, as `tcpdump -F` reads it: what follows a # is a comment up to the end of its line."""
    return _COMMENT.sub("", text).strip()


def _netmask(value: str | int | None) -> int:
    """The mask as a number whose high bits are the network. None: 0, what tcpdump passes for capture files.

    libpcap uses the number as it is, so this order, not that of pcap_lookupnet, gives the right host bits.
    """
    if value is None:
        return 0
    text = str(value)
    try:
        if text.isascii() and text.isdecimal() and int(text) <= 32:
            return int(ipaddress.IPv4Network(f"0.0.0.0/{text}").netmask)
        return int(ipaddress.IPv4Address(value))
    except ValueError:
        raise ExpressionError(f"netmask {text[:40]!r} is neither an IPv4 address nor a prefix length") from None


class _Call(threading.Thread):
    """One pcap_compile. A daemon: a lookup that never ends must not keep the process alive."""

    def __init__(self, library: Backend, request: Request):
        super().__init__(name="pktbpf-expression", daemon=True)
        self.library = library
        self.request = request
        self.insns: tuple[ClassicInsn, ...] | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        with _lock:
            try:
                self.insns = self.library.compile(self.request)
            except BaseException as error:
                self.error = error  # raised again in the caller


def compile(
    expression: str,
    linktype: str | int = "EN10MB",
    optimize: bool = True,
    snaplen: int = MAX_SNAPLEN,
    netmask: str | int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    savefile: bool = False,
    live: bool = False,
) -> ClassicProgram:
    """The program that libpcap makes of a pcap-filter expression.

    linktype: DLT name or number. optimize: False is tcpdump's -O. snaplen: what accepting instructions return, in bytes
    (0: 262144). netmask: of the local network for `ip broadcast`, an address or a prefix length (an int over 32 is the
    mask itself, 0xffffff00); None is tcpdump's 0. timeout: seconds to wait for libpcap, which looks up host names.
    savefile: compile as `tcpdump -r` does, not as for a live capture. live: as for a Linux socket, whose packets have
    the outer VLAN tag in metadata, so that `vlan` tests vlan_avail, too (`tcpdump -i`).
    Raises ExpressionError with libpcap's own text, LinkTypeError.
    """
    library = _library()
    number = link_type_number(linktype)
    try:
        encoded = expression.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ExpressionError("the expression is not text that could be encoded") from None
    if b"\0" in encoded:
        raise ExpressionError("the expression contains a NUL character")
    if len(encoded) > MAX_EXPRESSION:
        raise ExpressionError(f"the expression is longer than {MAX_EXPRESSION} bytes")
    if not 0 <= snaplen < 1 << 31:
        raise ExpressionError(f"snapshot length {snaplen} is out of range")
    request = Request(encoded, number, snaplen or MAX_SNAPLEN, optimize, _netmask(netmask), savefile, live)
    call = _Call(library, request)
    call.start()
    call.join(timeout)
    if call.is_alive():
        raise ExpressionError(f"no answer from libpcap within {timeout:g} s: a slow name lookup, or too large a filter")
    if call.error is not None:
        raise call.error
    if call.insns is None:
        raise ExpressionError("libpcap gave no program")
    return ClassicProgram(call.insns, linktype=number, origin=expression, libpcap=library.version)
