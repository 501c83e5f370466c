"""pktbpf.bpf: descriptors and references, program loading and its log, errnos and tags as in the live kernel."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import struct
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pktbpf import bpf
from pktbpf.errors import KernelUnavailable, MapError, ProgramRefused
from pktbpf.kernel import syscall
from pktbpf.kernel.maps import LiveMap
from pktbpf.maps.face import Map


def code(*insns: tuple[int, int, int, int]) -> bytes:
    """(code, registers, off, imm) per slot."""
    return b"".join(struct.pack("<BBhi", *insn) for insn in insns)


RETURN_5 = code((0xB7, 0, 0, 5), (0x95, 0, 0, 0))
NO_R0 = code((0x95, 0, 0, 0))
LOOP = code((0x05, 0, -1, 0), (0x95, 0, 0, 0))


def load_map(fd: int) -> bytes:
    """r1 = map[fd] ll; r0 = 0; exit."""
    return code((0x18, 0x11, 0, fd), (0, 0, 0, 0), (0xB7, 0, 0, 0), (0x95, 0, 0, 0))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    for fd in list(bpf._open):
        bpf.close(fd)


def errno_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> int:
    try:
        call(*arguments, **options)
    except OSError as error:
        return error.errno or -1
    return 0


def test_elements_through_descriptors() -> None:
    with bpf.map_create("HASH", 4, 8, 2, name="flows") as fd:
        bpf.map_update_elem(fd, b"key1", b"12345678", bpf.BPF_NOEXIST)
        assert bpf.map_lookup_elem(fd, b"key1") == b"12345678"
        assert bpf.map_get_next_key(fd) == b"key1"
        assert errno_of(bpf.map_update_elem, fd, b"key1", bytes(8), bpf.BPF_NOEXIST) == errno.EEXIST
        done = bpf.map_lookup_batch(fd, None, 8)
        assert (done.keys, done.values, done.errno) == ([b"key1"], [b"12345678"], errno.ENOENT)
        assert bpf.map_update_batch(fd, [b"aaaa", b"bbbb"], [bytes(8)] * 2).errno == errno.E2BIG
        assert bpf.map_delete_batch(fd, [b"aaaa", b"none"]).count == 1
        assert bpf.map_lookup_and_delete_elem(fd, b"key1") == b"12345678"
        bpf.map_freeze(fd)
        assert errno_of(bpf.map_update_elem, fd, b"key1", bytes(8)) == errno.EPERM
        info = bpf.obj_get_info(fd)
        assert isinstance(info, bpf.MapInfo)
        assert (info.type, info.name, info.max_entries, info.frozen) == (1, "flows", 2, True)
    assert errno_of(bpf.map_lookup_elem, fd, b"key1") == errno.EBADF
    assert errno_of(fd.close) == errno.EBADF


def test_descriptors_are_the_lowest_free_numbers() -> None:
    first, second = bpf.map_create(2, 4, 4, 1), bpf.map_create("BPF_MAP_TYPE_ARRAY", 4, 4, 1)
    assert (first, second) == (3, 4)
    first.close()
    assert bpf.dup(second) == 3
    assert bpf.get_map(3) is bpf.get_map(4)
    assert errno_of(bpf.map_create, 99, 4, 4, 1) == errno.EINVAL


def test_maps_live_as_long_as_programs_and_maps_refer_to_them() -> None:
    fd = bpf.map_create("ARRAY", 4, 4, 1)
    watched = weakref.ref(bpf.get_map(fd))
    prog = bpf.prog_load("SOCKET_FILTER", load_map(fd))
    outer = bpf.map_create("ARRAY_OF_MAPS", 4, 4, 2, inner_map_fd=fd)
    bpf.map_update_elem(outer, bytes(4), fd)
    assert bpf.references(fd) == 3
    fd.close()
    info = bpf.obj_get_info(prog)
    assert isinstance(info, bpf.ProgramInfo)
    made = watched()
    assert made is not None
    assert info.map_ids == (made.id,)
    assert bpf.map_lookup_elem(outer, bytes(4)) == made.id.to_bytes(4, "little")
    del made
    prog.close()
    gc.collect()
    assert watched() is not None
    bpf.map_delete_elem(outer, bytes(4))
    gc.collect()
    assert watched() is None


def test_program_arrays_take_program_descriptors() -> None:
    prog = bpf.prog_load("SOCKET_FILTER", RETURN_5)
    fd = bpf.map_create("PROG_ARRAY", 4, 4, 2)
    bpf.map_update_elem(fd, bytes(4), prog)
    bpf.map_update_elem(fd, b"\1\0\0\0", int(prog).to_bytes(4, "little"))
    m = bpf.get_map(fd)
    assert m.programs() == {0: bpf.get_program(prog), 1: bpf.get_program(prog)}
    assert m.version == 2
    assert errno_of(bpf.map_update_elem, fd, bytes(4), fd) == errno.EINVAL
    assert errno_of(bpf.map_update_elem, fd, bytes(4), 77) == errno.EBADF
    assert errno_of(bpf.map_lookup_elem, prog, bytes(4)) == errno.EINVAL


def test_refusals_carry_errno_reason_and_log() -> None:
    with pytest.raises(ProgramRefused) as caught:
        bpf.prog_load("SOCKET_FILTER", NO_R0, log_level=1)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.EACCES
    assert "R0 !read_ok" in caught.value.log
    with pytest.raises(bpf.LoadRefused) as caught_without:
        bpf.prog_load("SOCKET_FILTER", NO_R0)
    assert caught_without.value.log == ""
    with pytest.raises(MapError, match="descriptor 55"):
        bpf.obj_get_info(55)


def live_load(insns: bytes, level: int, size: int, name: str = "", kind: int = 1, flags: int = 0) -> tuple[int, bytes]:
    """(errno, log buffer) of a load in the live kernel with exactly this log buffer."""
    text, terms = ctypes.create_string_buffer(insns, max(len(insns), 1)), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(size) if size else None
    attr = struct.pack(
        "<IIQQIIQII16s", kind, len(insns) // 8, ctypes.addressof(text), ctypes.addressof(terms), level, size,
        ctypes.addressof(log) if log else 0, 0, flags, name.encode()[:16],
    )  # fmt: skip
    try:
        os.close(syscall.bpf(syscall.PROG_LOAD, attr)[0])
    except OSError as error:
        return error.errno or 0, log.value if log else b""
    return 0, log.value if log else b""


LOADS = [
    (RETURN_5, 0, 0), (RETURN_5, 1, 4096), (RETURN_5, 1, 0), (RETURN_5, 0, 4096), (RETURN_5, 16, 4096),
    (RETURN_5, 9, 4096), (NO_R0, 0, 0), (NO_R0, 1, 4096), (NO_R0, 1, 0), (NO_R0, 1, 8), (NO_R0, 9, 8), (LOOP, 0, 0),
    (b"", 0, 0), (b"", 1, 16), (RETURN_5[:8], 0, 0), (code((0xFF, 0, 0, 0), (0x95, 0, 0, 0)), 0, 0),
    (load_map(1000), 0, 0),
]  # fmt: skip


@pytest.mark.kernel
@pytest.mark.parametrize(("insns", "level", "size"), LOADS)
def test_load_errnos_are_the_live_kernels(insns: bytes, level: int, size: int) -> None:
    need_kernel()
    theirs, log = live_load(insns, level, size)
    assert errno_of(bpf.prog_load, 1, insns, "GPL", log_level=level, log_size=size) == theirs
    if theirs == errno.ENOSPC:
        assert len(log) == size - 1


@pytest.mark.kernel
def test_other_load_attributes_and_descriptors_fail_like_the_live_kernels() -> None:
    need_kernel()
    for name in ("ok_name.x", "bad-name", "a" * 16):
        assert errno_of(bpf.prog_load, 1, RETURN_5, name=name) == live_load(RETURN_5, 0, 0, name)[0]
    assert errno_of(bpf.prog_load, 999, RETURN_5) == live_load(RETURN_5, 0, 0, kind=999)[0]
    assert errno_of(bpf.prog_load, 1, RETURN_5, prog_flags=1 << 20) == live_load(RETURN_5, 0, 0, flags=1 << 20)[0]
    live = LiveMap("HASH", 4, 4, 1)
    live.close()
    live.fd = 999
    for name, arguments in (("lookup", (bytes(4),)), ("update", (bytes(4), bytes(4))), ("delete", (bytes(4),))):
        ours = getattr(bpf, f"map_{name}_elem")
        assert errno_of(ours, 999, *arguments) == errno_of(getattr(live, name), *arguments) == errno.EBADF


@pytest.mark.kernel
def test_tags_and_information_are_the_live_kernels() -> None:
    need_kernel()
    live = LiveMap("ARRAY", 4, 4, 1)
    fd = bpf.map_fd(Map("ARRAY", 4, 4, 1))
    pairs = ((RETURN_5, RETURN_5), (load_map(fd), load_map(live.fd)))
    tags = set()
    for ours, theirs in pairs:
        loaded = syscall.load_program(theirs, name="five")
        try:
            info, wanted = bpf.obj_get_info(bpf.prog_load(1, ours, name="five")), syscall.program_info(loaded)
            assert isinstance(info, bpf.ProgramInfo)
            assert (info.tag, info.name, info.type) == (wanted.tag, wanted.name, wanted.type)
            tags.add(info.tag)
        finally:
            os.close(loaded)
    live.close()
    assert len(tags) == 2


def need_kernel() -> None:
    try:
        syscall.available()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
