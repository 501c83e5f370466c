"""Pieces of random programs that work on maps."""

from __future__ import annotations

from helper_pieces import Pieces, Steps

from pktbpf.asm.builder import (
    ADD,
    AND,
    CMPXCHG,
    DW,
    FETCH,
    JEQ,
    OR,
    R0,
    R1,
    R2,
    R3,
    R4,
    R7,
    R8,
    R9,
    R10,
    XCHG,
    XOR,
    B,
    H,
    Step,
    W,
    alu64_imm,
    atomic_op,
    call,
    exit_,
    jmp_imm,
    label,
    ld_func,
    ld_imm64,
    ld_map,
    ld_map_value,
    ldsx_mem,
    ldx_mem,
    mov32_reg,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)  # fmt: skip

KEYED = ("arr", "arr2", "hash", "hash2", "pa", "ph", "lru", "lrufew", "lruph", "lpm", "timed")


class MapPieces(Pieces):
    """Lookups, updates, deletes, nested maps, timers, direct values."""

    def elements(self) -> Steps:
        name = self.random.choice(KEYED)
        steps = self.word(-8)
        if name == "lpm":
            steps = [st_mem(W, R10, -8, self.random.choice((0, 8, 12, 16, 24, 32, 33)))]
            steps.append(st_mem(W, R10, -4, self.random.choice((0, 0x0A, 0x010A, 0x02010A))))
        kind = self.random.random()
        if kind < 0.45:
            end = self.label()
            steps += [ld_map(R1, name), *self.pointer(R2, -8), call("map_lookup_elem")]
            steps += [jmp_imm(JEQ, R0, 0, end), *self._touch(), label(end), alu64_imm(ADD, R7, 1)]
            return steps
        if kind < 0.85:
            for offset in range(-40, -15, 8):
                steps += self.word(offset, small=False)
            steps += [ld_map(R1, name), *self.pointer(R2, -8), *self.pointer(R3, -40)]
            steps += [mov64_imm(R4, self.random.choice((0, 0, 0, 1, 2, 3, 4, 8))), call("map_update_elem")]
        else:
            steps += [ld_map(R1, name), *self.pointer(R2, -8), call("map_delete_elem")]
        return [*steps, *self.fold()]

    def _touch(self, register: int = R0) -> Steps:
        """Read or change the value that a register points to."""
        choice = self.random.random()
        if choice < 0.4:
            return [ldx_mem(DW, R1, register, 0), *self.fold(R1)]
        if choice < 0.7:
            return [stx_mem(DW, register, R7, 0)]
        op = self.random.choice((ADD, OR, AND, XOR, ADD | FETCH, XCHG))
        return [mov64_reg(R1, R8), atomic_op(DW, op, register, R1, 0), *self.fold(R1)]

    def push_pop(self) -> Steps:
        name = self.random.choice(("queue", "stack"))
        steps = [*self.word(-8, small=False), ld_map(R1, name), *self.pointer(R2, -8)]
        what = self.random.choice(("push", "push", "pop", "peek"))
        if what == "push":
            steps.append(mov64_imm(R3, self.random.choice((0, 0, 2, 1, 4))))
        steps += [call(f"map_{what}_elem"), *self.fold()]
        return [*steps, ldx_mem(DW, R1, R10, -8), *self.fold(R1)]

    def bloom(self) -> Steps:
        what = self.random.choice(("push", "peek"))
        flags = [mov64_imm(R3, self.random.choice((0, 0, 1)))] if what == "push" else []
        steps = [*self.word(-8), ld_map(R1, "bloom"), *self.pointer(R2, -8), *flags]
        return [*steps, call(f"map_{what}_elem"), *self.fold()]

    def nested(self) -> Steps:
        """Through a map of maps to a value of the inner map, whose kind decides what can be done."""
        end, name = self.label(), self.random.choice(("outer", "houter", "touter", "qouter"))
        steps = [*self.word(-8), ld_map(R1, name), *self.pointer(R2, -8), call("map_lookup_elem")]
        steps += [jmp_imm(JEQ, R0, 0, end), *self.word(-16), mov64_reg(R1, R0), *self.pointer(R2, -16)]
        kind, flags = self.random.random(), mov64_imm(R4, self.random.choice((0, 0, 1, 2)))
        if name == "qouter":
            what = self.random.choice(("push", "pop", "peek"))
            steps += [mov64_imm(R3, self.random.choice((0, 2)))] if what == "push" else []
            steps += [call(f"map_{what}_elem"), *self.fold(), ldx_mem(DW, R1, R10, -16), *self.fold(R1)]
        elif kind < 0.3:
            steps += [*self.pointer(R3, -16), flags, call("map_update_elem"), *self.fold()]
        elif kind < 0.4:
            steps += [call("map_delete_elem"), *self.fold()]
        else:
            steps += [call("map_lookup_elem"), jmp_imm(JEQ, R0, 0, end), *self._touch()]
        return [*steps, label(end)]

    def percpu(self) -> Steps:
        end, name = self.label(), self.random.choice(("pa", "ph", "lruph"))
        steps = [*self.word(-8), ld_map(R1, name), *self.pointer(R2, -8)]
        steps += [mov64_imm(R3, self.random.choice((0, 0, 1, 99))), call("map_lookup_percpu_elem")]
        return [*steps, jmp_imm(JEQ, R0, 0, end), *self._touch(), label(end)]

    def timer(self) -> Steps:
        """The answers of the timer helpers; no timer fires before the year 2060."""
        end, name, callback = self.label(), self.random.choice(("timed", "timearr")), f"t{self.label()}"
        steps = [*self.word(-8), ld_map(R1, name), *self.pointer(R2, -8), call("map_lookup_elem")]
        steps += [jmp_imm(JEQ, R0, 0, end), mov64_reg(R9, R0), stx_mem(DW, R0, R7, 0)]
        for _ in range(self.random.randint(1, 4)):
            steps += [mov64_reg(R1, R9), alu64_imm(ADD, R1, 8)]
            what = self.random.choice(("init", "init", "set_callback", "start", "cancel"))
            if what == "init":
                steps += [ld_map(R2, name), mov64_imm(R3, self.random.choice((0, 1, 1, 7, 3)))]
            elif what == "set_callback":
                steps.append(ld_func(R2, callback))
            elif what == "start":
                steps += [ld_imm64(R2, 1 << 60), mov64_imm(R3, self.random.choice((0, 0, 1, 2, 4)))]
            steps += [call(f"timer_{what}"), *self.fold()]
        if any(step.target == callback for step in steps if isinstance(step, Step)):
            self._tails += [label(callback), mov64_imm(R0, 0), exit_()]
        return [*steps, label(end), *self.restore()]

    def direct(self) -> Steps:
        """Loads, stores and atomic operations on a value that an immediate names, or on the stack."""
        size = self.random.choice((B, H, W, DW))
        kind = self.random.random()
        width = {B: 1, H: 2, W: 4, DW: 8}[size] if kind < 0.5 else 8
        at = width * self.random.randrange(64 // width)
        steps = [ld_map_value(R1, "glob", self.random.choice((0, at)))]
        at = at if steps[0].upper == 0 else 0
        if self.random.random() < 0.3:
            steps, at = [*self.word(-16, False), *self.word(-8), mov64_reg(R1, R10)], -16
        if kind < 0.25:
            return [*steps, stx_mem(size, R1, R7, at), ldx_mem(size, R2, R1, at), *self.fold(R2)]
        if kind < 0.4:
            return [*steps, st_mem(size, R1, at, self.number()), ldx_mem(size, R2, R1, at), *self.fold(R2)]
        if kind < 0.5:
            size = W if size == DW else size
            return [*steps, ldsx_mem(size, R2, R1, at), *self.fold(R2)]
        return [*steps, *self.atomic(at)]

    def atomic(self, at: int) -> Steps:
        """One atomic operation at r1 + at."""
        size = self.random.choice((W, DW))
        op = self.random.choice((ADD, OR, AND, XOR, ADD | FETCH, OR | FETCH, AND | FETCH, XOR | FETCH, XCHG, CMPXCHG))
        steps = [mov64_reg(R2, R8), mov64_reg(R0, self.random.choice((R8, R9))), atomic_op(size, op, R1, R2, at)]
        # Linux 6.18 may leave the upper half of r0 behind a 32-bit exchange, see tests/conformance.
        steps += [mov32_reg(R0, R0)] if (size, op) == (W, CMPXCHG) else []
        return [*steps, *self.fold(), *self.fold(R2), ldx_mem(DW, R2, R1, at), *self.fold(R2)]

    def mention(self) -> Steps:
        """A map of a kind that none of a socket filter's helpers takes."""
        return [ld_map(R1, self.random.choice(("stacks", "groups")))]
