"""What programs of the reference engine reach beyond registers and packet: maps, helpers, callbacks, timers, traces.

`World.call` answers one helper call with r0, or with a generator that yields the arguments of callbacks and takes their
answers. Maps are the same Map objects as the interpreter's, reached through their compiled element operations.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pktbpf.abi.helpers import NAMES
from pktbpf.abi.limits import MAX_TAIL_CALLS
from pktbpf.engine.base import Env, Fault
from pktbpf.engine.reference_packet import Faulted
from pktbpf.engine.trace import TraceRecord
from pktbpf.maps import layout, walk
from pktbpf.maps.face import Map
from pktbpf.program import Program

if TYPE_CHECKING:
    from pktbpf.engine.reference_extended import Machine

U32, U64 = (1 << 32) - 1, (1 << 64) - 1
MAP_POINTER, FUNCTION = 1 << 62, 1 << 61
SCRATCH, PACKET, FIRST_MAP = 3, 4, layout.FIRST_NUMBER
READ, WRITE = 1, 2
EINVAL, E2BIG, EFAULT = -22, -7, -14
LOOP_LIMIT, MOST_SAMPLES = 1 << 23, 128 * 1024
Walk = Generator[tuple[int, ...], int, int]
Answer = int | Walk
_WALKED = frozenset({"HASH", "ARRAY", "PERCPU_HASH", "PERCPU_ARRAY", "LRU_HASH", "LRU_PERCPU_HASH"})


@dataclass(slots=True)
class Timer:
    """A timer in a map value. callback: program and slot, None before one is set. expiry: None when it is not armed."""

    pointer: int
    clock: int
    callback: tuple[Program, int] | None = None
    expiry: int | None = None
    start: int = 0


@dataclass(slots=True)
class World:
    """State of one runner from packet to packet. random: the 32-bit generator."""

    env: Env
    random: Callable[[], int]
    traces: list[TraceRecord] = field(default_factory=list)
    timers: dict[int, Timer] = field(default_factory=dict)
    running: Timer | None = None
    starts: int = 0
    maps: dict[int, Map] = field(default_factory=dict)
    words: dict[int, bytes] = field(default_factory=dict)  # of bit iterators, by the address of the iterator

    # Loads that give 0 where they lead nowhere, by program.
    probes: dict[int, frozenset[int]] = field(default_factory=dict)

    # --- maps and memory

    def learn(self, program: Program) -> None:
        """Know the maps of a program, and those inside them."""
        for found in program.maps.values():
            if isinstance(found, Map):
                self.maps[found.number] = found
                if found.outer:
                    self.maps |= {inner.number: inner for inner in found.targets.values()}

    def immediate(self, program: Program, slot: int, kind: int, low: int, high: int) -> int:
        """Value of a 64-bit immediate that names a map or a function."""
        if kind == 4:
            return FUNCTION | slot + 1 + low & U32
        found = program.maps.get(slot)
        if not isinstance(found, Map):
            raise Faulted(Fault.OPCODE)
        self.learn(program)
        return found.number << 32 | (high & U32) if kind in (2, 6) else MAP_POINTER | found.number << 32

    def memory(self, address: int, size: int, need: int) -> memoryview | None:
        """Bytes of a map's values that a program may touch, None for anything else."""
        found = self.maps.get(address >> 32)
        offset = address & U32
        if found is None or offset + size > int(found.row[layout.VALUES_SIZE]):
            return None
        if int(found.row[layout.RIGHTS]) & need != need:
            return None
        at = int(found.row[layout.VALUES_AT]) + offset
        return memoryview((ctypes.c_ubyte * size).from_address(at)).cast("B") if size else memoryview(b"")

    def map_of(self, pointer: int, *kinds: str) -> Map:
        """The map that a map pointer names; faults for anything else, or another kind."""
        found = self.maps.get((pointer ^ MAP_POINTER) >> 32)
        if found is None or pointer & U32 or (kinds and found.kind not in kinds):
            raise Faulted(Fault.CALL)
        return found

    def copy_of(self, pointer: int, cpu: int) -> int:
        """Pointer to a processor's copy of a variable of the kernel, null for a processor that there is not."""
        found = self.map_of(pointer, "PERCPU_ARRAY")
        known = cpu < int(found.row[layout.CPUS])
        return found.number << 32 | cpu * int(found.row[layout.STRIDE]) if known else 0

    # --- calls

    def call(self, machine: Machine, number: int) -> Answer:
        """r0 of a helper call by the machine, or what walks through its callbacks. Raises Faulted."""
        from pktbpf.engine import reference_helpers

        name = NAMES[number] if 0 <= number < len(NAMES) else "unspec"
        body = reference_helpers.BODIES.get(name)
        if body is None:
            raise Faulted(Fault.CALL)
        if name in ("loop", "for_each_map_elem", "user_ringbuf_drain") and len(machine.frames) >= machine.limit:
            raise Faulted(Fault.DEPTH)
        return body(self, machine, *machine.regs[1:6])

    def call_kernel(self, machine: Machine, name: str) -> int:
        """r0 of a call of a kernel function. Raises Faulted."""
        from pktbpf.engine import reference_kernel

        body = reference_kernel.BODIES.get(name)
        if body is None:
            raise Faulted(Fault.CALL)
        return body(self, machine, *machine.regs[1:6])

    def function(self, machine: Machine, pointer: int) -> int:
        """Slot of a function pointer of the running program."""
        if pointer >> 32 != FUNCTION >> 32 or pointer & U32 >= len(machine.insns):
            raise Faulted(Fault.CALL)
        return pointer & U32

    def tail_call(self, machine: Machine, array: int, index: int) -> None:
        """Go on in another program, or fall through."""
        found = self.map_of(array, "PROG_ARRAY")
        target = found.programs().get(index & U32)
        if target is None or machine.tail_calls >= MAX_TAIL_CALLS:
            return
        machine.tail_calls += 1
        program = getattr(target, "program", target)
        self.probes[id(program)] = getattr(target, "probes", frozenset())
        machine.enter_program(program)

    # --- walks through callbacks

    def loop(self, count: int, context: int) -> Walk:
        """bpf_loop."""
        for index in range(count):
            if (yield index, context):
                return index + 1
        return count

    def each(self, machine: Machine, found: Map, context: int, cpu: int) -> Walk:
        """bpf_for_each_map_elem, in the order of the compiled walk."""
        if found.kind not in _WALKED:
            raise Faulted(Fault.CALL)
        offset = machine.scratch_offset()
        cursor, seen = np.uint64(0), 0
        key = ctypes.create_string_buffer(found.key_size + 8)
        at = np.uint64(ctypes.addressof(key))
        while True:
            cursor, value = walk.following(found.row, np.uint64(found.number), np.uint64(cursor), at, np.uint64(cpu))
            if not int(value):
                return seen
            machine.scratch[offset : offset + found.key_size] = key.raw[: found.key_size]
            seen += 1
            arguments = (MAP_POINTER | found.number << 32, SCRATCH << 32 | offset, int(value), context)
            if (yield arguments):
                return seen

    def drain(self, machine: Machine, ring: Map, context: int) -> Walk:
        """bpf_user_ringbuf_drain."""
        state, size = ring.storage.blocks[0], ring.max_entries
        offset = machine.scratch_offset()
        samples = discarded = 0
        stop = 0
        while samples < MOST_SAMPLES and not stop:
            at, end = int(state[0]), int(state[1])
            if at >= end:
                break
            mark = self.word(ring, at & (size - 1))
            length = mark & 0x3FFFFFFF
            whole = (length + 15) // 8 * 8
            if end % 8 or whole > end - at:
                return EINVAL
            if whole > size or length >= 1 << 24:
                return E2BIG
            if mark >> 30 & 1:
                state[0] = np.uint64(at + whole)
                discarded += 1
                samples += 1
                continue
            if mark >> 31:
                break
            data = ring.number << 32 | (at & (size - 1)) + 8
            machine.scratch[offset : offset + 16] = struct.pack("<QII", data, length | 1 << 28, 0)
            stop = yield SCRATCH << 32 | offset, context
            state[0] = np.uint64(at + whole)
            samples += 1
        return samples - discarded

    def word(self, found: Map, offset: int) -> int:
        """32 bits of a map's memory."""
        return ctypes.c_uint32.from_address(int(found.row[layout.VALUES_AT]) + offset).value

    # --- timers

    def expired(self, now: int) -> Iterator[tuple[Timer, tuple[Program, int]]]:
        """Timers that fire before a packet of time `now`, in order; one that is started again meanwhile as well."""
        while True:
            due = [t for t in self.timers.values() if t.expiry is not None and t.expiry <= now]
            if not due:
                return
            timer = min(due, key=lambda t: (t.expiry, t.start))
            when, timer.expiry = timer.expiry, None
            field_ = self.memory(timer.pointer, 8, READ | WRITE)
            if field_ is None or self.timers.get(int.from_bytes(field_, "little")) is not timer or not timer.callback:
                self.timers = {number: t for number, t in self.timers.items() if t is not timer}
                continue
            self.running = timer
            yield Timer(timer.pointer, timer.clock, expiry=when), timer.callback
            self.running = None

    def timer_of(self, pointer: int) -> Timer | None:
        """The initialised timer at a pointer."""
        field_ = self.memory(pointer, 16, READ | WRITE)
        if field_ is None:
            raise Faulted(Fault.MEMORY)
        found = self.timers.get(int.from_bytes(field_[:8], "little"))
        return found if found is not None and found.pointer == pointer else None
