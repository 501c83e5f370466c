"""Extended program -> text, in the wording of the kernel's disassembler, from the templates of `pktbpf.isa.extended`.

Differences from `bpftool prog dump xlated` are only additions: 64-bit immediates end in `ll`, so that they can be told
from 32-bit ones without the opcode; maps stand by name where the program knows it. Total: what is no operation prints
as `.insn code, dst, src, off, imm`. All of it assembles back to the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pktbpf.abi.helpers import NAMES
from pktbpf.isa.extended import Insn, Kind, Row, is_wide
from pktbpf.program import INTERNAL_NAMES, MapSpec, Program

_FIELD = re.compile(r"\bpc\{(off|far)\}|\{(\w+)\}")
_LABEL = re.compile(r"[A-Za-z_]\w*")
_U32 = 0xFFFF_FFFF
_SECOND_SLOT_HALVES = frozenset({"LD_IMM64", "LD_MAP_VALUE", "LD_MAP_IDX_VALUE"})


def helper_text(number: int) -> str:
    """`bpf_map_lookup_elem#1`, `unknown#4000`: as the kernel names the target of a helper call."""
    if number in INTERNAL_NAMES:
        return f"{INTERNAL_NAMES[number]}#{number}"
    name = f"bpf_{NAMES[number]}" if 0 < number < len(NAMES) else "unknown"
    return f"{name}#{number}"


def format_insn(
    insn: Insn, second: Insn | None = None, *, target: str | None = None, map_name: str | None = None,
    kfunc: str | None = None, variable: str | None = None,
) -> str:  # fmt: skip
    """One instruction as text. second: the slot after it, needed for 64-bit immediates. target: the label that a jump
    or local call goes to. map_name: what stands for the map of a map reference (default: its number). kfunc: name of
    the kernel function that it calls. variable: name of the kernel's variable whose address it takes."""
    if kfunc is not None:
        return f"call {kfunc}"
    if variable is not None:
        return f"r{insn.dst} = ksym[{variable}] ll"
    row = printable_row(insn, second)
    if insn == (0xBF, insn.dst, insn.src, -1, 0) and max(insn.dst, insn.src) < 11:  # only the kernel makes it
        return f"r{insn.dst} = &(void __percpu *)(r{insn.src})"
    if row is None:
        return _raw_text(insn)
    upper = second.imm & _U32 if second is not None and row.kind is Kind.LOAD_IMM64 else 0

    def operand(match: re.Match[str]) -> str:
        jump, name = match.groups()
        if jump or name == "far":
            distance = insn.off if jump == "off" else insn.imm
            return target if target is not None else f"{'pc' if jump else ''}{distance:+d}"
        return _operand(row, insn, upper, name, map_name)

    return _FIELD.sub(operand, row.syntax)


def _raw_text(insn: Insn) -> str:
    return f".insn {insn.code:#04x}, {insn.dst}, {insn.src}, {insn.off}, {insn.imm}"


def _operand(row: Row, insn: Insn, upper: int, name: str, map_name: str | None) -> str:
    match name:
        case "dst" | "src":
            return str(getattr(insn, name))
        case "off":
            return f"{insn.off:+d}"
        case "imm64":
            return f"{upper << 32 | insn.imm & _U32:#x}"
        case "hi":
            return str(upper)
        case "map":
            return map_name if map_name is not None else f"fd:{insn.imm & _U32}"
        case "helper":
            return helper_text(insn.imm)
    return f"{insn.imm & _U32:#x}" if row.kind is Kind.BRANCH else str(insn.imm)


def printable_row(insn: Insn, second: Insn | None) -> Row | None:
    """The operation, or None where the words do not make one that its template says in full."""
    row = insn.row
    if row is not None and row.kind is Kind.EXIT and insn.off:
        return None
    if row is None or not is_wide(insn):
        return row
    if second is None or second[:4] != (0, 0, 0, 0):
        return None
    return row if row.name in _SECOND_SLOT_HALVES or second.imm == 0 else None


def targets_of(program: Program) -> dict[int, int]:
    """Slot of each jump, branch, local call or function reference -> the slot it goes to (which may be outside)."""
    found = {}
    for slot, insn in enumerate(program.insns):
        row = insn.row
        if row is None:
            continue
        if row.name == "JA32" or row.operation in ("LOCAL", "FUNC"):
            found[slot] = slot + 1 + insn.imm
        elif row.kind in (Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO):
            found[slot] = slot + 1 + insn.off
    return found


def map_names(maps: Mapping[int, Any]) -> dict[int, str]:
    """Slot -> a name for its map: the map's own where it has one, `map0`, `map1`, ... for the others, never shared."""
    by_map: dict[Any, str] = {}
    taken: set[str] = set()
    names = {}
    for slot, value in sorted(maps.items()):
        key = value if isinstance(value, MapSpec) else id(value)
        if key not in by_map:
            wanted = str(getattr(getattr(value, "spec", value), "name", "") or "")
            if not wanted or wanted in taken or re.search(r"[\s\[\];:]|//", wanted):
                wanted = next(f"map{n}" for n in range(len(maps) + len(taken) + 1) if f"map{n}" not in taken)
            taken.add(wanted)
            by_map[key] = wanted
        names[slot] = by_map[key]
    return names


def variable_names(program: Program) -> dict[int, str]:
    """Slot -> name of the kernel's variable there."""
    return {slot: str(getattr(one, "spec", one).name) for slot, one in program.kvars.items()}


def disassemble(
    program: Program, *, opcodes: bool = False, labels: bool = False, lines: bool = True, declare: bool = True
) -> str:
    """The listing of a program, one instruction a line, ending in a newline.

    opcodes: number and opcode in front of each (`   0: (61) `), as bpftool prints them. labels: names instead of
    distances. lines: source lines from the debug information as `; ` comments. declare: `.name`, `.license` (if not
    GPL), `.weak` for such variables of the kernel and a `.map` for each map in front, so that the text alone gives the
    program back, but for its debug information and the first contents of program arrays and maps of maps.
    """
    out = list(_declarations(program)) if declare else []
    targets = targets_of(program)
    names = _label_names(program, targets) if labels else {}
    maps = map_names(program.maps)
    variables = variable_names(program)
    said = ""
    skip = False
    for slot, insn in enumerate(program.insns):
        line = program.lines.get(slot, "") if lines else ""
        if line and line != said:
            out.append("; " + " ".join(line.split()))
            said = line
        if slot in names:
            out.append(f"{names[slot]}:")
        if skip:
            skip = False
            continue
        second = program.insns[slot + 1] if slot + 1 < len(program.insns) else None
        if slot + 1 in names and is_wide(insn):
            second = None  # a jump into the middle: both words stand alone
        if max(insn.dst, insn.src if insn.row is not None and insn.row.src is None else 0) > 10 and not opcodes:
            # Without the opcode beside it the assembler takes no text with such a register.
            out.append(("    " if names else "") + _raw_text(insn))
            continue
        text = format_insn(insn, second, target=names.get(targets.get(slot, -1)), map_name=maps.get(slot),
                           kfunc=program.kfuncs.get(slot), variable=variables.get(slot))  # fmt: skip
        skip = is_wide(insn) and printable_row(insn, second) is not None
        indent = "    " if names else ""
        out.append(f"{slot:4}: ({insn.code:02x}) {text}" if opcodes else indent + text)
    return "\n".join(out) + "\n" if out else ""


def _label_names(program: Program, targets: Mapping[int, int]) -> dict[int, str]:
    """Slot -> label of everything that is jumped to or called inside the program."""
    names: dict[int, str] = {}
    count = len(program.insns)
    functions = {target for slot, target in targets.items() if program.insns[slot].code in (0x85, 0x18)}
    known = getattr(program.btf, "functions", {})
    taken: set[str] = set()
    for number, target in enumerate(sorted(t for t in functions if 0 <= t < count), 1):
        name = known[target].name if target in known else ""
        names[target] = name if _LABEL.fullmatch(name) and name not in taken else f"func_{number}"
        taken.add(names[target])
    for target in sorted({t for t in targets.values() if 0 <= t < count and t not in names}):
        names[target] = f"L{target}"
    return names


def _declarations(program: Program) -> list[str]:
    out = []
    if program.name:
        out.append(f".name {program.name}")
    if program.license != "GPL":
        out.append(f'.license "{program.license}"')
    names = map_names(program.maps)
    weak = {one.name for one in program.kvars.values() if getattr(one, "weak", False)}
    out += [f".weak {name}" for name in sorted(weak)]
    done: set[str] = set()
    for slot, name in names.items():
        value = getattr(program.maps[slot], "spec", program.maps[slot])
        if isinstance(value, MapSpec) and name not in done:
            if value.inner is not None:
                out.append(_map_line(f"{name}.inner", value.inner))
            out.append(_map_line(name, value))
            out += _data_lines(name, getattr(value, "initial", None) or b"")
            done.add(name)
    return out


def _data_lines(name: str, data: bytes) -> list[str]:
    """First contents, 32 bytes a line; lines of zeros are left out, since all else of a map is zero."""
    rows = ((at, data[at : at + 32]) for at in range(0, len(data), 32))
    return [f".data {name} {at:#x} {row.hex()}" for at, row in rows if any(row)]


def _map_line(name: str, spec: MapSpec) -> str:
    sizes = f"key_size={spec.key_size} value_size={spec.value_size} max_entries={spec.max_entries}"
    line = f".map {name} {spec.kind} {sizes}"
    if spec.flags:
        line += f" flags={spec.flags:#x}"
    if spec.extra:
        line += f" extra={spec.extra:#x}"
    if getattr(spec, "frozen", False):
        line += " frozen=1"
    return line + (f" inner={name}.inner" if spec.inner is not None else "")
