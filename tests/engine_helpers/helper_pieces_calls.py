"""Pieces of random programs that leave the straight line: loops, callbacks, functions, other programs."""

from __future__ import annotations

from helper_pieces import SPECS, Pieces, Steps

from pktbpf.asm.builder import (
    ADD,
    DW,
    JLT,
    JNE,
    MUL,
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
    SUB,
    XOR,
    B,
    H,
    W,
    alu64_imm,
    alu64_reg,
    call,
    call_local,
    exit_,
    jmp_imm,
    label,
    ld_abs,
    ld_func,
    ld_map,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    stx_mem,
)  # fmt: skip


class CallPieces(Pieces):
    """Loops, callbacks, functions, tail calls."""

    def loop(self) -> Steps:
        name, stop = f"loop{self.label()}", self.random.choice((1, 3, 100))
        body = [ldx_mem(DW, R3, R2, 0), alu64_imm(MUL, R3, 7), alu64_reg(ADD, R3, R1), stx_mem(DW, R2, R3, 0)]
        if self.random.random() < 0.3:
            body += [mov64_reg(R6, R1), mov64_reg(R7, R2), *self.word(-8), ld_map(R1, "hash"), *self.pointer(R2, -8)]
            body += [call("map_delete_elem"), ldx_mem(DW, R3, R7, 0), alu64_reg(XOR, R3, R0), stx_mem(DW, R7, R3, 0)]
            body.append(mov64_reg(R1, R6))
        out = f"{name}out"
        body += [mov64_imm(R0, 0), jmp_imm(JLT, R1, stop, out), mov64_imm(R0, 1), label(out), exit_()]
        self._tails += [label(name), *body]
        count = self.random.choice((0, 1, 2, 6, 1 << 23, -1)) if stop < 100 else 9
        steps = [*self.word(-8, False), mov64_imm(R1, count), ld_func(R2, name), *self.pointer(R3, -8)]
        steps += [mov64_imm(R4, self.random.choice((0, 0, 0, 1))), call("loop")]
        return [*steps, *self.fold(), ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def each(self) -> Steps:
        """A walk whose result does not depend on the order of entries, which the kernel's random seed decides."""
        name, over = f"each{self.label()}", self.random.choice(("arr", "pa", "hash", "ph", "lru", "arr2", "lruph"))
        ordered = SPECS[over].kind.endswith("ARRAY")
        body = [ldx_mem(W, R5, R2, 0), ldx_mem(DW, R2, R3, 0), ldx_mem(DW, R1, R4, 0)]
        body += [alu64_reg(MUL, R2, R2), alu64_reg(ADD, R1, R2), alu64_imm(MUL, R5, 77), alu64_reg(ADD, R1, R5)]
        body += [stx_mem(DW, R4, R1, 0)]
        if self.random.random() < 0.4:
            body += [alu64_imm(ADD, R2, 3), stx_mem(DW, R3, R2, 0)]
        body += [mov64_imm(R0, 1 if ordered and self.random.random() < 0.2 else 0), exit_()]
        self._tails += [label(name), *body]
        steps = [*self.word(-8, False), ld_map(R1, over), ld_func(R2, name), *self.pointer(R3, -8)]
        steps += [mov64_imm(R4, self.random.choice((0, 0, 0, 1))), call("for_each_map_elem"), *self.fold()]
        return [*steps, ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def function(self) -> Steps:
        """A subprogram; some read the packet, which ends them alone when it fails."""
        name, body = f"f{self.label()}", [mov64_reg(R9, R1), alu64_imm(MUL, R9, 5)]
        if self.random.random() < 0.5:
            where = self.random.choice((0, 10, 150))
            body += [mov64_reg(R6, R2), ld_abs(self.random.choice((B, H)), where), alu64_reg(ADD, R9, R0)]
        elif self.random.random() < 0.5:
            inner = f"g{self.label()}"
            self._tails += [label(inner), alu64_imm(XOR, R1, 99), mov64_reg(R6, R1), mov64_reg(R0, R6), exit_()]
            body += [call_local(inner), alu64_reg(SUB, R9, R0)]
        else:
            body += [mov64_reg(R1, R2), ld_map(R2, "jump"), mov64_imm(R3, self.random.randint(0, 4)), call("tail_call")]
        self._tails += [label(name), *body, mov64_reg(R0, R9), exit_()]
        return [mov64_reg(R1, R7), mov64_reg(R2, R6), call_local(name), *self.fold()]

    def tail_call(self) -> Steps:
        index = self.random.choice((0, 1, 2, 2, 3, 4, -1))
        return [mov64_reg(R1, R6), ld_map(R2, "jump"), mov64_imm(R3, index), call("tail_call"), alu64_imm(ADD, R7, 13)]

    def bounded(self) -> Steps:
        """A loop of the program itself; its number of rounds is known."""
        top = self.label()
        steps = [mov64_imm(R9, self.random.choice((1, 2, 9))), label(top), alu64_imm(MUL, R7, 5)]
        return [*steps, alu64_reg(ADD, R7, R9), alu64_imm(SUB, R9, 1), jmp_imm(JNE, R9, 0, top), *self.restore()]

    def within(self) -> Steps:
        """A callback that calls a function, which loops with a callback of its own over a value further up."""
        outer, inner, mine = (f"{kind}{self.label()}" for kind in ("wo", "wi", "wf"))
        body = [label(outer), mov64_reg(R6, R2), alu64_imm(ADD, R1, 2), call_local(mine), mov64_imm(R0, 0), exit_()]
        body += [label(mine), stx_mem(DW, R10, R2, -8), ld_func(R2, inner), mov64_reg(R3, R10), alu64_imm(ADD, R3, -8)]
        body += [mov64_imm(R4, 0), call("loop"), exit_(), label(inner), ldx_mem(DW, R3, R2, 0), ldx_mem(DW, R4, R3, 0)]
        body += [alu64_imm(MUL, R4, 3), alu64_reg(XOR, R4, R1), stx_mem(DW, R3, R4, 0), mov64_imm(R0, 0), exit_()]
        self._tails += body
        steps = [*self.word(-8, False), mov64_imm(R1, self.random.choice((1, 3))), ld_func(R2, outer)]
        steps += [*self.pointer(R3, -8), mov64_imm(R4, 0), call("loop"), *self.fold()]
        return [*steps, ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def borrowed(self) -> Steps:
        """A function that changes the caller's stack."""
        name = f"b{self.label()}"
        body = [ldx_mem(DW, R3, R1, 0), alu64_reg(MUL, R3, R2), stx_mem(DW, R1, R3, 0), mov64_reg(R0, R3), exit_()]
        self._tails += [label(name), *body]
        steps = [*self.word(-8, False), *self.pointer(R1, -8), mov64_reg(R2, R8), call_local(name), *self.fold()]
        return [*steps, ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def state(self) -> Steps:
        """Something into the control block, then into another program, which begins by looking there."""
        offset = 48 + 4 * self.random.randint(0, 4)
        return [stx_mem(W, R6, R7, offset), *self.tail_call()]
