"""Any instructions over plain memory, as conformance suites run them: r1 points to the memory, r2 is its length.

In: a Program and bytes. Out: all 64 bits of r0. Nothing is verified and there is no packet; what the program does
wrong is ConformanceError. The two registers come from instructions put in front, so the engines stay as they are; the
memory is a region of its own, or the value of an array map where the program calls helpers that need the map table.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pktbpf.abi.context import COLUMNS
from pktbpf.engine import NAMES, get, reference
from pktbpf.engine.base import Env, Fault, Skbs
from pktbpf.engine.memory import READ, WRITE
from pktbpf.engine.reference_extended import Machine
from pktbpf.engine.reference_packet import Faulted, Packet
from pktbpf.errors import ObjectError, PktbpfError, UsageError
from pktbpf.isa.extended import Insn
from pktbpf.isa.fields import PSEUDO_MAP_VALUE
from pktbpf.maps.face import Map
from pktbpf.program import Program, trust

_LD_IMM64, _MOV64_IMM = 0x18, 0xB7
_MEMORY_REGION = 3
_PREFIX = 3  # slots put in front of the program

REASONS = {
    Fault.OPCODE: "an instruction that does not exist",
    Fault.JUMP: "a jump out of the program",
    Fault.MEMORY: "an access outside its memory",
    Fault.BUDGET: "the instruction budget was used up",
    Fault.CALL: "a call of a helper that this engine does not have",
    Fault.DEPTH: "more than 8 frames",
    Fault.CONTEXT: "an access of the context that is not allowed",
}


def program_of_elf(raw: bytes) -> Program:
    """The program of an object: its socket filter, or the first function of any section (the runner writes .text or
    xdp). Raises ObjectError."""
    from pktbpf.objfile import load_object
    from pktbpf.objfile.btf_ext import BtfExt
    from pktbpf.objfile.elf import read_elf
    from pktbpf.objfile.externs import Externs
    from pktbpf.objfile.link import Linker

    found = load_object(raw)
    if found.programs:
        return next(iter(found.programs.values()))
    linker = Linker(read_elf(raw, "object"), found.maps, Externs("object", None, {}), None, None, BtfExt())
    if not linker.functions:
        raise ObjectError("no function in any executable section", path="object")
    return linker.link(min(linker.functions, key=lambda f: (f.section, f.start)), found.license)


class ConformanceError(PktbpfError):
    """The program did not come to its end."""


def run_memory(program: Program, memory: bytes, engine: str = "interpreter", *, budget: int = 1 << 24) -> int:
    """r0 (u64) after a run with r1 pointing to a copy of `memory` and r2 its length; both are 0 without memory.

    budget: instructions before the run is cut off. Raises ConformanceError, UsageError for an unknown engine.
    """
    if engine not in NAMES:
        raise UsageError(f"unknown engine {engine!r}; there are {', '.join(NAMES)}")
    env = Env(budget=budget)
    if engine == "reference":
        return _reference(program, memory, env)
    return _compiled(program, memory, engine, env)


def _prefixed(program: Program, length: int, *, region: bool = True) -> Program:
    """The program behind instructions that set r1 and r2; without `region`, slot 0 still has to name a map."""
    base = _MEMORY_REGION if length and region else 0
    insns = (Insn(_LD_IMM64, 1), Insn(0, imm=base), Insn(_MOV64_IMM, 2, imm=length), *program.insns)
    return replace(program, insns=insns, maps={slot + _PREFIX: used for slot, used in program.maps.items()})


def _compiled(program: Program, memory: bytes, engine: str, env: Env) -> int:
    runner: Any = get(engine).prepare(trust(_prefixed(program, len(memory))), env)
    area = np.frombuffer(bytearray(memory), dtype=np.uint8)
    if memory and runner.groups.world:  # the loop takes its regions from the table of maps
        runner = get(engine).prepare(trust(_with_map(program, memory)), env)
    elif memory:
        regions = np.zeros((_MEMORY_REGION + 1, runner.work.regions.shape[1]), dtype=np.uint64)
        regions[:_MEMORY_REGION] = runner.work.regions[:_MEMORY_REGION]
        regions[_MEMORY_REGION, :3] = (area.ctypes.data, len(area), READ | WRITE)
        runner.work.regions = regions
    outcome = runner.run(_one_packet())
    _check(Fault(int(outcome.fault[0])))
    return int(runner.work.regs[0])


def _with_map(program: Program, memory: bytes) -> Program:
    """The memory as the value of an array map, addressed by the first instruction."""
    area = Map("ARRAY", key_size=4, value_size=len(memory), max_entries=1)
    area.update(bytes(4), memory)
    whole = _prefixed(program, len(memory), region=False)
    insns = (whole.insns[0]._replace(src=PSEUDO_MAP_VALUE), *whole.insns[1:])
    return replace(whole, insns=insns, maps={**whole.maps, 0: area})


def _reference(program: Program, memory: bytes, env: Env) -> int:
    whole = _prefixed(program, len(memory))
    runner = reference.ENGINE.prepare(trust(whole), env)
    packet = Packet.of(_one_packet(), 0)
    machine = _MemoryMachine(packet, runner.machine(packet).helper, runner.env.budget, memory=bytearray(memory))
    try:
        machine.run(whole.insns)
    except Faulted as stop:
        _check(stop.fault)
    return machine.regs[0]


@dataclass(slots=True)
class _MemoryMachine(Machine):
    """The plain machine with one region more."""

    memory: bytearray = field(default_factory=bytearray)

    def _place(self, address: int, size: int, need: int = 1) -> tuple[bytearray | memoryview, int]:
        region, offset = address >> 32, address & 0xFFFF_FFFF
        if region != _MEMORY_REGION:
            return Machine._place(self, address, size, need)
        if offset + size > len(self.memory):
            raise Faulted(Fault.MEMORY)
        return self.memory, offset


def _check(fault: Fault) -> None:
    if fault is not Fault.NONE:
        raise ConformanceError(f"the program was stopped: {REASONS.get(fault, fault.name.lower())}")


def _one_packet() -> Skbs:
    """An empty packet: programs run once per packet."""
    zero = np.zeros(1, dtype=np.int64)
    meta = np.zeros((1, len(COLUMNS)), dtype=np.int64)
    return Skbs(np.zeros(1, dtype=np.uint8), zero, zero, zero, zero, meta, np.ones(1, dtype=np.bool_))
