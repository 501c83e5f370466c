"""bpf(2) through the thin layer: load, refuse, ask, run, maps."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

import pytest

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall
from pktbpf.program import Program

pytestmark = pytest.mark.kernel


def code(*insns: tuple[int, int, int, int]) -> bytes:
    """(code, registers, off, imm) per slot."""
    return b"".join(struct.pack("<BBhi", *insn) for insn in insns)


RETURN_5 = code((0xB7, 0, 0, 5), (0x95, 0, 0, 0))


@pytest.fixture(autouse=True)
def _allowed() -> None:
    try:
        syscall.available()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))


def test_loaded_program_tells_its_tag_and_code() -> None:
    fd = syscall.load_program(RETURN_5, name="five")
    try:
        info = syscall.program_info(fd)
        if info.xlated or not os.geteuid():  # who lacks CAP_PERFMON is not shown the code
            assert info.xlated == RETURN_5
        assert info.tag == Program.from_bytes(RETURN_5).tag
        assert (info.name, info.type, info.verified_insns) == ("five", syscall.PROG_TYPE_SOCKET_FILTER, 2)
        assert syscall.run_once(fd, bytes(60))[0] == 5
        with pytest.raises(OSError, match="Invalid argument"):
            syscall.run_once(fd, bytes(13))
    finally:
        os.close(fd)


def test_refusal_carries_errno_and_log_at_any_log_level() -> None:
    for level in (0, 1, 2):
        with pytest.raises(syscall.LoadRefused) as caught:
            syscall.load_program(code((0x95, 0, 0, 0)), log_level=level)
        assert caught.value.errno == errno.EACCES
        assert "R0 !read_ok" in caught.value.log
        assert str(caught.value).endswith("R0 !read_ok")


def test_small_log_buffer_grows() -> None:
    fd = syscall.load_program(RETURN_5, log_level=2, log_size=128)
    os.close(fd)


def test_log_of_an_accepted_program() -> None:
    number, log = syscall.program_log(RETURN_5)
    assert number == 0
    assert "r0 = 5" in log


def test_empty_and_overlong_programs() -> None:
    for slots in (0, 1_000_001):
        with pytest.raises(syscall.LoadRefused) as caught:
            syscall.load_program(RETURN_5[:8] * slots)
        assert caught.value.errno == errno.E2BIG


def test_map_round_trip() -> None:
    fd = syscall.create_map("HASH", 4, 8, 2, name="numbers")
    try:
        syscall.map_element(syscall.MAP_UPDATE_ELEM, fd, b"key1", b"12345678")
        value = ctypes.create_string_buffer(8)
        syscall.map_element(syscall.MAP_LOOKUP_ELEM, fd, b"key1", value)
        assert value.raw == b"12345678"
        key = ctypes.create_string_buffer(4)
        syscall.map_element(syscall.MAP_GET_NEXT_KEY, fd, None, key)
        assert key.raw == b"key1"
        syscall.map_element(syscall.MAP_DELETE_ELEM, fd, b"key1", None)
        with pytest.raises(OSError, match="No such file") as caught:
            syscall.map_element(syscall.MAP_LOOKUP_ELEM, fd, b"key1", value)
        assert caught.value.errno == errno.ENOENT
    finally:
        os.close(fd)
