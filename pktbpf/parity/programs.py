"""Random classic programs, from a seed: valid by construction, or made invalid by a mutation.

`valid` covers every opcode, every ancillary load, negative offsets (network and link header), wrapping indirect loads,
scratch slots, divisions and shifts by X, jumps of all kinds. Most programs end by bringing A into a range in which the
kept length shows its value. Nothing here is checked by pktbpf's own checker: the kernel is the judge.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pktbpf.abi.ancillary import AD_BASE, BY_NAME, LL_BASE, NET_BASE
from pktbpf.abi.ancillary import ROWS as ANCILLARY
from pktbpf.abi.limits import CLASSIC_MEMWORDS
from pktbpf.isa.classic import BY_NAME as CLASSIC
from pktbpf.isa.classic import ClassicInsn
from pktbpf.program import ClassicProgram

_CODE = {name: row.code for name, row in CLASSIC.items()}
_ALL_SLOTS = (1 << CLASSIC_MEMWORDS) - 1
_LOADS_ABS = ("LD_ABS_W", "LD_ABS_H", "LD_ABS_B")
_LOADS_IND = ("LD_IND_W", "LD_IND_H", "LD_IND_B")
_ALU_K = ("ADD_K", "SUB_K", "MUL_K", "DIV_K", "OR_K", "AND_K", "LSH_K", "RSH_K", "MOD_K", "XOR_K")
_ALU_X = ("ADD_X", "SUB_X", "MUL_X", "DIV_X", "OR_X", "AND_X", "LSH_X", "RSH_X", "MOD_X", "XOR_X", "NEG")
_BRANCH_K = ("JEQ_K", "JGT_K", "JGE_K", "JSET_K")
_BRANCH_X = ("JEQ_X", "JGT_X", "JGE_X", "JSET_X")
_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_COMMON = (0x0800, 0x86DD, 0x0806, 6, 17, 1, 80, 443, 53, 67, 68, 0x1FFF, 4, 8, 14, 20)
# Their value cannot be foretold, or depends on how the kernel laid the packet out in memory; see `tamed`.
UNPREDICTABLE = ("RANDOM",)


def insn(name: str, k: int = 0, jt: int = 0, jf: int = 0) -> ClassicInsn:
    """An instruction by the name of its row; k is taken modulo 2^32."""
    return ClassicInsn(_CODE[name], jt, jf, k & 0xFFFFFFFF)


_FILLERS = (
    insn("LD_ABS_W", 1), insn("LD_ABS_B", 0), insn("LD_ABS_H", 0x8000), insn("LDX_MSH", 14), insn("LD_IND_H", 2),
    insn("TAX"), insn("LD_ABS_W", NET_BASE), insn("ADD_K", 1), insn("DIV_X"), insn("MOD_X"), insn("LD_IND_B"),
    insn("LD_ABS_W", BY_NAME["IFINDEX"].k), insn("LD_ABS_W", BY_NAME["VLAN_TAG_PRESENT"].k),
)  # fmt: skip


class ProgramMaker:
    """Seeded source of programs. `valid(n)` has exactly n instructions (n >= 1)."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self._choices: Sequence[tuple[int, Callable[[int], list[ClassicInsn]]]] = (
            (10, self._packet_load),
            (3, self._indirect_load),
            (2, self._odd_load),
            (4, self._ancillary),
            (1, self._header_length),
            (3, self._immediate),
            (6, self._alu),
            (3, self._move),
        )

    def length(self) -> int:
        """Mostly short, now and then long."""
        return self.random.choice((1, 2, 3, 5, 8, 8, 12, 12, 16, 16, 24, 24, 40, 80))

    def valid(self, count: int | None = None) -> ClassicProgram:
        """A program that the kernel attaches, `count` instructions long; one in six of any length is `arithmetic`."""
        if count is None and self.random.random() < 0.16:
            return self.arithmetic()
        count = self.length() if count is None else count
        ending = self._ending(count)
        body_length = count - len(ending)
        out: list[ClassicInsn] = []
        masks = [_ALL_SLOTS] * (count + 1)
        slots = 0
        while len(out) < body_length:
            pc = len(out)
            slots &= masks[pc]
            room = body_length - pc
            kind = self.random.random()
            if kind < 0.16:
                if room > 1 and self.random.random() < 0.3:
                    # A compare with a large constant says little unless A is large as well.
                    out.append(insn("LD_IMM", self.random.choice(_EDGES)))
                    pc += 1
                    slots &= masks[pc]
                made = self._jump(pc, count)
                for distance in _distances(made):
                    masks[pc + 1 + distance] &= slots
                slots = _ALL_SLOTS
                out.append(made)
            elif kind < 0.26:
                made, slots = self._scratch(slots)
                out.append(made)
            elif kind < 0.29:
                out.append(self._return())
            else:
                made_all = self._plain(room)
                for extra in range(pc + 1, pc + len(made_all)):
                    slots &= masks[extra]
                out += made_all
        return ClassicProgram(tuple(out + ending))

    def arithmetic(self) -> ClassicProgram:
        """A program without loads: edges of 32 bits through a few operations, then a compare that decides."""
        r = self.random
        out = [insn("LD_IMM", r.choice(_EDGES)), insn("LDX_IMM", r.choice(_EDGES))]
        for _ in range(r.randrange(4)):
            out += self._alu(1)
        if r.random() < 0.3:
            return ClassicProgram((*out, insn("RSH_K", r.randrange(32)), insn("AND_K", 0x3F), insn("RET_A")))
        compare = insn(r.choice(_BRANCH_K + _BRANCH_X), r.choice(_EDGES), *r.choice(((0, 1), (1, 0))))
        return ClassicProgram((*out, compare, insn("RET_K", 5), insn("RET_K", 9)))

    def _plain(self, room: int) -> list[ClassicInsn]:
        weights = [weight for weight, _ in self._choices]
        while True:
            make = self.random.choices(self._choices, weights)[0][1]
            made = make(room)
            if len(made) <= room:
                return made

    def _ending(self, count: int) -> list[ClassicInsn]:
        if count == 1 or self.random.random() < 0.12:
            return [self._return()]
        shown = self.random.choice((insn("AND_K", 0x3F), insn("MOD_K", 61), insn("AND_K", 0xFF), insn("RSH_K", 26)))
        ending = [shown, insn("ADD_K", 1), insn("RET_A")]
        return ending if count > 3 else ending[-1:]

    def _return(self) -> ClassicInsn:
        if self.random.random() < 0.5:
            return insn("RET_A")
        return insn("RET_K", self.random.choice((0, 1, 7, 8, 9, 20, 40, 0x40000, 0xFFFFFFFF)))

    def value(self) -> int:
        """A constant: an edge of 32 bits, a number that packets hold, or any."""
        pick = self.random.random()
        if pick < 0.35:
            return self.random.choice(_EDGES)
        if pick < 0.7:
            return self.random.choice(_COMMON)
        return self.random.getrandbits(self.random.choice((5, 8, 16, 32)))

    def _packet_load(self, room: int) -> list[ClassicInsn]:
        return [
            insn(
                self.random.choice(_LOADS_ABS),
                self.random.choice((0, 9, 12, 14, 16, 20, 23, self.random.randrange(48))),
            )
        ]

    def _indirect_load(self, room: int) -> list[ClassicInsn]:
        load = self.random.choice(_LOADS_IND)
        if self.random.random() < 0.4:
            # X and K that only meet at a small offset when the sum wraps.
            x = self.random.choice((0xFFFFFFFE, 0x80000000, 0xFFFFFFF0, 0x7FFFFFFF))
            target = self.random.randrange(40)
            return [insn("LDX_IMM", x), insn(load, target - x)]
        return [insn(load, self.random.choice((0, 0, 2, 14, 16, self.random.randrange(30), -1, -4, NET_BASE, LL_BASE)))]

    def _odd_load(self, room: int) -> list[ClassicInsn]:
        r = self.random
        base = r.choice((NET_BASE, NET_BASE, LL_BASE, LL_BASE, 0))
        distance = r.choice(
            (0, 0, 1, 9, 12, 14, 20, -1, -2, -14, r.randrange(64), 0x7FFF, 0x8000, 0x7FFFFFFF, 60, 61, 62)
        )
        k = (base + distance) & 0xFFFFFFFF
        if k >= AD_BASE:  # would be an unknown extension
            k = NET_BASE
        return [insn(r.choice((*_LOADS_ABS, "LDX_MSH")), k)]

    def _ancillary(self, room: int) -> list[ClassicInsn]:
        r = self.random
        row = r.choice(ANCILLARY)
        load = insn(r.choice(_LOADS_ABS), row.k)
        if row.name in UNPREDICTABLE:
            return [load, insn("AND_K", 0)]
        if row.name.startswith("NLATTR"):
            return [insn("LD_IMM", r.choice((0, 0, 4, 16, 20, 28))), insn("LDX_IMM", r.randrange(8)), load]
        return [load]

    def _header_length(self, room: int) -> list[ClassicInsn]:
        return [insn("LDX_MSH", self.random.choice((0, 14, 14, self.random.randrange(40), NET_BASE, LL_BASE + 14)))]

    def _immediate(self, room: int) -> list[ClassicInsn]:
        name = self.random.choice(("LD_IMM", "LDX_IMM", "LDX_IMM", "LD_LEN", "LDX_LEN"))
        small = self.random.randrange(24) if name == "LDX_IMM" and self.random.random() < 0.5 else self.value()
        return [insn(name, small)]

    def _alu(self, room: int) -> list[ClassicInsn]:
        if self.random.random() < 0.4:
            return [insn(self.random.choice(_ALU_X), self.value())]
        name = self.random.choice(_ALU_K)
        if name in ("LSH_K", "RSH_K"):
            return [insn(name, self.random.randrange(32))]
        return [insn(name, self.value() or 1)]

    def _move(self, room: int) -> list[ClassicInsn]:
        return [insn(self.random.choice(("TAX", "TXA")))]

    def _scratch(self, slots: int) -> tuple[ClassicInsn, int]:
        readable = [n for n in range(CLASSIC_MEMWORDS) if slots >> n & 1]
        if readable and self.random.random() < 0.6:
            return insn(self.random.choice(("LD_MEM", "LDX_MEM")), self.random.choice(readable)), slots
        slot = self.random.randrange(CLASSIC_MEMWORDS)
        return insn(self.random.choice(("ST", "STX")), slot), slots | 1 << slot

    def _jump(self, pc: int, count: int) -> ClassicInsn:
        farthest = count - pc - 2
        if self.random.random() < 0.12:
            return insn("JA", self.random.randint(0, min(farthest, 6)))
        near = min(farthest, self.random.choice((0, 1, 3, 8, 255)), 255)
        name = self.random.choice(_BRANCH_K + _BRANCH_X)
        jt, jf = self.random.randint(0, near), self.random.randint(0, near)
        if self.random.random() < 0.4:
            jt, jf = (0, jf) if self.random.random() < 0.5 else (jt, 0)
        return insn(name, self.value(), jt, jf)

    def invalid(self) -> ClassicProgram:
        """A valid program with one to three wounds; now and then it stays valid, which the kernel then says too."""
        insns = list(self.valid().insns)
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            mutate = self.random.choice(_MUTATIONS)
            if insns or mutate in _GROWING:
                mutate(self, insns)
        return ClassicProgram(tuple(insns))

    def long(self) -> ClassicProgram:
        """Near the limits: up to 4096 instructions, converted jumps around 32,767, sizes around net.core.optmem_max."""
        r = self.random
        count = r.choice((4096, 4095, 4096 - r.randrange(200), r.randrange(2000, 4096), 4097))
        filler = r.choice(_FILLERS)
        other = r.choice(
            (insn("JEQ_K", 0x80000000, 3, 5), insn("TXA"), insn("JSET_K", 1, 1, 0), insn("JGT_X", 0, 0, 1))
        )
        share = r.choice((0.0, 0.0, 0.1, 0.5))
        body = [other if r.random() < share else filler for _ in range(count)]
        body[-8:] = [insn("RET_K", 7)] * 8
        body[0] = insn("LD_IMM", 0)
        if r.random() < 0.7:
            body[1] = insn("JA", r.randrange(min(count - 4, 4000)))
        return ClassicProgram(tuple(body))


def _distances(made: ClassicInsn) -> tuple[int, ...]:
    return (made.k,) if made.code == _CODE["JA"] else (made.jt, made.jf)


def _any_code(maker: ProgramMaker, insns: list[ClassicInsn]) -> None:
    r = maker.random
    at = r.randrange(len(insns))
    insns[at] = insns[at]._replace(
        code=r.choice((r.randrange(256), r.randrange(0x10000), insns[at].code ^ 1 << r.randrange(8)))
    )


def _any_k(maker: ProgramMaker, insns: list[ClassicInsn]) -> None:
    r = maker.random
    at = r.randrange(len(insns))
    edge = r.choice(
        (0, 15, 16, 31, 32, len(insns) - at - 2, len(insns) - at - 1, AD_BASE + r.randrange(80), 0xFFFFFFFF)
    )
    insns[at] = insns[at]._replace(k=edge & 0xFFFFFFFF)


def _any_target(maker: ProgramMaker, insns: list[ClassicInsn]) -> None:
    r = maker.random
    at = r.randrange(len(insns))
    limit = len(insns) - at - 1
    edges = (limit, limit - 1, limit - 2, 255, r.randrange(256))
    jt, jf = (max(0, min(255, r.choice(edges))) for _ in range(2))
    insns[at] = ClassicInsn(_CODE[r.choice(_BRANCH_K)], jt, jf, insns[at].k)


def _cut(maker: ProgramMaker, insns: list[ClassicInsn]) -> None:
    del insns[maker.random.randrange(len(insns))]


def _no_return(maker: ProgramMaker, insns: list[ClassicInsn]) -> None:
    insns.append(insn(maker.random.choice(("TAX", "LD_LEN", "ADD_K", "LD_ABS_B")), 1))


def _unwritten(maker: ProgramMaker, insns: list[ClassicInsn]) -> None:
    at = maker.random.randrange(len(insns) + 1)
    insns.insert(at, insn(maker.random.choice(("LD_MEM", "LDX_MEM")), maker.random.randrange(20)))


def _bad_operand(maker: ProgramMaker, insns: list[ClassicInsn]) -> None:
    r = maker.random
    wound = r.choice(
        (insn("DIV_K", 0), insn("MOD_K", 0), insn("LSH_K", 32), insn("RSH_K", 0xFFFFFFFF), insn("ST", 16),
         insn("STX", 99),
         insn("LD_ABS_W", AD_BASE + r.randrange(0x1000)), insn("JA", 0xFFFFFFFF), insn("LDX_MSH", AD_BASE),
         insn("LD_IND_B", AD_BASE + 4), ClassicInsn(0x0E, 0, 0, 0), ClassicInsn(0x21, 0, 0, 4))
    )  # fmt: skip
    insns.insert(r.randrange(len(insns) + 1), wound)


_Mutation = Callable[[ProgramMaker, list[ClassicInsn]], None]
_GROWING: tuple[_Mutation, ...] = (_no_return, _unwritten, _bad_operand)
_MUTATIONS: tuple[_Mutation, ...] = (_any_code, _any_k, _any_target, _cut, *_GROWING)
