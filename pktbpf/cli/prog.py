"""`pktbpf prog`: programs of an object or file in bpftool's words, on request beside what the live kernel holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pktbpf.errors import UsageError

if TYPE_CHECKING:
    from pktbpf.program import Program

# What license_is_gpl_compatible() takes.
GPL = frozenset({"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"})
# A call of a function once the kernel has a JIT: its distance stands in off, the function's number in imm.
_JITED_CALL = re.compile(r"\.insn 0x85, 0, 1, (-?\d+), (\d+)$")
_NUMBERED = re.compile(r" *\d+: ")

_program = click.option("--program", "name", metavar="NAME", help="Only this program of the object.")
_kernel = click.option("--kernel", is_flag=True, help="Load it into the live kernel too and show both (root).")
_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")


@click.group(short_help="Programs of an object, as bpftool shows and dumps them.")
def command() -> None:
    """Show and list programs as `bpftool prog` words it, without loading them.

    \b
    Examples:
      pktbpf prog show filters/ebpf/proto_counts.o
      pktbpf prog dump filters/ebpf/rate_limit.o --kernel
    """


@command.command()
@click.argument("obj", metavar="OBJ")
@_program
@_kernel
@_json
def show(obj: str, name: str | None, kernel: bool, as_json: bool) -> None:
    """Type, name, tag, license, sizes and maps of each program. The size of machine code needs --kernel."""
    shown = [_facts(program, kernel) for program in _programs(obj, name)]
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    for facts in shown:
        click.echo(_words(facts))


@command.command()
@click.argument("obj", metavar="OBJ")
@_program
@click.option("--xlated", is_flag=True, help="The instructions after the live kernel's rewrites (root).")
@click.option("--opcodes", is_flag=True, help="The bytes of each instruction under it.")
@_kernel
@_json
def dump(obj: str, name: str | None, xlated: bool, opcodes: bool, kernel: bool, as_json: bool) -> None:
    """List the instructions with source lines, as `bpftool prog dump xlated` prints them."""
    if xlated and kernel:
        raise click.UsageError("--kernel shows both listings, --xlated the kernel's alone")
    parts: list[Any] = []
    for program in _programs(obj, name):
        ours = _listing(program, opcodes)
        live = _kernel_listing(program, opcodes) if xlated or kernel else []
        shown = live if xlated else ours
        if as_json:
            entry = {"name": program.name, "insns": _insns(shown)}
            parts.append(entry | {"xlated": _insns(live)} if kernel else entry)
        else:
            parts.append(_heading(program) + (_side_by_side(ours, live) if kernel else "\n".join(shown)))
    click.echo(json.dumps(parts, indent=2) if as_json else "\n\n".join(parts))


def _programs(argument: str, name: str | None) -> list[Program]:
    """The programs meant. Raises UsageError for a classic filter, ObjectError for a name that is not there."""
    from pktbpf import loader
    from pktbpf.objfile import Object
    from pktbpf.program import Program

    found = loader.load_argument(argument)
    if isinstance(found, Object):
        if name is not None or not found.programs:
            return [found.program(name)]
        return list(found.programs.values())
    if not isinstance(found, Program):
        raise UsageError(f"{argument} is a classic filter; `pktbpf dis` lists it, `pktbpf translate` what it becomes")
    if name is not None:
        raise UsageError(f"--program {name}: {argument} is no object with named programs")
    return [found]


def _facts(program: Program, kernel: bool) -> dict[str, Any]:
    """What bpftool's JSON says, names of maps in place of ids."""
    from pktbpf.asm.extended_print import map_names

    maps = map_names(program.maps)
    facts: dict[str, Any] = {
        "type": "socket_filter",
        "name": program.name,
        "tag": program.tag,
        "gpl_compatible": program.license in GPL,
        "license": program.license,
        "bytes_xlated": 8 * len(program),
        "maps": list(dict.fromkeys(maps[slot] for slot in sorted(maps))),
        "bytes_btf": len(program.btf.raw) if program.btf is not None else 0,
    }
    if kernel:
        info = _in_kernel(program)
        facts["kernel"] = {
            "tag": info.tag,
            "bytes_xlated": len(info.xlated),
            "bytes_jited": len(info.jited),
            "verified_insns": info.verified_insns,
        }
    return facts


def _words(facts: dict[str, Any]) -> str:
    name = f"  name {facts['name']}" if facts["name"] else ""
    lines = [f"{facts['type']}{name}  tag {facts['tag']}{'  gpl' if facts['gpl_compatible'] else ''}"]
    maps = f"  maps {','.join(facts['maps'])}" if facts["maps"] else ""
    lines.append(f"\txlated {facts['bytes_xlated']}B{maps}")
    if facts["bytes_btf"]:
        lines.append(f"\tbtf {facts['bytes_btf']}B")
    if "kernel" in facts:
        live = facts["kernel"]
        jited = f"jited {live['bytes_jited']}B" if live["bytes_jited"] else "not jited"
        lines.append(f"\tkernel: tag {live['tag']}  xlated {live['bytes_xlated']}B  {jited}")
    return "\n".join(lines)


def _in_kernel(program: Program) -> Any:
    """What the live kernel says of the program once it is loaded. Raises ProgramRefused, KernelUnavailable."""
    from pktbpf.errors import ProgramRefused
    from pktbpf.kernel import syscall
    from pktbpf.kernel.loading import Loaded

    loaded = Loaded()
    try:
        return syscall.program_info(loaded.program(program))
    except syscall.LoadRefused as refusal:
        raise ProgramRefused(refusal.errno or 22, None, f"the live kernel: {refusal.strerror}") from None
    finally:
        loaded.close()


def _kernel_listing(program: Program, opcodes: bool) -> list[str]:
    """The listing of what the kernel made of a program: maps by id, calls by the kernel function they reach."""
    from pktbpf.program import Program

    rewritten = Program.from_bytes(_in_kernel(program).xlated)
    names = _call_targets()

    def target(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"call {names[number]}#{number}" if number in names else match[0]

    def local(match: re.Match[str]) -> str:
        return f"call pc{int(match[1]):+d}{functions.get(int(match[2]), '')}"

    functions = _functions(program)
    lines = (line.replace("map[fd:", "map[id:") for line in _listing(rewritten, opcodes))
    lines = (_JITED_CALL.sub(local, line) for line in lines)
    return [re.sub(r"call unknown#(\d+)$", target, line) for line in lines]


def _functions(program: Program) -> dict[int, str]:
    """Number of each function, in order of place as the kernel counts them -> `#name` behind its calls."""
    known = getattr(program.btf, "functions", {})
    return {number: f"#{known[slot].name}" for number, slot in enumerate(sorted(known))}


def _call_targets() -> dict[int, str]:
    """Distance from __bpf_call_base, as the kernel has it in calls -> function; empty where addresses are hidden."""
    try:
        symbols = [line.split()[:3] for line in Path("/proc/kallsyms").read_text().splitlines()]
    except OSError:
        return {}
    base = next((int(address, 16) for address, _, name in symbols if name == "__bpf_call_base"), 0)
    if not base:
        return {}
    return {int(address, 16) - base: name for address, kind, name in symbols if kind in "tT"}


def _heading(program: Program) -> str:
    return f"{program.name}:\n" if program.name else ""


def _listing(program: Program, opcodes: bool) -> list[str]:
    """Numbered lines; bytes of each instruction under it with `opcodes`."""
    from pktbpf.asm.extended_print import disassemble
    from pktbpf.isa.extended import is_wide

    out: list[str] = []
    for line in disassemble(program, opcodes=True, declare=False).splitlines():
        out.append(line)
        head = line.partition(":")[0].strip()
        if opcodes and head.isdigit():
            slot = int(head)
            size = 2 if is_wide(program.insns[slot]) else 1
            out.append("       " + b"".join(insn.encode() for insn in program.insns[slot : slot + size]).hex(" "))
    return out


def _insns(listing: list[str]) -> list[dict[str, Any]]:
    """As bpftool's JSON: number and text of every instruction."""
    lines = (line.partition(": ") for line in listing if _NUMBERED.match(line))
    return [{"pc": int(head), "disasm": text} for head, _, text in lines]


def _side_by_side(ours: list[str], live: list[str]) -> str:
    """Two listings, equal instructions beside each other and `|` where they differ."""
    import difflib

    left, right = ([line for line in side if _NUMBERED.match(line)] for side in (ours, live))
    texts = [[line.partition(": ")[2] for line in side] for side in (left, right)]
    width = max((len(line) for line in left), default=0)
    rows = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_opcodes():
        for n in range(max(i2 - i1, j2 - j1)):
            one = left[i1 + n] if i1 + n < i2 else ""
            two = right[j1 + n] if j1 + n < j2 else ""
            rows.append(f"{one:<{width}} {' ' if tag == 'equal' else '|'} {two}".rstrip())
    return "\n".join(rows)
