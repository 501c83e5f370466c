"""Random programs that call helpers, loops, subprograms and other programs, most of which the kernel accepts.

r6 holds the context, r7 what has been seen so far, r8 and r9 plain numbers; every answer of a helper is folded into r7,
which the program returns, so that any difference shows. `Generator(seed).case()` gives programs and their maps.
"""

from __future__ import annotations

from collections.abc import Callable

from helper_lab import Spec, assemble
from helper_pieces import NEEDS, SPECS, Steps
from helper_pieces_calls import CallPieces
from helper_pieces_events import EventPieces
from helper_pieces_maps import MapPieces

from pktbpf.abi.context import BY_NAME, FIELDS, Access
from pktbpf.asm.builder import (
    ADD,
    AND,
    ARSH,
    DIV,
    DW,
    JEQ,
    JGT,
    JLE,
    JLT,
    JNE,
    JSET,
    JSGT,
    JSLT,
    LSH,
    MOD,
    MUL,
    OR,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    RSH,
    SUB,
    XOR,
    B,
    H,
    W,
    alu32_imm,
    alu32_reg,
    alu64_imm,
    alu64_reg,
    call,
    exit_,
    jmp32_imm,
    jmp_imm,
    jmp_reg,
    label,
    ld_abs,
    ld_ind,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)  # fmt: skip
from pktbpf.program import Program

READABLE = tuple(field for field in FIELDS if field.access in (Access.READ, Access.READ_WRITE) and field.name != "cb")
CLOCKS = ("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns", "jiffies64")
FIXED = ("get_smp_processor_id", "get_numa_node_id", "get_socket_uid", "get_netns_cookie")


class Generator(MapPieces, EventPieces, CallPieces):
    """A source of cases; the same seed gives the same ones."""

    def case(self) -> tuple[dict[str, Program], dict[str, Spec]]:
        """Programs (main, other0, other1) and the maps they name."""
        bodies = {name: self._program(name, jumps=True) for name in ("main",)}
        if any("jump" in _maps(steps) for steps in bodies.values()):
            bodies |= {name: self._program(name, jumps=self.random.random() < 0.3) for name in ("other0", "other1")}
        used = {name for steps in bodies.values() for name in _maps(steps)}
        for name in tuple(used):
            used.update(NEEDS.get(name, ()))
        specs = {name: spec for name, spec in SPECS.items() if name in used}
        return {name: assemble(steps, specs) for name, steps in bodies.items()}, specs

    def packets(self) -> list[bytes]:
        """A few payloads, some shorter than what programs read."""
        return [self.random.randbytes(self.random.choice((1, 5, 20, 64, 200))) for _ in range(3)]

    def _program(self, name: str, jumps: bool) -> Steps:
        self._tails, chosen = [], self.random.randint(1, 7)
        start = [mov64_reg(R6, R1), mov64_imm(R7, self.number()), mov64_imm(R8, self.number()), *self.restore()]
        body: Steps = [] if name == "main" else self.control_block()
        for _ in range(chosen):
            body += self.gadget(jumps and name != "other1")
        if self.random.random() < 0.3:
            body = [*body, alu64_imm(AND, R7, self.random.choice((0xFF, 3, 0xFFFF)))]
        return [*start, *body, mov64_reg(R0, R7), exit_(), *self._tails]

    def gadget(self, jumps: bool) -> Steps:
        """Any piece; jumps: also those that go on in another program."""
        gadgets: list[Callable[[], Steps]] = [
            self.arithmetic, self.packet, self.packet_bytes, self.elements, self.elements, self.push_pop, self.nested,
            self.percpu, self.ring, self.ring_record, self.numbers, self.compare, self.text, self.trace, self.dynptr,
            self.loop, self.each, self.function, self.control_block, self.branch, self.bloom, self.ring_dynptr,
            self.fixed, self.clock, self.chance, self.context, self.context, self.timer, self.direct, self.mention,
            self.perf, self.drain, self.print, self.bounded, self.within, self.borrowed,
        ]  # fmt: skip
        if jumps:
            gadgets += [self.tail_call, self.state, self.state]
        return self.random.choice(gadgets)()

    def arithmetic(self) -> Steps:
        op = self.random.choice((ADD, SUB, MUL, DIV, MOD, OR, AND, XOR, LSH, RSH, ARSH))
        form = self.random.choice((alu64_reg, alu32_reg))
        if self.random.random() < 0.5:
            amount = self.random.randint(1, 31) if op in (LSH, RSH, ARSH) else self.number() or 1
            return [(alu64_imm if form is alu64_reg else alu32_imm)(op, R7, amount)]
        return [form(op, R7, self.random.choice((R8, R9))), alu64_imm(ADD, R8, self.number())]

    def branch(self) -> Steps:
        end = self.label()
        test = self.random.choice((JEQ, JNE, JGT, JSGT, JSET, JLE, JSLT))
        jump = self.random.choice((jmp_imm, jmp32_imm))(test, R7, self.number(), end)
        return [jump, *self.gadget(False), label(end)]

    def packet(self) -> Steps:
        size = self.random.choice((B, H, W))
        if self.random.random() < 0.5:
            return [ld_abs(size, self.random.choice((0, 1, 3, 14, 60, -0x100000))), *self.fold()]
        return [mov64_reg(R1, R7), alu64_imm(AND, R7, 15), ld_ind(size, R7, self.random.randint(0, 4)), *self.fold()]

    def packet_bytes(self) -> Steps:
        size = self.random.choice((1, 3, 8, 16))
        steps = [st_mem(DW, R10, -16, 0), st_mem(DW, R10, -8, 0), mov64_reg(R1, R6)]
        steps += [mov64_imm(R2, self.random.choice((0, 1, 4, 10, 60, -1, 70000))), *self.pointer(R3, -16)]
        steps.append(mov64_imm(R4, size))
        if self.random.random() < 0.5:
            steps.append(call("skb_load_bytes"))
        else:
            steps += [mov64_imm(R5, self.random.choice((0, 1, 1, 2))), call("skb_load_bytes_relative")]
        return [*steps, *self.fold(), ldx_mem(DW, R1, R10, -16), *self.fold(R1)]

    def context(self) -> Steps:
        """One of the fields that a socket filter may read, whole or in part."""
        if self.random.random() < 0.05:
            return [ldx_mem(DW, R1, R6, BY_NAME["sk"].offset)]  # whether there is a socket is the kernel's own matter
        size = self.random.choice((B, H, W))
        width = {B: 1, H: 2, W: 4}[size]
        at = self.random.choice(READABLE).offset + width * self.random.randrange(4 // width)
        return [ldx_mem(size, R1, R6, at), *self.fold(R1)]

    def control_block(self) -> Steps:
        """A read or a write of cb, of any width."""
        size = self.random.choice((B, H, W, W, DW))
        width = {B: 1, H: 2, W: 4, DW: 8}[size]
        offset = 48 + width * self.random.randrange(20 // width)
        kind = self.random.random()
        if kind < 0.4:
            return [stx_mem(size, R6, R7, offset)]
        if kind < 0.5:
            return [st_mem(size, R6, offset, self.number())]
        return [ldx_mem(size, R1, R6, offset), *self.fold(R1)]

    def fixed(self) -> Steps:
        """Helpers whose answer can be foretold."""
        return [mov64_reg(R1, R6), call(self.random.choice(FIXED)), *self.fold()]

    def clock(self) -> Steps:
        """A clock does not go backward."""
        end, what = self.label(), self.random.choice(CLOCKS)
        steps = [call(what), stx_mem(DW, R10, R0, -8), call(what), ldx_mem(DW, R1, R10, -8)]
        return [*steps, jmp_reg(JLT, R0, R1, end), alu64_imm(ADD, R7, 3), label(end)]

    def chance(self) -> Steps:
        """32 random bits, and a socket's number, which stays what it is."""
        if self.random.random() < 0.5:
            return [call("get_prandom_u32"), alu64_imm(RSH, R0, 32), *self.fold()]
        steps = [mov64_reg(R1, R6), call("get_socket_cookie"), stx_mem(DW, R10, R0, -8), mov64_reg(R1, R6)]
        return [*steps, call("get_socket_cookie"), ldx_mem(DW, R1, R10, -8), alu64_reg(XOR, R0, R1), *self.fold()]


def _maps(steps: Steps) -> set[str]:
    return {step.map for step in steps if getattr(step, "map", None)}
