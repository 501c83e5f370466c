"""Programs that call helpers made into one image: the program, those it can tail-call, and the maps they name.

In: a Verified whose maps are live. Out: words with map and function references resolved and the programs behind every
program array appended, so that a tail call is a jump. When an array changes between runs the image is linked anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pktbpf.engine.control_helpers import FUNCTION
from pktbpf.engine.image import OP, Image, build
from pktbpf.errors import MapError
from pktbpf.hot import Words
from pktbpf.isa import extended
from pktbpf.maps import registry
from pktbpf.maps.face import Map
from pktbpf.maps.layout import AUX_AT, FIRST_NUMBER, MAP_POINTER
from pktbpf.program import Program, Verified

_NO_PROGRAM = -1


@dataclass
class Linked:
    """words: the linked image. entry: where the first program begins. bases: first slot of each linked program.
    admitted: these programs as they were verified. arrays: program array number -> (map, entry slots
    int64[max_entries]). calls: helper numbers of all programs. stack_depth, touches_cb: as in Image, of all programs.
    """

    verified: Verified
    fuse: bool
    words: Words = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    entry: int = 0
    bases: dict[int, int] = field(default_factory=dict)
    programs: list[Program] = field(default_factory=list)
    admitted: list[Verified] = field(default_factory=list)
    maps: dict[int, Map] = field(default_factory=dict)
    arrays: dict[int, tuple[Map, NDArray[np.int64]]] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    calls: frozenset[int] = frozenset()
    stack_depth: int = 0
    touches_cb: bool = False
    needs_meta: bool = False
    links: int = 0  # how often relink() has run
    # Functions whose address a program takes: number by program and slot, kept when programs come and go, and the slot
    # in `words` by number, -1 where the program is not linked. A pointer carries the number: a forged one cannot lead
    # into the middle of an instruction.
    numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    functions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _held: list[Program] = field(default_factory=list)  # keeps id() unique

    def table(self) -> Words:
        """The map table for one run, with the entry slots of program arrays filled in: only the maps of these programs
        and those inside them are there, so that no forged pointer reaches another's."""
        if any(found.version != self.versions[number] for number, (found, _) in self.arrays.items()):
            self.relink()
        everything = registry.table()
        regions = np.zeros_like(everything)
        inner = (target.number for found in self.maps.values() if found.outer for target in found.targets.values())
        mine = [*range(FIRST_NUMBER), *self.maps, *inner]
        regions[mine] = everything[mine]
        for number, (_, entries) in self.arrays.items():
            regions[number, AUX_AT] = entries.ctypes.data
        return regions

    def relink(self) -> None:
        """Append every program that can be reached now, and resolve all references."""
        self.programs, self.admitted, self.bases, self.maps, self.arrays = [], [], {}, {}, {}
        self.links += 1
        images: list[Image] = []
        pending = [self.verified]
        while pending:
            verified = pending.pop(0)
            program = verified.program
            if id(program) in self.bases:
                continue
            image = build(program, fuse=self.fuse, probes=verified.probes)
            self.bases[id(program)] = sum(len(i.words) for i in images)
            self.programs.append(program)
            self.admitted.append(verified)
            images.append(image)
            self._resolve(program, image.words, self.bases[id(program)])
            pending += [target for number in self._new_arrays(program) for target in self._targets(number)]
        self.functions = np.full(max(len(self.numbers), 1), -1, dtype=np.int64)
        for (program_id, slot), number in self.numbers.items():
            if program_id in self.bases:
                self.functions[number] = self.bases[program_id] + slot
        self.words = np.concatenate([i.words for i in images])
        self.entry = images[0].entry
        self.calls = frozenset().union(*(i.calls for i in images))
        self.touches_cb = any(i.touches_cb for i in images)
        self.stack_depth = max(i.stack_depth for i in images)
        self.needs_meta = any(i.needs_meta for i in images)
        for number, (found, entries) in self.arrays.items():
            entries[:] = _NO_PROGRAM
            for index, verified in found.programs().items():
                entries[index] = self.bases[id(verified.program)]
            self.versions[number] = found.version

    def _resolve(self, program: Program, words: Words, base: int) -> None:
        starts = {slot for slot, _, _ in extended.walk(program.insns)}
        for slot, insn, high in extended.walk(program.insns):
            if not extended.is_wide(insn) or not insn.src:
                continue
            if insn.src == 4:
                target = slot + 1 + insn.imm
                if target in starts:
                    number = self.numbers.setdefault((id(program), target), len(self.numbers))
                    self._held.append(program)
                    words[slot + 1] = FUNCTION | np.uint64(number)
                else:
                    words[slot] = OP["FAULT_JUMP"]
                continue
            found = self._map_of(program, slot)
            if insn.src in (2, 6):
                words[slot + 1] = np.uint64(found.number << 32 | high & 0xFFFFFFFF)
            else:
                words[slot + 1] = MAP_POINTER | np.uint64(found.number << 32)

    def _map_of(self, program: Program, slot: int) -> Map:
        found = program.maps.get(slot)
        if not isinstance(found, Map):
            raise MapError(9, f"instruction {slot} names a map that is not there")
        self.maps[found.number] = found
        return found

    def _new_arrays(self, program: Program) -> list[int]:
        fresh = []
        for found in program.maps.values():
            if isinstance(found, Map) and found.spec.kind == "PROG_ARRAY" and found.number not in self.arrays:
                self.arrays[found.number] = (found, np.full(found.spec.max_entries, _NO_PROGRAM, dtype=np.int64))
                fresh.append(found.number)
        return fresh

    def _targets(self, number: int) -> list[Verified]:
        found = self.arrays[number][0].programs().values()
        return [one if isinstance(one, Verified) else Verified(one) for one in found]


def link(verified: Verified, *, fuse: bool = True) -> Linked:
    """Link a program. Raises MapError (EBADF) for a reference without a live map."""
    linked = Linked(verified, fuse)
    linked.relink()
    return linked

