"""Needs of loads and stores: an address that is one, not null, aligned, and permitted; `need_bounds` has where it lies.

A rule is a pattern of the kernel's line and a function from a Scene and the match to a Need, None where it cannot say
more than the general one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pktbpf.abi.context import Access, field_at
from pktbpf.abi.helpers import helper_name
from pktbpf.verifier.reasons import words
from pktbpf.verifier.reasons.need_bounds import is_access
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene
from pktbpf.verifier.state import BASE, MAP_VALUE, OR_NULL, SCALAR, Reg

if TYPE_CHECKING:
    from pktbpf.verifier.reasons.origin import Definition


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
        if tests := scene.tests(number):
            at = scene.path[tests[-1]].at
            text += f"; the test at {at} says nothing of null, which only == 0 and != 0 do"
            has = f"{scene.words(number)}; tested at {at}, but not with == 0 or != 0"
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


# ---- alignment, context, permissions


def misaligned(scene: Scene, match: re.Match[str]) -> Need:
    """The address is not a multiple of the access's size."""
    size = int(match["size"])
    number = scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    offset = int(match["fixed"]) + int(match["off"])
    reg = scene.regs[number] if number < len(scene.regs) else None
    registers = (number,) if is_access(scene.insn) and reg is not None else ()
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
    if is_access(scene.insn):
        text = f"use the pointer without an offset; put {match['off']} into the instruction"
    return Need("unmodified", f"R{number} as it was handed out, nothing added to it", scene.words(number),
                Remedy("unmodified", text, scene.index, {"register": f"R{number}"}), (number,))  # fmt: skip


def variable_pointer(scene: Scene, match: re.Match[str]) -> Need | None:
    """The same with an offset that varies."""
    number = scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    if not is_access(scene.insn):
        return None
    return Need("unmodified", f"R{number} at a constant offset", scene.words(number),
                Remedy("unmodified", "choose the field with branches: only constant offsets are allowed here",
                       scene.index, {"register": f"R{number}"}), (number,))  # fmt: skip


def map_permission(scene: Scene, match: re.Match[str]) -> Need:
    """The map was created read-only or write-only for programs."""
    write = match[0].startswith("write")
    flag = "BPF_F_RDONLY_PROG" if write else "BPF_F_WRONLY_PROG"
    number = scene.insn.src if scene.insn.code & 7 == 1 else scene.insn.dst
    if not is_access(scene.insn):
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
    if is_access(scene.insn):
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
