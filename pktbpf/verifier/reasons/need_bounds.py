"""Needs of bounds: an access inside its memory, and the sizes of memory that helpers get.

Rules as in `need_memory`. What is to be done: test a number, where it is added to an address or passed as a size.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pktbpf.isa.extended import Insn
from pktbpf.verifier.reasons import words
from pktbpf.verifier.reasons.compares import tests_of
from pktbpf.verifier.reasons.origin import same_value
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene
from pktbpf.verifier.state import BASE, MAP_KEY, MAP_VALUE, MEM, SCALAR, STACK, Reg

if TYPE_CHECKING:
    from pktbpf.verifier.reasons.origin import Definition

_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}


class Area(NamedTuple):
    """An access. offset: first byte from the register on. size: bytes of it. end: bytes of the memory behind the
    register's base, where offsets count from; name: that memory in words."""

    offset: int
    size: int
    end: int
    name: str

    @property
    def reach(self) -> range:
        """The bytes of the access, from the register on."""
        return range(self.offset, self.offset + self.size)


def is_access(insn: Insn) -> bool:
    """Whether it is a load or a store, not a call or an addition."""
    return insn.code & 7 in (1, 2, 3)


def area(scene: Scene, number: int) -> Area | None:
    """What the refusing instruction touches from a register on; None where that memory has no known size."""
    reg, insn = scene.regs[number], scene.insn
    base = reg.kind & BASE
    if base == MAP_VALUE:
        end, name = reg.obj.value_size, f"of a value of {words.map_words(reg.obj)}"
    elif base == MAP_KEY:
        end, name = reg.obj.key_size, f"of a key of {words.map_words(reg.obj)}"
    elif base == MEM:
        end, name = reg.obj, "of that memory"
    else:
        return None
    offset, size = (insn.off, _SIZES[insn.code & 0x18]) if is_access(insn) else (0, _helper_size(scene, number))
    return Area(offset, size, end, name)


def _helper_size(scene: Scene, number: int) -> int:
    """Bytes that a helper (or, unprivileged, an addition) reaches from a register on."""
    told = next((found for line in scene.lines if (found := re.search(r" size=(\d+)$", line))), None)
    if told is not None:
        return int(told[1])
    return scene.regs[number + 1].v[5] if has_size(scene, number) else 1


class Addition(NamedTuple):
    """Where a number in a register was added to a pointer. base, amount: both before it, None where they are not
    known."""

    made: Definition
    register: int
    base: Reg | None
    amount: Reg | None

    def limits(self, pointer: Reg, reach: range, memory: range) -> tuple[int, int]:
        """Smallest and largest amount with which an access stays inside. pointer: what came of the addition, and of
        constants added later. reach: its bytes, from the pointer on. memory: offsets that it may touch."""
        base = self.base if self.base is not None else pointer
        added = 0 if self.amount is None or self.amount.v[1] else words.exact(self.amount)
        constant = pointer.off - (added if self.base is not None else 0)
        low, high = (base.v[2], base.v[5]) if self.base is not None else (0, 0)
        return memory.start - reach.start - constant - low, memory.stop - reach.stop - constant - high


def addition(scene: Scene, number: int, *, varies: bool = True) -> Addition | None:
    """The last addition of a register on the way to a pointer; `varies`: of one with an unknown value."""
    made = scene.definition(number)
    while made is not None:
        made = same_value(made)[-1]
        if made.how != "arithmetic" or made.step < 0:
            return None
        insn = scene.insns[made.index]
        if insn.code == 0x0F:
            dst, src = scene.before(made.step, insn.dst), scene.before(made.step, insn.src)
            if dst is not None and dst.kind == SCALAR:
                return Addition(made, insn.dst, src, dst)
            if src is None or src.v[1] or not varies:
                return Addition(made, insn.src, dst, src)
        made = made.sources[0] if made.sources else None
    return None


def out_of_bounds(scene: Scene, match: re.Match[str]) -> Need | None:
    """An address may lie outside its memory."""
    number = _named(scene)
    if number is None or number >= len(scene.regs):
        return None
    if scene.insn.code & 7 in (4, 7):
        return _sum_out_of_bounds(scene, number)
    found = area(scene, number)
    if found is None:
        return None
    reg = scene.regs[number]
    low, high = words.span(reg)
    reach = words.places(found.offset, found.size)
    requires = f"R{number}{reach} inside the {words.count(found.end)} {found.name}"
    has = f"R{number} at offset {_span_words(low, high)}"
    data = {
        "offset": found.offset, "size": found.size, "memory": found.end, "low": low, "high": high,
    }  # fmt: skip
    remedy = _bound(scene, number, found) if reg.v[1] else _shift(scene, number, found, low)
    return Need("bounds", requires, has, remedy, (number,), data)


def _sum_out_of_bounds(scene: Scene, number: int) -> Need | None:
    """Without CAP_PERFMON the sum is checked where it is made, not where it is used."""
    after, insn = scene.after(number), scene.insn
    if after.kind != MAP_VALUE:
        return None
    low, high = words.span(after)
    requires = f"R{number} to stay inside the {words.count(after.obj.value_size)} of a value of "
    requires += f"{words.map_words(after.obj)} after `{scene.text(scene.index)}` (without CAP_PERFMON)"
    data = {"offset": 0, "size": 1, "memory": after.obj.value_size, "low": low, "high": high}
    amount = insn.src if scene.regs[insn.dst].kind != SCALAR else insn.dst
    registers: tuple[int, ...] = (number,)
    if insn.code & 8 and scene.regs[amount].kind == SCALAR:
        pointer = scene.regs[insn.dst if amount == insn.src else insn.src]
        limit = after.obj.value_size - 1 - pointer.off - pointer.v[5]
        remedy = bound_remedy(scene, amount, 0, max(limit, 0), scene.index, None)
        registers = (amount, number) if amount != number else (number, insn.src)
    else:
        remedy = Remedy("offset", "put the offset into the load or store, or use a smaller one", scene.index, data)
    return Need("bounds", requires, f"offset {_span_words(low, high)}", remedy, registers, data)


def _span_words(low: int, high: int | None) -> str:
    if low == high:
        return str(low)
    return f"{words.number(low)}..{words.number(high)}" if high is not None else f"{words.number(low)} or more"


def _named(scene: Scene) -> int | None:
    """The register that one of the lines begins with."""
    return next((int(found[1]) for line in scene.lines if (found := re.match(r"R(\d+) ", line))), None)


def _shift(scene: Scene, number: int, found: Area, low: int) -> Remedy:
    """A constant offset or size that is wrong: how far."""
    first = low + found.offset
    data = {"first": first, "size": found.size, "memory": found.end}
    added = addition(scene, number, varies=False)
    remedy = index_remedy(scene, number, added, found.reach, range(found.end)) if added is not None else None
    if remedy is not None:
        return remedy
    if first < 0:
        text = f"raise the offset by {-first}: the access begins {words.count(-first)} before the memory"
    elif not is_access(scene.insn) and has_size(scene, number):
        return size_need(scene, number + 1).remedy
    elif found.size > found.end:
        what = "use a narrower access" if is_access(scene.insn) else "pass more memory"
        return Remedy("size", f"{what}: there are only {words.count(found.end)}", scene.index, data)
    else:
        text = f"lower the offset by {first + found.size - found.end}: the last place for "
        text += f"{words.count(found.size)} is offset {found.end - found.size}"
    return Remedy("offset", text, scene.index, data)


def _bound(scene: Scene, number: int, found: Area) -> Remedy:
    """An offset that varies: which register to test against what, and where."""
    reg = scene.regs[number]
    added = addition(scene, number)
    if added is None:
        if not is_access(scene.insn) and has_size(scene, number) and scene.regs[number + 1].v[1]:
            return size_need(scene, number + 1).remedy
        most = max(found.end - found.size - found.offset - reg.off, 0)
        text = f"keep what is added to R{number} at most {most}"
        return Remedy("bound", text, scene.index, {"register": f"R{number}", "most": most})
    remedy = index_remedy(scene, number, added, found.reach, range(found.end))
    if remedy is not None:
        return remedy
    text = "change the constant part of the offset, or the size: no index fits into the memory"
    return Remedy("offset", text, scene.index, {"register": f"R{added.register}"})


def index_remedy(scene: Scene, number: int, added: Addition, reach: range, memory: range) -> Remedy | None:
    """Tests that keep the number added to a pointer within limits; None where no number fits."""
    least, most = added.limits(scene.regs[number], reach, memory)
    least = max(least, 0)
    if most < least:
        return None
    if added.amount is not None and added.amount.v[4] >= least:
        least = 0
    return bound_remedy(scene, added.register, least, most, added.made.index, added.made)


def has_size(scene: Scene, number: int) -> bool:
    """Whether the register behind is the size of the memory in this one, arguments of a call."""
    return bool(scene.size_kind(number + 1))


def bound_remedy(
    scene: Scene, number: int, least: int, most: int, before: int, added: Definition | None
) -> Remedy:  # fmt: skip
    """Test a register against limits before an instruction; says what the tests on the path leave open."""
    name = f"r{number}"
    source = next((one for one in added.sources if one.place == f"R{number}"), None) if added is not None else None
    known = scene.before(added.step, number) if added is not None else scene.regs[number]
    step = added.step if added is not None else len(scene.path) - 1
    found = tests_of(scene, source if added is not None else scene.definition(number), known, most, step)
    data = {"register": f"R{number}", "least": least, "most": most, "signed": False}
    if found.signed and not least:
        tests = [f"`if {name} s< 0 goto +N`"] if found.lower else []
        tests += [f"`if {name} s> {most} goto +N`"] if found.upper else []
        text = f"insert {' and '.join(tests)} before {scene.place(before)}, since {found.words()}"
        text += f"; or compare unsigned, which bounds both sides: `if {name} > {most} goto +N`"
        return Remedy("bound", text, before, data)
    tests = [f"`if {name} < {least} goto +N`"] if least else []
    if not least or known is None or known.v[5] > most:
        tests.append(f"`if {name} > {most} goto +N`")
    text = f"insert {' and '.join(tests)} (unsigned) before {scene.place(before)}"
    if not least and most and not most & (most + 1):
        text += f", or `{name} &= {most}`"
    late = [scene.path[test].at for test in same_value(source)[-1].tested if test > step] if source is not None else []
    if late:
        text += f"; the test at {late[-1]} comes after the addition"
    elif found.words():
        text += f"; {found.words()}"
    return Remedy("bound", text, before, data)


# ---- sizes that helpers get


def size_need(scene: Scene, number: int) -> Need:
    """A size in a register: within the memory of the argument before it."""
    name = f"r{number}"
    zero = scene.size_kind(number) != "size"
    limit, memory = _room(scene, number - 1)
    needed = f"R{number}, a size, within {0 if zero else 1}..{limit if limit is not None else 'the memory behind it'}"
    bound = limit if limit is not None else 64
    text = f"insert `if {name} > {bound} goto +N` (unsigned) before {scene.here}"
    if bound and not bound & (bound + 1):
        text += f", or `{name} &= {bound}`"
    if not scene.regs[number].v[1]:
        text = f"put a number within {0 if zero else 1}..{bound} into {name} before {scene.here}"
    has = scene.words(number) + (f"; {memory}" if memory else "")
    found = tests_of(scene, scene.definition(number), scene.regs[number], bound, len(scene.path) - 1)
    if scene.regs[number].v[1] and found.words():
        text += f"; {found.words()}"
    return Need("size", needed, has,
                Remedy("size", text, scene.index, {"register": f"R{number}", "most": bound}), (number,))  # fmt: skip


def size_zero(scene: Scene, number: int) -> Need:
    """A size that may be zero where it must not."""
    name, reg = f"r{number}", scene.regs[number]
    limit, memory = _room(scene, number - 1)
    text = f"pass a size of at least 1 in {name}"
    if reg.v[1]:
        text = f"insert `if {name} == 0 goto +N` before {scene.here}"
    needed, has = f"R{number}, a size, to be at least 1", scene.words(number)
    data: dict[str, object] = {"register": f"R{number}", "least": 1}
    if limit is not None and reg.v[5] > limit:
        needed = f"R{number}, a size, within 1..{limit}"
        has += f"; {memory}"
        text = f"insert `if {name} == 0 goto +N` and `if {name} > {limit} goto +N` (unsigned) before {scene.here}"
        data["most"] = limit
    return Need("size", needed, has, Remedy("size", text, scene.index, data), (number,))


def _room(scene: Scene, number: int) -> tuple[int | None, str]:
    """How many bytes a pointer argument has behind it, and that in words."""
    reg = scene.regs[number]
    low, high = words.span(reg)
    if reg.kind == STACK and high == low:
        return -low, f"R{number} is fp{low:+d}"
    size = getattr(reg.obj, "value_size", reg.obj if isinstance(reg.obj, int) else None)
    if size is None or high is None:
        return None, ""
    return max(size - high, 0), f"R{number} has {words.count(max(size - high, 0))} behind it"


RULES = (
    (r"^R\d+ min value is negative, either use unsigned index|^invalid access to (map (key|value),|memory)"
     r"|unbounded memory access, make sure", out_of_bounds),
)  # fmt: skip
