"""Needs of loads and stores: an address that is one, not null, inside its memory, aligned, and permitted.

A rule is a pattern of the kernel's line and a function from a Scene and the match to a Need, None where it cannot say
more than the general one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pktbpf.abi.context import Access, field_at
from pktbpf.abi.helpers import helper_name
from pktbpf.isa.extended import Insn
from pktbpf.verifier.reasons import words
from pktbpf.verifier.reasons.origin import same_value
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene
from pktbpf.verifier.state import BASE, MAP_KEY, MAP_VALUE, MEM, OR_NULL, SCALAR, STACK, Reg

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


def _is_access(insn: Insn) -> bool:
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
    offset, size = (insn.off, _SIZES[insn.code & 0x18]) if _is_access(insn) else (0, _helper_size(scene, number))
    return Area(offset, size, end, name)


def _helper_size(scene: Scene, number: int) -> int:
    """Bytes that a helper (or, unprivileged, an addition) reaches from a register on."""
    told = next((found for line in scene.lines if (found := re.search(r" size=(\d+)$", line))), None)
    if told is not None:
        return int(told[1])
    return scene.regs[number + 1].v[5] if has_size(scene, number) else 1


# ---- addresses that are none


def null_missing(scene: Scene, match: re.Match[str]) -> Need:
    """An address that may be null is used."""
    number = int(match["reg"]) + ("trusted arg" in match[0])  # those count from 0
    name = f"r{number}"
    halves = [step for step in scene.tests(number) if scene.insns[scene.path[step].at].code & 7 == 6]
    if halves:
        at = scene.path[halves[-1]].at
        text = f"the test at {at} compares the lower half only; compare all 64 bits: `if {name} == 0 goto +N`"
        has = f"{scene.words(number)}; tested at {at}, but only its lower half"
    else:
        text = f"insert `if {name} == 0 goto +N` before {scene.here}"
        has = f"{scene.words(number)}; never compared with 0 on this path"
    return Need(
        "null_check", f"R{number} to be an address that is not null", has,
        Remedy("null_check", text, scene.index, {"register": f"R{number}"}), (number,),
    )  # fmt: skip


def no_address(scene: Scene, match: re.Match[str]) -> Need | None:
    """A number, or something else without memory behind it, is used as an address."""
    number = int(match["reg"])
    reg = scene.regs[number]
    if reg.kind & OR_NULL:
        return null_missing(scene, match)
    needed = f"R{number} to be the address of memory"
    lost = _lost_at(scene, number)
    remedy = Remedy("keep_pointer", f"put an address into r{number} before {scene.here}", scene.index,
                    {"register": f"R{number}"})  # fmt: skip
    has = scene.words(number)
    if lost is not None:
        step, before = lost
        at = scene.path[step].at
        insn = scene.insns[at]
        was = words.register_words(before, scene.depth)
        if insn.code & 7 in (5, 6) and insn.code != 0x85:
            has = f"null: on this path the branch at {at} found R{number} equal to 0"
            text = f"let the branch at {at} lead elsewhere when r{number} is 0; here it must not be null"
        else:
            has += f"; until {at} ({scene.text(at)}) it was {was}"
            text = f"use r{number} before {scene.place(at)}, which ends what it points to"
        remedy = Remedy("use_before", text, at, {"register": f"R{number}"})
    elif reg.kind == SCALAR:
        made = scene.definition(number)
        if made is not None and made.how == "arithmetic" and _ended_address(scene, made):
            text = f"{scene.place(made.index)} made a number of it; add only to an address, and 64 bits wide"
            remedy = Remedy("keep_pointer", text, made.index, {"register": f"R{number}"})
    return Need("address", needed, has, remedy, (number,))


def _ended_address(scene: Scene, made: Definition) -> bool:
    """Whether an operation took an address and gave a number."""
    insn = scene.insns[made.index]
    operands = (insn.dst, insn.src) if insn.code & 8 else (insn.dst,)
    return any((reg := scene.before(made.step, n)) is not None and reg.kind != SCALAR for n in operands)


def _lost_at(scene: Scene, number: int) -> tuple[int, Reg] | None:
    """(step, value before it): where an address in a register stopped being one without being overwritten."""
    made = scene.definition(number)
    if made is None or scene.regs[number].kind != SCALAR:
        return None
    last: tuple[int, Reg] | None = None
    for step in range(max(made.step + 1, 0), len(scene.trail)):
        if scene.path[step].depth != scene.depth:
            continue
        reg = scene.trail[step][number]
        if reg.kind != SCALAR:
            last = (step, reg)
        elif last is not None:
            return last
    return None


# ---- bounds


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
    elif not _is_access(scene.insn) and has_size(scene, number):
        return size_need(scene, number + 1).remedy
    elif found.size > found.end:
        what = "use a narrower access" if _is_access(scene.insn) else "pass more memory"
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
        if not _is_access(scene.insn) and has_size(scene, number) and scene.regs[number + 1].v[1]:
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
    tests = [f"`if {name} < {least} goto +N`"] if least else []
    source = next((one for one in added.sources if one.place == f"R{number}"), None) if added is not None else None
    known = scene.before(added.step, number) if added is not None else scene.regs[number]
    if not least or known is None or known.v[5] > most:
        tests.append(f"`if {name} > {most} goto +N`")
    text = f"insert {' and '.join(tests)} (unsigned) before {scene.place(before)}"
    if not least and most and not most & (most + 1):
        text += f", or `{name} &= {most}`"
    if added is not None and source is not None:
        late = [scene.path[test].at for test in source.tests if test > added.step]
        early = [scene.path[test].at for test in source.tests if test < added.step]
        if late:
            text += f"; the test at {late[-1]} comes after the addition"
        elif early:
            text += f"; the test at {early[-1]} is not enough"
    data = {"register": f"R{number}", "least": least, "most": most, "signed": False}
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


# ---- alignment, context, permissions


def misaligned(scene: Scene, match: re.Match[str]) -> Need:
    """The address is not a multiple of the access's size."""
    size = int(match["size"])
    number = scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    offset = int(match["fixed"]) + int(match["off"])
    reg = scene.regs[number] if number < len(scene.regs) else None
    registers = (number,) if _is_access(scene.insn) and reg is not None else ()
    if reg is not None and reg.v[1]:
        text = f"make the part that varies a multiple of {size} before it is added, `&= {-size}`"
        has = f"an offset that is a multiple of {words.alignment(reg.v)} only"
    else:
        below = offset // size * size
        text = f"use offset {below} or {below + size}, or access {size} single bytes"
        has = f"offset {offset}"
    data = {"size": size, "offset": offset}
    return Need("alignment", f"an address that is a multiple of {size}, the size of the access", has,
                Remedy("align", text, scene.index, data), registers, data)  # fmt: skip


def context_access(scene: Scene, match: re.Match[str]) -> Need:
    """Bytes of the context that a socket filter may not access like this."""
    offset, size = int(match["off"]), int(match["size"])
    found = field_at(offset)
    write = scene.insn.code & 7 in (2, 3)
    word = "write" if write else "read"
    has = f"{word} of {words.count(size)} at offset {offset}"
    needed = f"a field of __sk_buff that socket filters may {word}, whole or in part"
    if found is None:
        text = "there is no such field; its offset is wrong"
    elif found.access is Access.NONE:
        has += f": skb->{found.name}, which socket filters do not get"
        text = f"do without skb->{found.name}"
        if found.name in ("data", "data_end", "data_meta"):
            text = f"read packet bytes with a packet load (ldabs) or bpf_{helper_name(26)} instead"
    elif write and found.access is not Access.READ_WRITE:
        has += f": skb->{found.name}, which is read only"
        text = "write to skb->cb only, or keep the value on the stack or in a map"
    elif offset % size:
        has += f": not a multiple of {size}"
        text = f"skb->{found.name} begins at offset {found.offset}: access it there"
    else:
        has += f": skb->{found.name} is {words.count(found.size)} at offset {found.offset}"
        text = f"access skb->{found.name} with {min(found.size, 4) if found.name != 'sk' else 8} bytes"
    data = {"offset": offset, "size": size, "field": found.name if found is not None else None}
    return Need("context", needed, has, Remedy("field", text, scene.index, data), (), data)


def modified_pointer(scene: Scene, match: re.Match[str]) -> Need:
    """A pointer that must be used as it was handed out has an offset."""
    number = int(match["reg"])
    text = "pass the pointer as it was handed out"
    if _is_access(scene.insn):
        text = f"use the pointer without an offset; put {match['off']} into the instruction"
    return Need("unmodified", f"R{number} as it was handed out, nothing added to it", scene.words(number),
                Remedy("unmodified", text, scene.index, {"register": f"R{number}"}), (number,))  # fmt: skip


def variable_pointer(scene: Scene, match: re.Match[str]) -> Need | None:
    """The same with an offset that varies."""
    number = scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    if not _is_access(scene.insn):
        return None
    return Need("unmodified", f"R{number} at a constant offset", scene.words(number),
                Remedy("unmodified", "choose the field with branches: only constant offsets are allowed here",
                       scene.index, {"register": f"R{number}"}), (number,))  # fmt: skip


def map_permission(scene: Scene, match: re.Match[str]) -> Need:
    """The map was created read-only or write-only for programs."""
    write = match[0].startswith("write")
    flag = "BPF_F_RDONLY_PROG" if write else "BPF_F_WRONLY_PROG"
    number = scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    if not _is_access(scene.insn):
        number = _map_argument(scene)
    reg = scene.regs[number]
    info = reg.obj if hasattr(reg.obj, "value_size") else None
    named = words.map_words(info) if info is not None else "the map"
    word = "write to" if write else "read from"
    return Need(
        "permission", f"a map that programs may {word}", f"{named} was created with {flag}",
        Remedy("map_flags", f"create {named} without {flag}, or do not {word} it", scene.index, {"flag": flag}),
        (number,), {"map": info.name if info is not None else ""},
    )  # fmt: skip


def _map_argument(scene: Scene) -> int:
    """The register of a call that holds a map or something in one."""
    return next((n for n in range(1, 6) if hasattr(scene.regs[n].obj, "value_size")), 1)


def read_only_memory(scene: Scene, match: re.Match[str]) -> Need:
    """A store to memory that is only for reading."""
    number = int(match["reg"] or match["key"])
    return Need(
        "permission", f"R{number} to point to memory that may be written", scene.words(number),
        Remedy("copy", "copy the bytes to the stack and change them there", scene.index, {"register": f"R{number}"}),
        (number,),
    )  # fmt: skip


def special_field(scene: Scene, match: re.Match[str]) -> Need:
    """A timer, a lock and the like inside a value: only helpers touch it."""
    number = _number_of_value(scene)
    return Need(
        "special_field", f"to keep off the struct {match['field']} inside the value",
        scene.words(number) if number is not None else "",
        Remedy("special_field", f"leave it to the helpers for {match['field']}; access the other fields of the value",
               scene.index), (number,) if number is not None else (),
    )  # fmt: skip


def _number_of_value(scene: Scene) -> int | None:
    if _is_access(scene.insn):
        return scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    return next((n for n in range(1, 6) if scene.regs[n].kind & BASE == MAP_VALUE), None)


def different_pointers(scene: Scene, match: re.Match[str]) -> Need:
    """Another path brought another kind of pointer to this instruction."""
    number = scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    return Need(
        "one_kind", f"R{number} to be the same kind of pointer on every path", scene.words(number),
        Remedy("split", f"give each kind of pointer an instruction of its own instead of sharing {scene.here}",
               scene.index), (number,),
    )  # fmt: skip


RULES = (
    (r"^R(?P<reg>\d+) invalid mem access '\w*or_null\w*'", null_missing),
    (r"^R(?P<reg>\d+) pointer arithmetic on \w+ prohibited, null-check it first", null_missing),
    (r"^Possibly NULL pointer passed to (?:helper|trusted) arg(?P<reg>\d)", null_missing),
    (r"^R(?P<reg>\d+) type=\w*or_null\w* expected=", null_missing),
    (r"^R(?P<reg>\d+) invalid mem access '", no_address),
    (r"^R\d+ min value is negative, either use unsigned index|^invalid access to (map (key|value),|memory)"
     r"|unbounded memory access, make sure", out_of_bounds),
    (r"^misaligned .*access off \S+( \S+\))?\+(?P<fixed>-?\d+)\+(?P<off>-?\d+) size (?P<size>\d+)", misaligned),
    (r"^invalid bpf_context access off=(?P<off>-?\d+) size=(?P<size>\d+)", context_access),
    (r"^dereference of modified \w+ ptr R(?P<reg>\d+) off=(?P<off>-?\d+)", modified_pointer),
    (r"^negative offset \w+ ptr R(?P<reg>\d+) off=(?P<off>-?\d+)", modified_pointer),
    (r"^R(?P<reg>\d+) must have zero offset(?P<off>)", modified_pointer),
    (r"^variable \w+ access var_off", variable_pointer),
    (r"^(write into|read from) map forbidden", map_permission),
    (r"^R(?P<reg>\d+) cannot write into|^write to change key R(?P<key>\d+)", read_only_memory),
    (r"^(?P<field>bpf_\w+|\w*kptr\w*) (cannot be accessed|access) ", special_field),
    (r"^same insn cannot be used with different pointers", different_pointers),
)  # fmt: skip
