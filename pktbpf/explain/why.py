"""Why a packet was accepted or rejected: the two or three tests that decided, found by turning each branch round.

A test decided when the run would have had another verdict had it come out the other way, the packet being the same.
Where no single test did (a filter may say no for several reasons), it is the last branch after which the verdict stood.
Where the returned value was computed, it decided as well: it could have been 0, or not, after any branch.
"""

from __future__ import annotations

from dataclasses import dataclass

from pktbpf.engine.base import Fault
from pktbpf.explain.outcomes import classic_outcomes, extended_outcomes
from pktbpf.explain.steps import Step, Trace
from pktbpf.explain.values import Bytes, Condition, Const, Expr, Mixed, constant, describe, format_number

MOST = 3
_TRIES = 200  # branches that are turned round; a run of more is a loop, whose last ones tell


@dataclass(frozen=True, slots=True)
class Reason:
    """deciding: the steps that decided, in order, the return last where the returned value was computed. all: as many
    as were found. commit: the last step that could still have changed the verdict, None where the run had no choice."""

    deciding: tuple[Step, ...]
    all: tuple[Step, ...]
    commit: Step | None


def reason(trace: Trace) -> Reason:
    """The deciding tests of a run."""
    last = trace.steps[-1] if trace.steps else None
    if last is None or trace.omitted:
        return Reason((), (), None)
    if trace.ending or trace.fault is not Fault.NONE:
        return Reason((last,), (last,), last)
    turning = _without_implied(_turning(trace), trace)
    if trace.computed:
        return Reason((*_most_telling(turning), last), (*turning, last), last)
    commit = _commit(trace)
    found = turning or _without_implied([commit] if commit is not None else [], trace)
    return Reason(tuple(_most_telling(found)), tuple(found), (found[-1] if found else None) or last)


def _turning(trace: Trace) -> list[Step]:
    """Branches that, turned round, give another verdict."""
    branches = trace.branches()
    if len(branches) > _TRIES:
        branches = branches[-_TRIES:]
    out = []
    for step in branches:
        other = trace.rerun(step)
        if other is not None and (other != 0) != trace.accepted:
            out.append(step)
    return out


def _commit(trace: Trace) -> Step | None:
    """The last branch whose other direction may lead to another verdict at all, by the program's own graph."""
    other = not trace.accepted
    classic = trace.program.classic
    outcomes = classic_outcomes(classic) if classic is not None else []
    for step in reversed(trace.branches()):
        if classic is not None:
            insn = classic.insns[step.slot]
            if other in outcomes[step.slot + 1 + (insn.jf if step.taken else insn.jt)]:
                return step
            continue
        program = trace.programs[step.program]
        target = step.slot + 1 + (0 if step.taken else program.insns[step.slot].off)
        if other in extended_outcomes(program, target, step.before["r0"] & 0xFFFFFFFF != 0):
            return step
    return None


def _without_implied(steps: list[Step], trace: Trace) -> list[Step]:
    """Leave out "not 0x86dd" where "= 0x0800" says more, and repetitions."""
    known: dict[Expr, Condition] = {}
    for step in trace.branches():
        condition = step.condition
        if condition is not None and condition.positive and condition.operation != "JSET":
            known[condition.left] = condition
    out: list[Step] = []
    said: set[str] = set()
    for step in steps:
        condition = step.condition
        assert condition is not None
        text = condition.text(trace.dissection)
        implied = not condition.positive and condition.left in known and condition.operation in ("JEQ", "JNE")
        if not implied and text not in said and not constant(condition.left):
            out.append(step)
            said.add(text)
    return out or steps


def _most_telling(steps: list[Step]) -> list[Step]:
    """At most MOST steps in their order: what something is before what it is not; of equals the later ones."""
    if len(steps) <= MOST:
        return steps
    ranked = sorted(steps, key=lambda step: (_rank(step), step.number))
    chosen = ranked[-MOST:]
    return sorted(chosen, key=lambda step: step.number)


def _rank(step: Step) -> int:
    condition = step.condition
    assert condition is not None
    named = isinstance(condition.left, Bytes) and isinstance(condition.right, Const)
    return (2 if condition.positive else 0) + (1 if named else 0)


def sentence(trace: Trace, *, all_reasons: bool = False) -> str:
    """ "accepted because ether.type = 0x0800, ip.proto = 6, tcp.dstport = 80"."""
    found = reason(trace)
    verdict = "accepted" if trace.accepted else "rejected"
    chosen = found.all if all_reasons else found.deciding
    told = [_said(step, trace) for step in chosen if step.condition is not None]
    tests = ", ".join(told)
    if trace.computed:
        return f"{verdict} because {tests + ', and ' if tests else ''}the program returns {returned(trace)}"
    if tests:
        return f"{verdict} because {tests}"
    if trace.omitted:
        ran = len(trace.steps) + trace.omitted
        return f"{verdict} after {ran} instructions; what decided is not known, only {len(trace.steps)} were recorded"
    if trace.fault is Fault.INDETERMINATE:
        return f"rejected because it needs bytes that were not captured ({_where(trace)})"
    if trace.fault is Fault.UNDELIVERED:
        return f"rejected because a socket of profile {trace.profile.name} never gets this packet"
    if trace.fault is not Fault.NONE:
        return f"rejected because the run ended with the fault {trace.fault.name.lower()} at {_where(trace)}"
    if trace.ending:
        return f"rejected because {_where(trace)} loads outside of the packet of {trace.packet.length} bytes"
    tested = "whatever it tests" if trace.branches() else "without testing anything"
    return f"{verdict} because the program returns {_number(trace.verdict)} {tested}"


def returned(trace: Trace) -> str:
    """A computed verdict and what it was computed from: "ip.len - 20 = 40"."""
    assert trace.returned is not None
    name = describe(trace.returned, trace.dissection)
    if isinstance(trace.returned, Mixed):
        return f"{_number(trace.verdict)}, {name.removeprefix('a value ')}"
    return f"{name} = {format_number(trace.returned, trace.verdict, trace.dissection)}"


def _number(value: int) -> str:
    return str(value) if value < 0x10000 else f"{value:#x}"


def _said(step: Step, trace: Trace) -> str:
    """The condition in words; a failed equality names everything that the value was compared with in vain."""
    condition = step.condition
    assert condition is not None
    text = condition.text(trace.dissection)
    if not isinstance(condition.right, Const) or ", not " not in text:
        return text
    others = [
        one.condition.text(trace.dissection).rpartition(", not ")[2]
        for one in trace.branches()
        if one.condition is not None
        and one is not step
        and one.condition.left == condition.left
        and one.condition.operation in ("JEQ", "JNE")
        and ", not " in one.condition.text(trace.dissection)
    ]
    wanted = dict.fromkeys([*others, text.rpartition(", not ")[2]])
    return f"{text.rpartition(', not ')[0]}, not {' or '.join(wanted)}"


def _where(trace: Trace) -> str:
    step = trace.steps[-1]
    return f"instruction {step.slot}, {step.text},"


def deciding_line(trace: Trace) -> str:
    """The instruction that decided and what it found: "instruction 3 (jeq #0x6 jt 4 jf 15): ip.proto = 17, not 6"."""
    found = reason(trace)
    step = found.commit
    if step is None:
        return "no instruction ran"
    said = step.condition.text(trace.dissection) if step.condition is not None else step.note
    if trace.computed and step is trace.steps[-1]:
        said = f"returns {returned(trace)}"
    return f"instruction {step.slot} ({step.text})" + (f": {said}" if said else "")
