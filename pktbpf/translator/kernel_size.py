"""How many extended instructions the kernel itself makes of each classic one.

Two refusals at attach depend on it: a jump whose converted distance leaves 16 bits (EINVAL, bpf_convert_filter) and a
converted program larger than net.core.optmem_max (ENOMEM, sk_filter_charge). Our own translation is shorter, since a
packet load stays one instruction, so the kernel's lengths are kept here as a table of their own (Linux 6.18).
"""

from __future__ import annotations

from collections.abc import Sequence

from pktbpf.abi import ancillary
from pktbpf.isa.classic import ClassicInsn

PROLOGUE = 3
PROLOGUE_PACKET = 4  # skb->data and the head length, cached when the program reads the packet
PROG_HEADER = 72  # offsetof(struct bpf_prog, insns)

_ANCILLARY = {
    "PROTOCOL": 2, "PKTTYPE": 2, "IFINDEX": 4, "NLATTR": 4, "NLATTR_NEST": 4, "MARK": 1, "QUEUE": 1, "HATYPE": 4,
    "RXHASH": 1, "CPU": 4, "ALU_XOR_X": 1, "VLAN_TAG": 1, "VLAN_TAG_PRESENT": 3, "PAY_OFFSET": 4, "RANDOM": 4,
    "VLAN_TPID": 2,
}  # fmt: skip

_SLOW_LOAD = 8  # four argument moves, the call, and three to end the filter on failure


def _packet_load(k: int, swaps: bool) -> int:
    if k >= 0x8000_0000:
        return _SLOW_LOAD
    far = 0 if k <= 0x7FFF else 2
    return _SLOW_LOAD + 4 + (k != 0) + far + swaps


def reads_packet(insn: ClassicInsn) -> bool:
    """Whether the conversion makes a packet load of it (ancillary loads are none)."""
    name = insn.row.name if insn.row else ""
    if name.startswith("LD_ABS"):
        return insn.k not in ancillary.BY_K
    return name.startswith("LD_IND") or name == "LDX_MSH"


def length(insn: ClassicInsn) -> int:
    """Converted length of one instruction, in extended instructions."""
    row = insn.row
    name = row.name if row else ""
    if name.startswith("LD_ABS"):
        known = ancillary.BY_K.get(insn.k)
        return _ANCILLARY[known.name] if known else _packet_load(insn.k, name != "LD_ABS_B")
    if name.startswith("LD_IND"):
        return _SLOW_LOAD + (insn.k != 0)
    if name == "LDX_MSH":
        return _packet_load(insn.k, swaps=False) + 6
    if name in ("DIV_X", "MOD_X"):
        return 5
    if name == "RET_K":
        return 2
    if row is not None and row.branch:
        return _branch_jump_at(insn) + (1 if _is_single(insn) else 2)
    return 1


def _is_single(insn: ClassicInsn) -> bool:
    """One conditional jump will do: the false target follows, or the test can be inverted (never JSET)."""
    return insn.jf == 0 or (insn.jt == 0 and insn.code & 0xF0 != 0x40)


def _branch_jump_at(insn: ClassicInsn) -> int:
    """Instructions before the jump: one when K is negative as a signed number and needs a register."""
    return 1 if insn.code & 0x08 == 0 and insn.k >= 0x8000_0000 else 0


def converted_size(insns: Sequence[ClassicInsn]) -> int:
    """Length of the whole converted program."""
    body = sum(length(insn) for insn in insns)
    return PROLOGUE + body + (PROLOGUE_PACKET if any(reads_packet(i) for i in insns) else 0)


def far_jump(insns: Sequence[ClassicInsn]) -> int | None:
    """The first instruction whose converted jump does not fit into 16 bits, or None. Jumps must be in range."""
    starts, at = [], 0
    for insn in insns:
        starts.append(at)
        at += length(insn)
    for pc, insn in enumerate(insns):
        row = insn.row
        if row is None:
            continue
        if row.name == "JA":
            if starts[pc + 1 + insn.k] - starts[pc] - 1 > 0x7FFF:
                return pc
        elif row.branch:
            jump = starts[pc] + _branch_jump_at(insn)
            target = insn.jt if insn.jf == 0 or not _is_single(insn) else insn.jf
            last = starts[pc + 1 + insn.jf] - jump - 2 if not _is_single(insn) else 0
            if max(starts[pc + 1 + target] - jump - 1, last) > 0x7FFF:
                return pc
    return None
