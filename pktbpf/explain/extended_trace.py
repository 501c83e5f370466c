"""Traces of extended programs, from the compiled core run to every instruction in turn (pktbpf.explain.core)."""

from __future__ import annotations

from collections.abc import Mapping

from pktbpf.asm import extended_print
from pktbpf.engine.base import Fault
from pktbpf.explain.answers import call_name
from pktbpf.explain.core import Core, Stop
from pktbpf.explain.origins import LOOKUP, Origins
from pktbpf.explain.steps import Step, Trace
from pktbpf.isa.extended import Insn, Kind, Row, is_wide
from pktbpf.maps import registry as _registry
from pktbpf.program import Program

LIMIT = 5000
_U32 = 0xFFFFFFFF
_STACK_TOP = 512


def trace_extended(trace: Trace, core: Core, limit: int = LIMIT) -> Trace:
    """Fill in the trace of an extended program; instructions past the first `limit` are counted only."""
    names = {found.number: name for name, found in core.maps().items()}
    trace.programs, trace.maps = list(core.linked.programs), core.maps()
    trace.show = lambda name, value: show(value, names)
    whole = core.whole()
    trace.verdict, trace.fault = whole.verdict, whole.fault
    total = int(whole.counts[:, 0].sum())
    maps = {one.number: (name, one.value_type) for name, one in core.maps().items()}
    origins = Origins(trace.packet, trace.dissection, maps)
    stop = core.after(0)
    for number in range(1, min(total, limit) + 1):
        following = core.after(number)
        trace.steps.append(_step(trace, core, origins, number, stop, following, names))
        stop = following
    core.restore()
    trace.omitted = max(total - limit, 0)
    if not trace.accepted and trace.fault is Fault.NONE and trace.steps and not trace.omitted:
        last = trace.steps[-1]
        if last.text.startswith(("r0 = *(u8 *)skb", "r0 = *(u16 *)skb", "r0 = *(u32 *)skb")):
            trace.ending = "a packet load outside of the packet ends the program with 0"
    if trace.fault is Fault.NONE and not trace.ending and not trace.omitted:
        trace.returned = origins.regs[0]
    trace.world = core.world
    slots = _branch_slots(trace, core)
    trace.rerun = lambda step: _rerun(core, slots, step)
    return trace


def _step(
    trace: Trace, core: Core, origins: Origins, number: int, stop: Stop, following: Stop, names: Mapping[int, str]
) -> Step:
    index, program, slot = core.owner(stop.slot)
    insn = program.insns[slot] if slot < len(program.insns) else Insn(0x95)
    row = insn.row
    before = dict(zip(REGISTERS, stop.registers, strict=True))
    after = dict(zip(REGISTERS, following.registers, strict=True))
    text = insn_text(program, slot)
    if row is None:
        return Step(number, slot, text, before, after, index, note="no such instruction", stack=stop.stack)
    reads = origins.reads(insn, row, stop.registers)
    condition = origins.condition(insn, row, stop.registers)
    origins.apply(insn, row, stop.registers, reads, following.registers, program.kfuncs.get(slot, ""))
    taken = condition.holds if condition is not None else None
    target = None
    if row.kind is Kind.BRANCH:
        target = slot + 1 + (insn.off if taken else 0)
    return Step(
        number, slot, text, before, after, index, tuple(reads), condition, taken, target,
        _note(insn, row, stop, following, names, core), program.lines.get(slot, ""), stop.stack,
    )  # fmt: skip


REGISTERS = tuple(f"r{number}" for number in range(11))


def insn_text(program: Program, slot: int) -> str:
    """One instruction in the kernel's wording."""
    if slot >= len(program.insns):
        return "end of the program"
    insn = program.insns[slot]
    second = program.insns[slot + 1] if is_wide(insn) and slot + 1 < len(program.insns) else None
    names = extended_print.map_names({s: getattr(m, "spec", m) for s, m in program.maps.items()})
    target = extended_print.targets_of(program).get(slot)
    return extended_print.format_insn(
        insn, second, map_name=names.get(slot), target=f"insn {target}" if target is not None else None,
        kfunc=program.kfuncs.get(slot),
    )  # fmt: skip


def _note(
    insn: Insn, row: Row, stop: Stop, following: Stop, names: Mapping[int, str], core: Core
) -> str:
    if row.kind is Kind.EXIT and following.ended:
        return f"returns {stop.registers[0] & _U32:#x}"
    if row.kind in (Kind.STORE, Kind.ATOMIC):
        address = stop.registers[insn.dst] + insn.off
        region = address >> 32
        return f"writes {names[region]}+{address & _U32}" if region in names else ""
    if row.name != "CALL_HELPER":
        return ""
    said = [call_name(insn.imm)]
    number = stop.registers[1] >> 32 & 0xFFFFFF
    if number in names and stop.registers[1] >> 62:
        said.append(names[number])
        said += _key(stop, int(_registry.table()[number][4]))
    if insn.imm == LOOKUP:
        said.append("found" if following.registers[0] else "not found")
    if core.owner(following.slot)[0] != core.owner(stop.slot)[0]:
        said.append(f"goes on in {core.owner(following.slot)[1].name or 'another program'}")
    return ", ".join(said)


def _key(stop: Stop, size: int) -> list[str]:
    """The key that a map helper is given, where it lies on the stack."""
    region, offset = stop.registers[2] >> 32, stop.registers[2] & _U32
    return [f"key {stop.stack[offset : offset + size].hex(' ')}"] if region == 1 and size else []


def show(value: int, names: Mapping[int, str]) -> str:
    """A register's value: pointers by what they point to."""
    region, offset = value >> 32, value & _U32
    if value >> 62 == 1 and region & 0xFFFFFF in names:
        return f"map {names[region & 0xFFFFFF]}"
    if region == 1:
        distance = offset - -(-max(offset, 1) // _STACK_TOP) * _STACK_TOP
        return f"fp{distance:+d}" if distance else "fp"
    if region == 2:
        return f"ctx+{offset}" if offset else "ctx"
    if region in names:
        return f"{names[region]}+{offset}" if offset else names[region]
    return f"{value:#x}" if value > 9 else str(value)


def _branch_slots(trace: Trace, core: Core) -> dict[int, int]:
    """Step number -> slot of the linked image, for branches that ran once: those can be turned round exactly."""
    seen: dict[tuple[int, int], list[int]] = {}
    for step in trace.branches():
        seen.setdefault((step.program, step.slot), []).append(step.number)
    out = {}
    for (program, slot), numbers in seen.items():
        if len(numbers) == 1 and not trace.omitted:
            out[numbers[0]] = core.linked.bases[id(core.linked.programs[program])] + slot
    return out


def _rerun(core: Core, slots: Mapping[int, int], step: Step) -> int | None:
    slot = slots.get(step.number)
    if slot is None:
        return None
    try:
        return core.turned(slot, not step.taken)
    finally:
        core.restore()
