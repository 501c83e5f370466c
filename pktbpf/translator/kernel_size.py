"""How many extended instructions the kernel itself makes of each classic one.

Two refusals at attach depend on it: a jump whose converted distance leaves 16 bits (EINVAL, bpf_convert_filter) and a
converted program larger than net.core.optmem_max (ENOMEM, sk_filter_charge). Our own translation is shorter, since a
packet load stays one instruction, so the kernel's lengths are kept here as a table of their own (Linux 6.18).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pktbpf.abi import ancillary
from pktbpf.isa.classic import ClassicInsn

PROLOGUE = 3
PROLOGUE_PACKET = 4  # skb->data and the head length, cached when the program reads the packet
PROG_HEADER = 96  # offsetof(struct bpf_prog, insns); 72 before the tag became a whole SHA-256 digest

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
    """The first instruction whose jump the conversion refuses, or None. Jumps must be in range.

    The converted distance must fit into 16 bits. On the kernel's first pass targets have no address yet and count as 0,
    so a jump that itself stands beyond 32,767 is refused however near its target is.
    """
    starts, at = [], PROLOGUE + (PROLOGUE_PACKET if any(reads_packet(i) for i in insns) else 0)
    for insn in insns:
        starts.append(at)
        at += length(insn)
    for pc, insn in enumerate(insns):
        if any(at > 0x7FFF or target - at - 1 > 0x7FFF for at, target in _jumps(insn, pc, starts)):
            return pc
    return None


def _jumps(insn: ClassicInsn, pc: int, starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(converted place, converted target) of each jump that the conversion makes of one instruction."""
    row = insn.row
    if row is None:
        return
    if row.name == "JA":
        yield starts[pc], starts[pc + 1 + insn.k]
    elif row.branch:
        jump = starts[pc] + _branch_jump_at(insn)
        single = _is_single(insn)
        target = insn.jt if insn.jf == 0 or not single else insn.jf
        yield jump, starts[pc + 1 + target]
        if not single:
            yield jump + 1, starts[pc + 1 + insn.jf]
