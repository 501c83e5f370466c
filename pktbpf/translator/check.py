"""The kernel's checks of a classic filter, with the reason it does not give.

check() accepts and refuses exactly what SO_ATTACH_FILTER does (bpf_check_basics_ok, bpf_check_classic,
check_load_and_stores, bpf_convert_filter and sk_filter_charge in net/core), with the same errno and the first failing
rule in the kernel's order: opcodes and operands by instruction, then the last instruction, then the scratch slots.
"""

from __future__ import annotations

import errno

from pktbpf.abi import ancillary
from pktbpf.abi.limits import CLASSIC_MAX_INSNS, CLASSIC_MEMWORDS, OPTMEM_MAX
from pktbpf.errors import ProgramRefused
from pktbpf.isa.classic import ClassicInsn
from pktbpf.program import ClassicProgram
from pktbpf.translator import kernel_size


def check(program: ClassicProgram, *, optmem_max: int = OPTMEM_MAX) -> None:
    """Return when the kernel would attach the filter to a socket; raise ProgramRefused with its errno when not.

    optmem_max: the socket's net.core.optmem_max in bytes, nothing charged yet.
    """
    insns = program.insns
    if not insns:
        raise ProgramRefused(errno.EINVAL, None, "the program is empty", hint="a filter ends with a ret")
    if len(insns) > CLASSIC_MAX_INSNS:
        raise ProgramRefused(
            errno.EINVAL, None, f"{len(insns)} instructions, the limit is {CLASSIC_MAX_INSNS}",
            hint="split the filter or load it as an extended program",
        )  # fmt: skip
    for pc, insn in enumerate(insns):
        _check_insn(insn, pc, len(insns))
    last = insns[-1]
    if last.code not in (0x06, 0x16):
        raise _refused(len(insns) - 1, "the last instruction is not a ret", "end the program with `ret #0`")
    _check_scratch(insns)
    _check_conversion(insns, optmem_max)


def _refused(pc: int, reason: str, hint: str = "") -> ProgramRefused:
    return ProgramRefused(errno.EINVAL, pc, reason, hint=hint)


def _check_insn(insn: ClassicInsn, pc: int, count: int) -> None:
    row = insn.row
    if row is None:
        raise _refused(pc, f"opcode {insn.code:#06x} is none that a socket filter may use", _opcode_hint(insn.code))
    name = row.name
    if name in ("DIV_K", "MOD_K") and insn.k == 0:
        raise _refused(pc, f"{row.mnemonic} by the constant 0", "a zero divisor in X would end the filter with 0")
    if name in ("LSH_K", "RSH_K") and insn.k >= 32:
        raise _refused(pc, f"shift by {insn.k}, A has 32 bits", "shift by 0 to 31")
    if name in ("LD_MEM", "LDX_MEM", "ST", "STX") and insn.k >= CLASSIC_MEMWORDS:
        raise _refused(pc, f"scratch slot M[{insn.k}] does not exist", f"use M[0] to M[{CLASSIC_MEMWORDS - 1}]")
    if name == "JA" and insn.k >= count - pc - 1:
        raise _refused(
            pc, f"jump by {insn.k} leaves the program of {count} instructions",
            "jumps only go forward; a backward distance counts as a huge forward one",
        )  # fmt: skip
    if row.branch:
        for word, distance in (("true", insn.jt), ("false", insn.jf)):
            if pc + distance + 1 >= count:
                raise _refused(
                    pc, f"the {word} branch goes to instruction {pc + distance + 1}, the last is {count - 1}"
                )
    if name.startswith("LD_ABS") and insn.k >= ancillary.AD_BASE and insn.k not in ancillary.BY_K:
        raise _refused(
            pc, f"offset {insn.k:#x} is no ancillary load that the kernel knows",
            f"the known ones are {ancillary.AD_BASE:#x} + 0, 4, ... 60",
        )  # fmt: skip


def _opcode_hint(code: int) -> str:
    if code == 0x0E:
        return "ret x is not allowed: `txa` and `ret a`"
    if code == 0x21:
        return "ldx [k] belongs to seccomp filters"
    return "see `pktbpf dis`" if code < 0x100 else "opcodes have 8 bits"


def _check_scratch(insns: tuple[ClassicInsn, ...]) -> None:
    """M[k] must be written on every path before it is read. The kernel walks the program once, in order: a ret does not
    end a path here, and dead code counts, so this mirrors the walk rather than the flow."""
    masks = [0xFFFF] * len(insns)
    valid = 0
    for pc, insn in enumerate(insns):
        valid &= masks[pc]
        name = insn.row.name if insn.row else ""
        if name in ("ST", "STX"):
            valid |= 1 << insn.k
        elif name in ("LD_MEM", "LDX_MEM"):
            if not valid >> insn.k & 1:
                raise _refused(
                    pc, f"M[{insn.k}] is read here before every path has written it",
                    f"store to M[{insn.k}] before the branch, a ret in between does not count as the end of a path",
                )  # fmt: skip
        elif name == "JA":
            masks[pc + 1 + insn.k] &= valid
            valid = 0xFFFF
        elif insn.row and insn.row.branch:
            masks[pc + 1 + insn.jt] &= valid
            masks[pc + 1 + insn.jf] &= valid
            valid = 0xFFFF


def _check_conversion(insns: tuple[ClassicInsn, ...], optmem_max: int) -> None:
    far = kernel_size.far_jump(insns)
    if far is not None:
        raise _refused(
            far, "the kernel's translation of this jump is longer than 32767 instructions",
            "packet loads become 8 to 15 instructions each; jump over fewer of them",
        )  # fmt: skip
    size = kernel_size.PROG_HEADER + 8 * kernel_size.converted_size(insns)
    if size >= optmem_max:
        raise ProgramRefused(
            errno.ENOMEM, None, f"the translated program takes {size} bytes, net.core.optmem_max is {optmem_max}",
            hint="shorten the filter or raise the limit",
        )  # fmt: skip
