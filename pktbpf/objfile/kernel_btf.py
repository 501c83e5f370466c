"""The running kernel's own types as a value that costs nothing until somebody asks it for one.

`/sys/kernel/btf/vmlinux` has some hundred thousand types; reading it takes a third of a second, which only programs
that look into the kernel's structures are worth.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pktbpf.objfile.btf import Btf, BtfType

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
KALLSYMS = Path("/proc/kallsyms")


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


class KernelSymbols:
    """Names whose addresses the running kernel can look up (/proc/kallsyms), read when first asked for one.

    Without CONFIG_KALLSYMS_ALL these are functions only, and no variable can be used by a program.
    """

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """All of them."""
        with KALLSYMS.open() as lines:
            return frozenset(line.split()[2] for line in lines)

    def __contains__(self, name: object) -> bool:
        return name in self.names


@functools.cache
def running_symbols() -> KernelSymbols | None:
    """What the kernel that runs here knows addresses of, None where it does not say."""
    return KernelSymbols() if KALLSYMS.exists() else None


def given(source: Any) -> Any:
    """What stands for a kernel's types: bytes of BTF, the path of a file with it (raw or ELF), or anything else as it
    is."""
    if isinstance(source, bytes):
        return LazyBtf(lambda: _read(source))
    return _of_file(os.fspath(source)) if isinstance(source, str | os.PathLike) else source


@functools.lru_cache(maxsize=4)
def _of_file(path: str) -> LazyBtf:
    return LazyBtf(lambda: _read(path))


def _read(source: str | bytes) -> Btf:
    from pktbpf.objfile.load import target_btf

    return target_btf(source)


@functools.cache
def running_kernel() -> LazyBtf | None:
    """The types of the kernel that runs here, None where it does not show them."""
    return LazyBtf(_read_running) if KERNEL_BTF.exists() else None


def _read_running() -> Btf:
    from pktbpf.objfile.btf import Btf

    return Btf.parse(KERNEL_BTF.read_bytes(), str(KERNEL_BTF))
