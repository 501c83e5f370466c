"""Case files: a small program and what the kernel says of it, as text. Lines `key value`, then `code` and instructions.

privilege: root, cap_bpf or none. errno: 0 or a number. insn: the refusing instruction. line: first line of the error.
counts: of instructions walked and checkpoints (Verdict.counts), where they are the point.
function: a slot and which of verifier_types.FUNCTIONS starts there, one line each. kernel: the version whose verdict
follows, default the newest; one file may hold those of several. Instructions are five numbers: opcode, dst, src,
offset, immediate; maps are numbers of verifier_oracle.MAPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verifier_maps import TYPES
from verifier_oracle import KFUNCS, MAPS, Sample, Verdict, kernel_types
from verifier_types import FUNCTIONS, TABLE

from pktbpf.isa.extended import Insn
from pktbpf.objfile.btf_info import function_info
from pktbpf.objfile.kernel_btf import running_symbols
from pktbpf.objfile.values import ProgramBtf
from pktbpf.program import Program
from pktbpf.verifier import verify
from pktbpf.verifier.explanation import VerifierRefused
from pktbpf.verifier.log import STATS
from pktbpf.verifier.profile import NEWEST

FOLDER = Path(__file__).parent.parent / "cases" / "verifier"
VERSIONS = FOLDER / "versions"


@dataclass(frozen=True)
class Case:
    """One program with its verdict."""

    name: str
    why: str
    privilege: str
    verdict: Verdict
    insns: tuple[Insn, ...]
    kernel: str = NEWEST
    counts: tuple[int, ...] = ()


def made(insns: tuple[Insn, ...], *, gpl: bool = True) -> Program:
    """The program, its maps found by their numbers."""
    maps = {
        i: MAPS[insn.imm][0]
        for i, insn in enumerate(insns)
        if insn.code == 0x18 and insn.src in (1, 2) and 0 <= insn.imm < len(MAPS)
    }
    kfuncs = {i: KFUNCS[insn.imm] for i, insn in enumerate(insns)
              if insn.code == 0x85 and insn.src == 2 and 0 <= insn.imm < len(KFUNCS)}  # fmt: skip
    functions = {at: function_info(TYPES, FUNCTIONS[name]) for at, name in getattr(insns, "functions", ())}
    btf = ProgramBtf(TABLE, functions) if functions else None
    return Program(tuple(insns), maps=maps, kfuncs=kfuncs, license="GPL" if gpl else "Proprietary", btf=btf)


def ours(insns: tuple[Insn, ...], privilege: str, *, gpl: bool = True, kernel: str = NEWEST) -> Verdict:
    """The verdict of pktbpf. Its log has the counts alone."""
    try:
        verified = verify(
            made(insns, gpl=gpl), privilege=privilege, kernel=kernel, log_level=STATS, kernel_btf=kernel_types(),
            kernel_symbols=running_symbols(),
        )  # fmt: skip
    except VerifierRefused as refused:
        return Verdict(refused.errno, refused.insn, refused.explanation.lines[0], refused.log)
    return Verdict(0, log=verified.log)


def read(path: Path) -> list[Case]:
    """The cases in a file: one program, the verdict of each version named there."""
    head, _, body = path.read_text().partition("\ncode\n")
    common, *parts = f"\n{head}".split("\nkernel ")
    fields = _fields(common)
    functions = [line.split()[1:] for line in head.splitlines() if line.startswith("function ")]
    insns = Sample.of(
        (Insn(*(int(word, 0) for word in line.split())) for line in body.splitlines()),
        ((int(slot), name) for slot, name in functions),
    )
    verdicts = [(part.partition("\n")[0], _fields(part)) for part in parts] or [(NEWEST, fields)]
    return [
        Case(
            path.stem, fields["why"], fields["privilege"],
            Verdict(int(own["errno"]), int(own["insn"]) if "insn" in own else None, own.get("line", "")), insns, kernel,
            tuple(map(int, own.get("counts", "").split())),
        )
        for kernel, own in verdicts
    ]  # fmt: skip


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        found[key] = value
    return found


def write(
    name: str, why: str, privilege: str, verdict: Verdict, insns: tuple[Insn, ...], *, counted: bool = False
) -> None:
    """Keep a program, with the kernel's verdict and, if they are the point, its counts."""
    lines = [f"why {why}", f"privilege {privilege}", f"errno {verdict.errno}"]
    if verdict.errno:
        lines += [f"insn {verdict.insn}"] if verdict.insn is not None else []
        lines += [f"line {verdict.line}"] if verdict.line else []
    lines += ["counts " + " ".join(map(str, verdict.counts))] if counted else []
    lines += [f"function {slot} {name}" for slot, name in getattr(insns, "functions", ())]
    lines += ["code", *(f"{i.code:#04x} {i.dst} {i.src} {i.off} {i.imm}" for i in insns)]
    (FOLDER / f"{name}.txt").write_text("\n".join(lines) + "\n")


def cases() -> list[Case]:
    """All case files."""
    return [case for path in sorted(FOLDER.glob("*.txt")) for case in read(path)]
