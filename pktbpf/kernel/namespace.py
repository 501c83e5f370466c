"""A network namespace of one's own with a TAP device in it, for as long as the object lives.

The namespace is entered for single calls only (`entered`), by the calling thread alone, so the rest of the process
never notices it. Sockets and the device made inside keep it alive; when they are closed, nothing is left behind.
Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and /dev/net/tun, else `KernelUnavailable`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel.syscall import libc

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_SIOCSIFFLAGS, _SIOCSIFHWADDR, _SIOCSIFMTU, _SIOCGIFINDEX = 0x8914, 0x8924, 0x8922, 0x8933
_IFF_UP = 0x1
_ARPHRD_ETHER = 1

# Frames of up to so many bytes the device puts into one piece of memory; 4,031 was seen with pages of 4 KiB.
LINEAR = 3_500
MAC = bytes.fromhex("02b0f0000001")
NAME = "tap0"


def _check(result: int, what: str) -> None:
    if result:
        import ctypes

        raise KernelUnavailable(ctypes.get_errno(), what)


def _present() -> int:
    """A descriptor of the namespace that this thread is in."""
    try:
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelUnavailable(error.errno or 0, "/proc/thread-self/ns/net") from None


class Namespace:
    """A fresh network namespace. `close` lets go of it."""

    def __init__(self) -> None:
        library = libc()
        with contextlib.ExitStack() as undo:
            self._home = _present()
            undo.callback(os.close, self._home)
            _check(library.unshare(_CLONE_NEWNET), "a network namespace")
            try:
                self._own = _present()
                undo.callback(os.close, self._own)
            finally:
                _check(library.setns(self._home, _CLONE_NEWNET), "the way back to the own network namespace")
            undo.pop_all()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread inside the namespace; sockets made here belong to it for good."""
        _check(libc().setns(self._own, _CLONE_NEWNET), "the rig's network namespace")
        try:
            yield
        finally:
            _check(libc().setns(self._home, _CLONE_NEWNET), "the way back to the own network namespace")

    def configure(self, key: str, value: int) -> bool:
        """Set /proc/sys/net/KEY inside; False where the file system is read-only or the key does not exist."""
        with self.entered():
            try:
                Path("/proc/sys/net", key).write_text(f"{value}\n")
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Close the references; the kernel removes the namespace with its last socket and device."""
        os.close(self._own)
        os.close(self._home)


class Tap:
    """An Ethernet device in `space`: `inject` is a frame coming in. It goes away with `close`."""

    def __init__(self, space: Namespace, mtu: int = 65_521) -> None:
        with space.entered():
            try:
                self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                raise KernelUnavailable(error.errno or 0, "/dev/net/tun") from None
            try:
                self.ifindex = self._set_up(mtu)
            except OSError as error:
                os.close(self.fd)
                raise KernelUnavailable(error.errno or 0, "a TAP device") from None
        os.set_blocking(self.fd, False)

    def _set_up(self, mtu: int) -> int:
        name = NAME.encode()
        fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TAP | _IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFHWADDR, struct.pack("16sH6s16x", name, _ARPHRD_ETHER, MAC))
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name, mtu))
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, _IFF_UP))
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
            answer = fcntl.ioctl(control, _SIOCGIFINDEX, struct.pack("16s24x", name))
        index: int = struct.unpack_from("i", answer, 16)[0]
        return index

    def inject(self, frame: bytes | memoryview) -> bool:
        """Give `frame` to the kernel as received. False for one that the device refuses (under 14 bytes, too long).

        The kernel has handed it to all sockets by the time this returns.
        """
        try:
            os.write(self.fd, frame)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EMSGSIZE, errno.ENOMEM, errno.EFAULT):
                return False
            raise
        return True

    def drain(self) -> int:
        """Throw away what the kernel sent out through the device: number of frames."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 1 << 17):
                count += 1
        return count

    def close(self) -> None:
        """Remove the device."""
        os.close(self.fd)
