"""What was proven per instruction, for engines: which memory an access touches, where, and that it is in bounds."""

from __future__ import annotations

from dataclasses import dataclass

from pktbpf.verifier.state import BASE, CTX, FUNC, MAP_KEY, MAP_PTR, MAP_VALUE, MEM, SOCK_COMMON, STACK, Reg

_NAMES = {
    CTX: "ctx", STACK: "stack", MAP_VALUE: "map_value", MAP_KEY: "map_key", MEM: "mem", SOCK_COMMON: "sock",
    MAP_PTR: "map", FUNC: "func",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Access:
    """kind: the memory an instruction touches on every path ("ctx", "stack", "map_value", "map_key", "mem", "sock",
    "other", or "mixed"). offset: its constant offset there, None where it varies. size: bytes. in_bounds: always True
    for an accepted program."""

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
        kind = _NAMES.get(reg.kind & BASE, "other")
        place = None if reg.v[1] else offset + reg.v[2]
        known = self.accesses.get(index)
        if known is None:
            self.accesses[index] = Access(kind, place, size)
        elif known.kind != kind:
            self.accesses[index] = Access("mixed", None, size)
        elif known.offset != place:
            self.accesses[index] = Access(kind, None, size)
