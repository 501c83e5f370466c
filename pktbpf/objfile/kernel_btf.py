"""The running kernel's own types as a value that costs nothing until somebody asks it for one.

`/sys/kernel/btf/vmlinux` has some hundred thousand types; reading it takes a third of a second, which only programs
that look into the kernel's structures are worth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pktbpf.objfile.btf import Btf, BtfType

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")


class LazyBtf:
    """BTF behind a function that reads it; see pktbpf.objfile.btf.Btf for the methods. Raises ObjectError when read."""

    def __init__(self, read: Callable[[], Btf]):
        self._read = read

    @functools.cached_property
    def btf(self) -> Btf:
        """The table itself."""
        return self._read()

    def type(self, number: int) -> BtfType:
        """The type with this id."""
        return self.btf.type(number)

    def by_name(self, name: str) -> tuple[int, ...]:
        """Ids of all types that have this name."""
        return self.btf.by_name(name)

    def __len__(self) -> int:
        return len(self.btf)


@functools.cache
def running_kernel() -> LazyBtf | None:
    """The types of the kernel that runs here, None where it does not show them."""
    return LazyBtf(_read_running) if KERNEL_BTF.exists() else None


def _read_running() -> Btf:
    from pktbpf.objfile.btf import Btf

    return Btf.parse(KERNEL_BTF.read_bytes(), str(KERNEL_BTF))
