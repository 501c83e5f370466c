"""Hypothesis strategies: packets that are mostly sensible, and classic programs that the kernel's checks admit."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pktbpf.abi import ancillary
from pktbpf.isa.classic import BY_NAME, ClassicInsn
from pktbpf.program import ClassicProgram
from pktbpf.testing.builder import PacketBuilder

_BUILD = PacketBuilder()
_U32 = 0xFFFFFFFF
_PORTS = st.sampled_from((53, 80, 443, 22, 67, 68, 123, 0, 65535)) | st.integers(0, 65535)
_IPV4 = st.ip_addresses(v=4).map(str)
_IPV6 = st.ip_addresses(v=6).map(str)
_VLAN = st.none() | st.none() | st.integers(0, 0xFFFF) | st.lists(st.integers(0, 0xFFFF), min_size=2, max_size=2)
KINDS = ("tcp", "udp", "icmp", "icmp6", "arp", "ip", "ip6", "dns", "eth", "noise")


@st.composite
def packets(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, max_payload: int = 64, link: bool = True) -> bytes:
    """Packets as bytes: Ethernet frames of the usual kinds, some tagged, cut short or with a byte changed.

    kinds: which of KINDS. max_payload: bytes. link: with the Ethernet header; without it, kinds that have no other
    header are left out.
    """
    usable = [kind for kind in kinds if link or kind not in ("eth", "noise")]
    kind = draw(st.sampled_from(usable))
    packet = draw(_of(kind, max_payload, link))
    damage = draw(st.sampled_from(("", "", "", "cut", "change")))
    if damage == "cut":
        return packet[: draw(st.integers(0, len(packet)))]
    if damage == "change" and packet:
        at = draw(st.integers(0, len(packet) - 1))
        return packet[:at] + bytes([draw(st.integers(0, 255))]) + packet[at + 1 :]
    return packet


def _of(kind: str, max_payload: int, link: bool) -> st.SearchStrategy[bytes]:
    payload = st.binary(max_size=max_payload)
    under: dict[str, Any] = {"vlan": _VLAN} if link else {"link": st.just(False)}
    ports = {"sport": _PORTS, "dport": _PORTS}
    four = {"src": _IPV4, "dst": _IPV4, "ttl": st.integers(0, 255), **under}
    six = {"src": _IPV6, "dst": _IPV6, **under}
    fragment = {
        "frag_offset": st.sampled_from((0, 0, 0, 1, 185)), "mf": st.booleans(), "options": st.binary(max_size=8)
    }  # fmt: skip
    match kind:
        case "tcp":
            flags = {"flags": st.integers(0, 255), "seq": st.integers(0, _U32)}
            both = _either({**ports, **flags, **four, **fragment}, {**ports, **flags, **six})
            return st.builds(lambda data, fields: _BUILD.tcp(data, **fields), payload, both)
        case "udp":
            both = _either({**ports, **four, **fragment}, {**ports, **six})
            return st.builds(lambda data, fields: _BUILD.udp(data, **fields), payload, both)
        case "icmp":
            return st.builds(_BUILD.icmp, payload, type=st.integers(0, 255), code=st.integers(0, 255), **four)
        case "icmp6":
            return st.builds(_BUILD.icmp6, payload, type=st.integers(0, 255), **six)
        case "arp":
            return st.builds(_BUILD.arp, op=st.integers(0, 4), spa=_IPV4, tpa=_IPV4, **under)
        case "ip":
            return st.builds(_BUILD.ip, payload, proto=st.integers(0, 255), **four, **fragment)
        case "ip6":
            return st.builds(_BUILD.ip6, payload, nxt=st.integers(0, 255), **six)
        case "dns":
            return st.builds(_BUILD.dns, st.sampled_from(("example.com", "a.b.test")), answer=st.booleans(), **four)
        case "eth":
            return st.builds(_BUILD.eth, payload, type=st.integers(0, 0xFFFF), vlan=_VLAN)
    return payload


def _either(one: dict[str, Any], other: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(one) | st.fixed_dictionaries(other)


_LOADS = ("LD_ABS_W", "LD_ABS_H", "LD_ABS_B", "LD_IND_W", "LD_IND_H", "LD_IND_B", "LDX_MSH")
_PLAIN = (
    "LD_IMM", "LDX_IMM", "LD_LEN", "LDX_LEN", "TAX", "TXA", "ADD_K", "ADD_X", "SUB_K", "SUB_X", "MUL_K", "MUL_X",
    "DIV_K", "DIV_X", "OR_K", "OR_X", "AND_K", "AND_X", "LSH_K", "LSH_X", "RSH_K", "RSH_X", "NEG", "MOD_K", "MOD_X",
    "XOR_K", "XOR_X",
)  # fmt: skip
_BRANCHES = ("JEQ_K", "JEQ_X", "JGT_K", "JGT_X", "JGE_K", "JGE_X", "JSET_K", "JSET_X")
_OFFSETS = st.sampled_from((12, 14, 20, 22, 23, 26, 30, 36, 38)) | st.integers(0, 80)
_CONSTANTS = (
    st.sampled_from((0x0800, 0x86DD, 0x0806, 6, 17, 1, 80, 53, 0x1FFF, 0)) | st.integers(0, 255) | st.integers(0, _U32)
)
_DEVICE_FREE = tuple(row.k for row in ancillary.ROWS if row.name in ("PROTOCOL", "PKTTYPE", "MARK", "QUEUE", "VLAN_TAG",
                     "VLAN_TAG_PRESENT", "VLAN_TPID", "ALU_XOR_X"))  # fmt: skip


@st.composite
def classic_programs(draw: st.DrawFn, max_length: int = 32, ancillary_loads: bool = True) -> ClassicProgram:
    """Classic programs that SO_ATTACH_FILTER admits: forward jumps, scratch slots written before they are read, a
    return at the end. max_length: most instructions. ancillary_loads: metadata loads among them.
    """
    length = draw(st.integers(1, max_length))
    everything = (1 << 16) - 1
    arriving = [everything] * length  # scratch slots written on every path that jumps there
    written = 0
    insns: list[ClassicInsn] = []
    for pc in range(length - 1):
        written &= arriving[pc]
        insn, name = draw(_insn(pc, length, written, ancillary_loads))
        insns.append(insn)
        if name in ("ST", "STX"):
            written |= 1 << insn.k
        targets = (insn.k,) if name == "JA" else (insn.jt, insn.jf) if name in _BRANCHES else ()
        for distance in targets:
            arriving[pc + 1 + distance] &= written
        if targets:
            written = everything  # the kernel's walk: what follows is judged by the jumps that lead there
    insns.append(draw(_returns()))
    return ClassicProgram(tuple(insns), origin="hypothesis")


@st.composite
def _insn(draw: st.DrawFn, pc: int, length: int, written: int, ancillary_loads: bool) -> tuple[ClassicInsn, str]:
    left = length - pc - 2  # the farthest distance of a jump
    group = draw(st.sampled_from(("load", "load", "branch", "branch", "plain", "memory", "return", "jump")))
    if group == "branch":
        name = draw(st.sampled_from(_BRANCHES))
        distances = st.integers(0, min(left, 255))
        k = draw(_CONSTANTS) if name.endswith("_K") else 0
        return ClassicInsn(BY_NAME[name].code, draw(distances), draw(distances), k), name
    if group == "load":
        name = draw(st.sampled_from(_LOADS))
        special = ancillary_loads and name == "LD_ABS_W" and draw(st.integers(0, 5)) == 5
        return _plain(name, draw(st.sampled_from(_DEVICE_FREE)) if special else draw(_OFFSETS)), name
    if group == "memory":
        return draw(_memory(written))
    if group == "return":
        insn = draw(_returns())
        return insn, "RET_K" if insn.code == BY_NAME["RET_K"].code else "RET_A"
    if group == "jump":
        return _plain("JA", draw(st.integers(0, left))), "JA"
    name = draw(st.sampled_from(_PLAIN))
    return _plain(name, draw(_operand(name))), name


def _plain(name: str, k: int) -> ClassicInsn:
    return ClassicInsn(BY_NAME[name].code, 0, 0, k)


def _operand(name: str) -> st.SearchStrategy[int]:
    if name in ("LSH_K", "RSH_K"):
        return st.integers(0, 31)
    if name in ("DIV_K", "MOD_K"):
        return st.integers(1, _U32)
    return _CONSTANTS if name.endswith(("_K", "_IMM")) else st.just(0)


@st.composite
def _memory(draw: st.DrawFn, written: int) -> tuple[ClassicInsn, str]:
    readable = [slot for slot in range(16) if written >> slot & 1]
    name = draw(st.sampled_from(("ST", "STX", "LD_MEM", "LDX_MEM") if readable else ("ST", "STX")))
    slot = draw(st.sampled_from(readable) if name.endswith("_MEM") else st.integers(0, 15))
    return _plain(name, slot), name


def _returns() -> st.SearchStrategy[ClassicInsn]:
    values = st.sampled_from((0, 0xFFFFFFFF, 262144, 96)) | st.integers(0, _U32)
    fixed = values.map(lambda k: ClassicInsn(BY_NAME["RET_K"].code, 0, 0, k))
    return fixed | st.just(ClassicInsn(BY_NAME["RET_A"].code))
