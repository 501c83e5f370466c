"""What was proven per instruction, for engines: which memory an access touches, where, and that it is in bounds."""

from __future__ import annotations

from typing import NamedTuple

from pktbpf.verifier.state import (
    BASE,
    BTF,
    CTX,
    FUNC,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MEM,
    SOCK_COMMON,
    STACK,
    UNTRUSTED,
    Reg,
)

_NAMES = {
    CTX: "ctx", STACK: "stack", MAP_VALUE: "map_value", MAP_KEY: "map_key", MEM: "mem", SOCK_COMMON: "sock",
    MAP_PTR: "map", FUNC: "func", BTF: "kernel",
}  # fmt: skip


class Access(NamedTuple):
    """kind: the memory an instruction touches on every path ("ctx", "stack", "map_value", "map_key", "mem", "sock",
    "other", or "mixed"), or what some path touches: "kernel" memory, a read of which gives 0 where the pointer leads
    nowhere, or the structure of a "map". offset: its constant offset there, None where it varies. size: bytes.
    in_bounds: always True for an accepted program."""

    kind: str
    offset: int | None
    size: int
    in_bounds: bool = True


class Facts:
    """Accesses by slot, merged over all paths."""

    def __init__(self) -> None:
        self.accesses: dict[int, Access] = {}

    def access(self, index: int, reg: Reg, offset: int, size: int) -> None:
        """One path reaches instruction `index` with pointer `reg`."""
        kind = "kernel" if reg.kind & UNTRUSTED else _NAMES.get(reg.kind & BASE, "other")
        place = None if reg.v[1] else offset + reg.v[2]
        known = self.accesses.get(index)
        if known is None:
            self.accesses[index] = Access(kind, place, size)
        elif known.kind != kind:
            named = next((one for one in ("kernel", "map") if one in (kind, known.kind)), "mixed")
            self.accesses[index] = Access(named, None, size)
        elif known.offset != place:
            self.accesses[index] = Access(kind, None, size)
