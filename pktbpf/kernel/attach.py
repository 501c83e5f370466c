"""Socket options that put programs on sockets: classic and extended attach, detach, read back, lock.

Refusals are return values (the errno, 0 for success), because they are what the kernel has to say about a program;
only a kernel that cannot be asked raises, as `KernelUnavailable`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys

from pktbpf.errors import KernelUnavailable

SO_ATTACH_FILTER = 26  # SO_GET_FILTER has the same number
SO_DETACH_FILTER = 27
SO_LOCK_FILTER = 44
SO_ATTACH_BPF = 50


def attach_classic(sock: socket.socket, code: bytes) -> int:
    """SO_ATTACH_FILTER of `struct sock_filter[]`: 0 or the errno. A refused program leaves the old one in place."""
    if len(code) % 8:
        raise ValueError(f"{len(code)} bytes are not a whole number of 8-byte instructions")
    if len(code) // 8 > 0xFFFF:
        raise ValueError("struct sock_fprog counts at most 65,535 instructions")
    buffer = ctypes.create_string_buffer(code, max(len(code), 1))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    return _set(sock, SO_ATTACH_FILTER, program)


def attach_extended(sock: socket.socket, program_fd: int) -> int:
    """SO_ATTACH_BPF of a loaded socket filter: 0 or the errno."""
    return _set(sock, SO_ATTACH_BPF, struct.pack("=i", program_fd))


def detach(sock: socket.socket) -> int:
    """SO_DETACH_FILTER: 0 or the errno (ENOENT without a filter, EPERM when locked)."""
    return _set(sock, SO_DETACH_FILTER, struct.pack("=i", 0))


def lock(sock: socket.socket) -> int:
    """SO_LOCK_FILTER: no attach or detach from now on; 0 or the errno."""
    return _set(sock, SO_LOCK_FILTER, struct.pack("=i", 1))


def read_back(sock: socket.socket) -> bytes:
    """SO_GET_FILTER: the attached classic program as `struct sock_filter[]`, empty without one. Raises OSError (EACCES
    on an extended program)."""
    from pktbpf.kernel.syscall import libc

    getsockopt = libc().getsockopt
    # The length of this option counts instructions, not bytes.
    for count in (0, 4096):
        length = ctypes.c_uint32(count)
        buffer = ctypes.create_string_buffer(max(count * 8, 1))
        if getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_ATTACH_FILTER, buffer, ctypes.byref(length)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if not length.value:
            return b""
    return buffer.raw[: length.value * 8]


def _set(sock: socket.socket, option: int, value: bytes) -> int:
    if sys.platform != "linux":
        raise KernelUnavailable(errno.ENOSYS, "socket filters")
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError as error:
        return error.errno or errno.EIO
    return 0
