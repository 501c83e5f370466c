"""Finding a libpcap and calling it: pcap_open_dead, pcap_compile, the names of link types.

`find(choice)` gives a Backend: the system's library, a named one, the one that the pcapy-ng wheel carries, or, where
that one is linked into the wheel's module, its `compile`. Functions used here are those of libpcap 1.0 and newer.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import importlib.util
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pktbpf.errors import ExpressionError
from pktbpf.isa.classic import ClassicInsn

# What a wheel calls its own copies, and what the system calls libpcap (Debian kept 0.8).
_SYSTEM_NAMES = ("libpcap.so.1", "libpcap.so.0.8")
_BUNDLES = ("pcapy_ng.libs/libpcap*.so*", "pcapy_ng.libs/libpcap*.dylib", ".dylibs/libpcap*", "pcapy/.dylibs/libpcap*")
_WHEEL_MODULE = "pcapy"

_SPECIAL_VLAN_HANDLING = 1
# Bytes from bpf_codegen_flags to the error buffer: between them are an int, a pointer (since 1.9) and a struct
# bpf_program, with or without padding.
_FLAGS_BEFORE_ERROR = (36, 32, 28, 24, 20)
_VLAN_TAG_PRESENT = 0xFFFFF000 + 48  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT


class Request(NamedTuple):
    """What pcap_compile is told. linktype: DLT number. netmask: the network's bits are the high ones. savefile: compile
    as for a capture file, where some tests differ (DLT_NULL has every system's families, `inbound` is refused). live:
    as for a Linux socket, where `vlan` tests the metadata, too."""

    expression: bytes
    linktype: int
    snaplen: int
    optimize: bool
    netmask: int
    savefile: bool = False
    live: bool = False


class Backend(Protocol):
    """name: `system`, `wheel` or the path asked for. version: the library's own words."""

    name: str
    version: str

    def compile(self, request: Request) -> tuple[ClassicInsn, ...]:
        """Raises ExpressionError with libpcap's own text."""
        ...

    def linktype(self, name: str) -> int | None:
        """The DLT number of a name, None if there is none."""
        ...


class _BpfProgram(ctypes.Structure):
    _fields_ = (("bf_len", ctypes.c_uint), ("bf_insns", ctypes.c_void_p))


class Library:
    """A libpcap loaded as a shared library."""

    def __init__(self, name: str, handle: ctypes.CDLL):
        self.name = name
        self._lib = handle
        handle.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        handle.pcap_open_dead.restype = ctypes.c_void_p
        handle.pcap_dump_open.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        handle.pcap_dump_open.restype = ctypes.c_void_p
        handle.pcap_dump_close.argtypes = (ctypes.c_void_p,)
        handle.pcap_dump_close.restype = None
        handle.pcap_open_offline.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
        handle.pcap_open_offline.restype = ctypes.c_void_p
        handle.pcap_close.argtypes = (ctypes.c_void_p,)
        handle.pcap_close.restype = None
        pointer = ctypes.POINTER(_BpfProgram)
        handle.pcap_compile.argtypes = (ctypes.c_void_p, pointer, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32)
        handle.pcap_compile.restype = ctypes.c_int
        handle.pcap_freecode.argtypes = (pointer,)
        handle.pcap_freecode.restype = None
        handle.pcap_geterr.argtypes = (ctypes.c_void_p,)
        handle.pcap_geterr.restype = ctypes.c_char_p
        # The same function as an address: it is where the handle's error buffer stands.
        self._error_buffer = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("pcap_geterr", handle))
        handle.pcap_lib_version.argtypes = ()
        handle.pcap_lib_version.restype = ctypes.c_char_p
        handle.pcap_datalink_name_to_val.argtypes = (ctypes.c_char_p,)
        handle.pcap_datalink_name_to_val.restype = ctypes.c_int
        self.version: str = handle.pcap_lib_version().decode("utf-8", "replace")

    def compile(self, request: Request) -> tuple[ClassicInsn, ...]:
        lib = self._lib
        handle = lib.pcap_open_dead(request.linktype, request.snaplen)
        if handle and request.savefile:
            handle = self._as_savefile(handle)
        if not handle:
            raise ExpressionError("libpcap has no memory left")
        flags = None
        try:
            if request.live:
                flags = self._vlan_flags(handle)
                flags.value = _SPECIAL_VLAN_HANDLING
            return self._compile(handle, request)
        finally:
            if flags is not None:
                flags.value = 0
            lib.pcap_close(handle)

    def _compile(self, handle: int, request: Request) -> tuple[ClassicInsn, ...]:
        lib, code = self._lib, _BpfProgram()
        status = lib.pcap_compile(
            handle, ctypes.byref(code), request.expression, int(request.optimize), request.netmask
        )
        if status != 0:
            raise ExpressionError(lib.pcap_geterr(handle).decode("utf-8", "replace"))
        try:
            return _native_order(ctypes.string_at(code.bf_insns, code.bf_len * 8))
        finally:
            lib.pcap_freecode(ctypes.byref(code))

    def _vlan_flags(self, handle: int) -> Any:
        """The handle's bpf_codegen_flags, which only opening a device sets and no function of libpcap does.

        They stand a little in front of the error buffer; a field counts as them when it is 0 and setting it makes
        `vlan` read the metadata. Nothing there is used by the compiler else. Raises ExpressionError where none does.
        """
        address: int = self._error_buffer(handle)
        question = Request(b"vlan", 1, 65535, False, 0)
        for distance in _FLAGS_BEFORE_ERROR:
            flags = ctypes.c_int.from_address(address - distance)
            if flags.value != 0:
                continue
            flags.value = _SPECIAL_VLAN_HANDLING
            try:
                if any(insn.k == _VLAN_TAG_PRESENT for insn in self._compile(handle, question)):
                    return flags
            finally:
                flags.value = 0
        raise ExpressionError(f"{self.version} cannot compile for packets whose VLAN tag is metadata; give a program")

    def _as_savefile(self, dead: int) -> int:
        """The same handle on a capture file without packets; `dead` itself where no file can have its link type."""
        lib, error = self._lib, ctypes.create_string_buffer(256)  # PCAP_ERRBUF_SIZE
        with tempfile.TemporaryDirectory(prefix="pktbpf-") as directory:
            path = os.fsencode(os.path.join(directory, "empty.pcap"))  # noqa: PTH118  bytes for C
            dumper = lib.pcap_dump_open(dead, path)
            if not dumper:
                return dead
            lib.pcap_dump_close(dumper)
            handle: int | None = lib.pcap_open_offline(path, error)
        if not handle:
            return dead
        lib.pcap_close(dead)
        return handle

    def linktype(self, name: str) -> int | None:
        number: int = self._lib.pcap_datalink_name_to_val(name.encode("utf-8", "replace"))
        return None if number < 0 else number


class WheelModule:
    """The pcapy-ng module itself, where its libpcap is no library of its own."""

    def __init__(self, module: Any):
        self.name = "wheel"
        self.version = f"libpcap of {_WHEEL_MODULE} {getattr(module, '__version__', '')}".rstrip()
        self._module = module

    def compile(self, request: Request) -> tuple[ClassicInsn, ...]:
        if request.live:
            raise ExpressionError(f"{self.version} cannot compile for packets whose VLAN tag is metadata; use another")
        module = self._module
        netmask = request.netmask
        text = request.expression.decode("utf-8", "replace")
        try:
            code = module.compile(request.linktype, request.snaplen, text, int(request.optimize), netmask)
        except (module.BPFError, module.PcapError) as error:
            raise ExpressionError(str(error)) from None
        return tuple(ClassicInsn(*fields) for fields in code.get_bpf())

    def linktype(self, name: str) -> int | None:
        number = getattr(self._module, f"DLT_{name.upper()}", None)
        return number if isinstance(number, int) else None


def _native_order(raw: bytes) -> tuple[ClassicInsn, ...]:
    """Instructions in the machine's own byte order."""
    return tuple(ClassicInsn(*values) for values in struct.iter_unpack("=HBBI", raw))


def _open(name: str, path: str) -> Library | None:
    try:
        return Library(name, ctypes.CDLL(path))
    except (OSError, AttributeError):  # not there, not loadable, or no libpcap
        return None


def _system() -> Library | None:
    for soname in _SYSTEM_NAMES:
        if found := _open("system", soname):
            return found
    soname_or_none = ctypes.util.find_library("pcap")
    return _open("system", soname_or_none) if soname_or_none else None


def _bundled() -> Iterator[Path]:
    """Shared libraries that the wheel carries beside its module."""
    spec = importlib.util.find_spec(_WHEEL_MODULE)
    if spec is None or not spec.origin:
        return
    site = Path(spec.origin).parent
    for pattern in _BUNDLES:
        yield from sorted(site.glob(pattern))
    yield Path(spec.origin)


def _wheel() -> Backend | None:
    for path in _bundled():
        if found := _open("wheel", str(path)):
            return found
    try:
        return WheelModule(importlib.import_module(_WHEEL_MODULE))
    except ImportError:
        return None


def find(choice: str = "") -> Backend:
    """The backend of that name: `system`, `wheel`, a library's path, or empty for the first there is.

    Raises ExpressionError where it cannot be had.
    """
    found: Backend | None
    if choice == "wheel":
        found, missing = _wheel(), "the pcapy-ng wheel is not installed"
    elif choice == "system":
        found, missing = _system(), "this system has no libpcap"
    elif choice:
        found, missing = _open(choice, choice), f"{choice}: not a libpcap that can be loaded"
    else:
        found, missing = _system() or _wheel(), "no libpcap: install the system's libpcap or the pcapy-ng wheel"
    if found is None:
        raise ExpressionError(missing)
    return found
