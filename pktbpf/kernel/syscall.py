"""bpf(2) through ctypes: one thin, typed function per command, errors as OSError with the kernel's errno.

Program loading returns a file descriptor or raises `LoadRefused` with the verifier's log; asking a kernel that cannot
be asked (not Linux, not permitted, no such call) raises `KernelUnavailable`. Layouts: union bpf_attr, uapi linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
import sys
from dataclasses import dataclass

from pktbpf.errors import KernelUnavailable

MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY, PROG_LOAD = range(6)
PROG_TEST_RUN = 10
OBJ_GET_INFO_BY_FD = 15
MAP_LOOKUP_AND_DELETE_ELEM = 21
MAP_FREEZE = 22
BTF_LOAD = 18

PROG_TYPE_SOCKET_FILTER = 1
# fmt: off
_MAP_NAMES = (
    "UNSPEC", "HASH", "ARRAY", "PROG_ARRAY", "PERF_EVENT_ARRAY", "PERCPU_HASH", "PERCPU_ARRAY", "STACK_TRACE",
    "CGROUP_ARRAY", "LRU_HASH", "LRU_PERCPU_HASH", "LPM_TRIE", "ARRAY_OF_MAPS", "HASH_OF_MAPS", "DEVMAP", "SOCKMAP",
    "CPUMAP", "XSKMAP", "SOCKHASH", "CGROUP_STORAGE", "REUSEPORT_SOCKARRAY", "PERCPU_CGROUP_STORAGE", "QUEUE", "STACK",
    "SK_STORAGE", "DEVMAP_HASH", "STRUCT_OPS", "RINGBUF", "INODE_STORAGE", "TASK_STORAGE", "BLOOM_FILTER",
    "USER_RINGBUF", "CGRP_STORAGE", "ARENA",
)
# fmt: on
MAP_TYPES: dict[str, int] = {name: number for number, name in enumerate(_MAP_NAMES)}

_SYSCALL_NUMBER = {
    "x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "s390x": 351, "ppc64le": 361, "ppc64": 361,
    "armv7l": 386, "i686": 357,
}  # fmt: skip
# union bpf_attr of 6.18 is 168 bytes; the kernel takes a longer, zero-filled one as well.
_ATTR_SIZE = 168


class LoadRefused(OSError):
    """BPF_PROG_LOAD said no. errno: the kernel's. log: the verifier's, complete or as much as fits."""

    def __init__(self, number: int, log: str):
        lines = [line for line in log.strip().splitlines() if not line.startswith("processed ")]
        super().__init__(number, lines[-1] if lines else os.strerror(number))
        self.log = log


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says about a loaded program (struct bpf_prog_info). tag: 16 hex digits. xlated: the instructions
    after the verifier's rewrites. jited: machine code, empty without a JIT or the permission."""

    type: int
    id: int
    tag: str
    xlated: bytes
    jited: bytes
    name: str
    verified_insns: int


_libc: ctypes.CDLL | None = None


def libc() -> ctypes.CDLL:
    """The C library, errno kept; KernelUnavailable(ENOSYS) on anything but Linux."""
    global _libc
    if sys.platform != "linux":
        raise KernelUnavailable(errno.ENOSYS, "the live kernel is not Linux")
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    return _libc


def _raw(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    number = _SYSCALL_NUMBER.get(platform.machine())
    if number is None:
        raise KernelUnavailable(errno.ENOSYS, f"bpf(2) on {platform.machine()}")
    call = libc().syscall
    call.restype = ctypes.c_long
    result: int = call(
        ctypes.c_long(number), ctypes.c_long(command), ctypes.byref(attr), ctypes.c_ulong(ctypes.sizeof(attr))
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def bpf(command: int, attr: bytes | bytearray) -> tuple[int, bytes]:
    """One bpf(2) call with `attr` zero-filled to the union's size: (return value, attr as the kernel left it).

    Raises OSError with the kernel's errno.
    """
    if len(attr) > _ATTR_SIZE:
        raise ValueError(f"attr of {len(attr)} bytes is longer than union bpf_attr ({_ATTR_SIZE})")
    buffer = ctypes.create_string_buffer(bytes(attr), _ATTR_SIZE)
    result = _raw(command, buffer)
    return result, buffer.raw


def address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    """Where a ctypes buffer begins, 0 for None: what pointer fields of `attr` hold. Keep the buffer referenced."""
    return ctypes.addressof(buffer) if buffer is not None else 0


def available() -> None:
    """Nothing if bpf(2) loads socket filters here, else KernelUnavailable with the errno."""
    os.close(load_program(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)))


# ---- programs


def load_program(
    insns: bytes, *, license: str = "GPL", log_level: int = 0, log_size: int = 1 << 20, name: str = "",
    program_type: int = PROG_TYPE_SOCKET_FILTER, btf_fd: int = 0, func_info: bytes = b"", line_info: bytes = b"",
) -> int:  # fmt: skip
    """BPF_PROG_LOAD of `struct bpf_insn[]`: the new file descriptor.

    A refusal is repeated with the log switched on, so that `LoadRefused.log` is there at any log_level (1, 2 and 4 as
    in the kernel). Raises LoadRefused, or KernelUnavailable when bpf(2) itself is denied (EPERM, ENOSYS).
    """
    code = ctypes.create_string_buffer(insns, max(len(insns), 1))
    terms = ctypes.create_string_buffer(license.encode())
    label = re.sub(rb"[^A-Za-z0-9_.]", b"_", name.encode())[:15]  # what the kernel takes, BPF_OBJ_NAME_LEN
    infos = ctypes.create_string_buffer(func_info, max(len(func_info), 1))
    lines = ctypes.create_string_buffer(line_info, max(len(line_info), 1))
    level = log_level
    while True:
        log = ctypes.create_string_buffer(log_size) if level else None
        attr = struct.pack(
            "<IIQQIIQII16sIIIIQIIQI", program_type, len(insns) // 8, address(code), address(terms), level,
            log_size if level else 0, address(log), 0, 0, label, 0, 0, btf_fd, 8 if func_info else 0,
            address(infos) if func_info else 0, len(func_info) // 8, 16 if line_info else 0,
            address(lines) if line_info else 0, len(line_info) // 16,
        )  # fmt: skip
        try:
            return bpf(PROG_LOAD, attr)[0]
        except OSError as error:
            number = error.errno or 0
            if number == errno.EAGAIN:  # a signal interrupted the verifier
                continue
            if number == errno.ENOSPC and level and log_size < 1 << 24:
                log_size *= 4
                continue
            if not level and number not in (errno.EPERM, errno.ENOSYS):
                level = 1
                continue
            text = log.value.decode(errors="replace") if log is not None else ""
            if number in (errno.EPERM, errno.ENOSYS) and not text:
                raise KernelUnavailable(number, "bpf(2) BPF_PROG_LOAD") from None
            raise LoadRefused(number, text) from None


def load_btf(raw: bytes) -> int:
    """BPF_BTF_LOAD: the new file descriptor. Raises OSError."""
    types = ctypes.create_string_buffer(raw, len(raw))
    return bpf(BTF_LOAD, struct.pack("<QQIII", address(types), 0, len(raw), 0, 0))[0]


def program_log(
    insns: bytes, *, level: int = 2, license: str = "GPL", log_size: int = 1 << 22, btf_fd: int = 0,
    func_info: bytes = b"", line_info: bytes = b"",
) -> tuple[int, str]:  # fmt: skip
    """The verifier's log at `level`: (0 or errno, log). The program is unloaded again at once."""
    code = ctypes.create_string_buffer(insns, max(len(insns), 1))
    terms = ctypes.create_string_buffer(license.encode())
    infos = ctypes.create_string_buffer(func_info, max(len(func_info), 1))
    lines = ctypes.create_string_buffer(line_info, max(len(line_info), 1))
    log = ctypes.create_string_buffer(log_size)
    attr = struct.pack(
        "<IIQQIIQII16sIIIIQIIQI", PROG_TYPE_SOCKET_FILTER, len(insns) // 8, address(code), address(terms), level,
        log_size, address(log), 0, 0, b"", 0, 0, btf_fd, 8 if func_info else 0, address(infos) if func_info else 0,
        len(func_info) // 8, 16 if line_info else 0, address(lines) if line_info else 0, len(line_info) // 16,
    )  # fmt: skip
    try:
        os.close(bpf(PROG_LOAD, attr)[0])
    except OSError as error:
        return error.errno or 0, log.value.decode(errors="replace")
    return 0, log.value.decode(errors="replace")


_INFO = struct.Struct("<II8sIIQQQIIQ16s")
_INFO_SIZE = 232  # up to attach_btf_id; verified_insns is at 216


def program_info(fd: int) -> ProgramInfo:
    """BPF_OBJ_GET_INFO_BY_FD of a program. Raises OSError."""
    first = _program_info(fd, None, None)
    xlated = ctypes.create_string_buffer(max(first[4], 1))
    jited = ctypes.create_string_buffer(max(first[3], 1))
    kind, number, tag, jited_size, xlated_size, _, _, _, _, _, _, name, verified = _program_info(fd, jited, xlated)
    return ProgramInfo(
        kind, number, tag.hex(), xlated.raw[:xlated_size], jited.raw[:jited_size],
        name.rstrip(b"\0").decode(), verified,
    )  # fmt: skip


def _program_info(
    fd: int, jited: ctypes.Array[ctypes.c_char] | None, xlated: ctypes.Array[ctypes.c_char] | None
) -> tuple[int, int, bytes, int, int, int, int, int, int, int, int, bytes, int]:
    info = ctypes.create_string_buffer(_INFO_SIZE)
    struct.pack_into(
        "<IIQQ", info, 16, len(jited) if jited else 0, len(xlated) if xlated else 0, address(jited), address(xlated)
    )
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, _INFO_SIZE, address(info)))
    fields = _INFO.unpack_from(info)
    verified: int = struct.unpack_from("<I", info, 216)[0]
    return (*fields, verified)


def run_once(fd: int, data: bytes, *, context: bytes = b"", repeat: int = 0) -> tuple[int, int]:
    """BPF_PROG_TEST_RUN: (return value u32, nanoseconds a run). The kernel takes 14 to 3,712 bytes. Raises OSError."""
    packet = ctypes.create_string_buffer(data, max(len(data), 1))
    given = ctypes.create_string_buffer(context, max(len(context), 1))
    attr = struct.pack(
        "<IIIIQQIIIIQQ", fd, 0, len(data), 0, address(packet), 0, repeat, 0, len(context), 0,
        address(given) if context else 0, 0,
    )  # fmt: skip
    _, out = bpf(PROG_TEST_RUN, attr)
    return struct.unpack_from("<I", out, 4)[0], struct.unpack_from("<I", out, 36)[0]


# ---- maps


def create_map(
    kind: str, key_size: int, value_size: int, max_entries: int, *, flags: int = 0, name: str = "", inner_fd: int = 0,
    extra: int = 0, btf_fd: int = 0, key_type: int = 0, value_type: int = 0,
) -> int:  # fmt: skip
    """BPF_MAP_CREATE: the new file descriptor. kind: `BPF_MAP_TYPE_` name without the prefix. key_type, value_type:
    type ids in the BTF `btf_fd`. Raises OSError."""
    attr = bytearray(_ATTR_SIZE)
    struct.pack_into(
        "<IIIIIII16s", attr, 0, MAP_TYPES[kind], key_size, value_size, max_entries, flags, inner_fd, 0,
        name.encode()[:15],
    )  # fmt: skip
    struct.pack_into("<III", attr, 48, btf_fd, key_type, value_type)
    struct.pack_into("<Q", attr, 64, extra)
    return bpf(MAP_CREATE, attr)[0]


def map_element(
    command: int, fd: int, key: bytes | None, value: ctypes.Array[ctypes.c_char] | bytes | None, flags: int = 0
) -> None:
    """One of the MAP_*_ELEM commands, or MAP_GET_NEXT_KEY with the next key's buffer as value. Raises OSError.

    A ctypes buffer as value is filled by the kernel where the command reads.
    """
    key_buffer = ctypes.create_string_buffer(key, max(len(key), 1)) if key is not None else None
    if isinstance(value, bytes):
        value = ctypes.create_string_buffer(value, max(len(value), 1))
    bpf(command, struct.pack("<IIQQQ", fd, 0, address(key_buffer), address(value), flags))
