"""Random programs that call kernel functions: iterators, dynptrs over packets and memory, strings, regions.

The same shape as helper_generate: r6 the context, r7 what was seen so far, r8 and r9 plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from helper_generate import Generator
from helper_pieces import STARTS, Steps

from pktbpf.asm.builder import (
    ADD,
    AND,
    DW,
    JEQ,
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
    XOR,
    B,
    W,
    alu64_imm,
    alu64_reg,
    call,
    call_kfunc,
    ja,
    jmp_imm,
    label,
    ld_map,
    ld_map_value,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)

TEXTS = (b"port 80", b"", b"a", b"Hello", b"hello", b"HELLO!", b"lo", b"xyz", b"\xffab", b"aab", b"aaab", b"0123456")
PAIRS = ("strcmp", "strcasecmp", "strspn", "strcspn", "strstr")


class KernelGenerator(Generator):
    """Cases with kernel functions; the same seed gives the same ones."""

    def gadget(self, jumps: bool) -> Steps:
        if self.random.random() < 0.3:
            return super().gadget(jumps)
        gadgets: list[Callable[[], Steps]] = [
            self.numbers_loop, self.numbers_loop, self.bits_loop, self.packet_dynptr, self.packet_dynptr,
            self.memory_dynptr, self.strings, self.strings, self.regions, self.count,
        ]  # fmt: skip
        return self.random.choice(gadgets)()

    def numbers_loop(self) -> Steps:
        """for (i = start; i < end; i++), sometimes left early."""
        r, top, done = self.random, self.label(), self.label()
        start, end = r.choice((0, 1, -3, 5, 1 << 30)), r.choice((0, 3, 7, 2, -1, (1 << 30) + 2, (1 << 31) - 1))
        steps = [*self.pointer(R1, -176), mov64_imm(R2, start), mov64_imm(R3, end), call_kfunc("bpf_iter_num_new")]
        steps += [*self.fold(), label(top), *self.pointer(R1, -176), call_kfunc("bpf_iter_num_next")]
        steps += [jmp_imm(JEQ, R0, 0, done), ldx_mem(W, R1, R0, 0), alu64_imm(MUL, R7, 3), alu64_reg(ADD, R7, R1)]
        if r.random() < 0.4:
            steps += [jmp_imm(JEQ, R1, r.choice((1, 2, 6)), done)]
        if r.random() < 0.3:
            steps += self.elements()
        return [*steps, ja(top), label(done), *self.pointer(R1, -176), call_kfunc("bpf_iter_num_destroy")]

    def bits_loop(self) -> Steps:
        """The set bits of words on the stack."""
        r, top, done = self.random, self.label(), self.label()
        steps: Steps = []
        for n in range(4):
            steps.append(stx_mem(DW, R10, r.choice((R7, R8, R9)), -64 + 8 * n))
        count = r.choice((1, 1, 2, 4, 0, 512, 600))
        words = self.pointer(R2, -64) if r.random() < 0.9 else [mov64_imm(R2, 0)]
        steps += [*self.pointer(R1, -16), *words, mov64_imm(R3, min(count, 4) if count < 100 else count)]
        steps += [call_kfunc("bpf_iter_bits_new"), *self.fold(), st_mem(DW, R10, -64, 0)]
        steps += [label(top), *self.pointer(R1, -16), call_kfunc("bpf_iter_bits_next"), jmp_imm(JEQ, R0, 0, done)]
        steps += [ldx_mem(W, R1, R0, 0), *self.fold(R1), ja(top), label(done), *self.pointer(R1, -16)]
        return [*steps, call_kfunc("bpf_iter_bits_destroy")]

    def _skb(self, at: int) -> Steps:
        flags = self.random.choice((0, 0, 0, 0, 1))
        return [mov64_reg(R1, R6), mov64_imm(R2, flags), *self.pointer(R3, at), call_kfunc("bpf_dynptr_from_skb")]

    def packet_dynptr(self) -> Steps:
        """A dynptr over the packet, looked at in several ways."""
        steps = [*self._skb(-16), *self.fold()]
        for _ in range(self.random.randint(1, 4)):
            steps += self._look(-16)
        return steps

    def memory_dynptr(self) -> Steps:
        """A dynptr over a map's value, copied to and from."""
        r = self.random
        end = self.label()
        steps = [st_mem(DW, R10, -8, 0), ld_map(R1, "arr2"), *self.pointer(R2, -8), call("map_lookup_elem")]
        steps += [jmp_imm(JNE, R0, 0, end), mov64_imm(R0, 0), ja(f"{end}x"), label(end), mov64_reg(R1, R0)]
        steps += [mov64_imm(R2, r.choice((24, 8, 16, 0))), mov64_imm(R3, r.choice((0, 0, 0, 1)))]
        steps += [*self.pointer(R4, -16), call("dynptr_from_mem"), *self.fold(), *self._skb(-32), *self.fold()]
        for _ in range(r.randint(1, 3)):
            to, source = r.choice(((-16, -32), (-16, -16), (-32, -16), (-32, -32)))
            steps += [*self.pointer(R1, to), mov64_imm(R2, r.choice((0, 1, 8))), *self.pointer(R3, source)]
            steps += [mov64_imm(R4, r.choice((0, 2, 5))), mov64_imm(R5, r.choice((0, 1, 4, 8, 25)))]
            steps += [call_kfunc("bpf_dynptr_copy"), *self.fold()]
        steps += [*self.pointer(R1, -16), mov64_imm(R2, r.choice((0, 4, 30))), mov64_imm(R3, r.choice((0, 1, 4, 9)))]
        steps += [mov64_reg(R4, R8), call_kfunc("bpf_dynptr_memset"), *self.fold(), *self._look(-16)]
        return [*steps, label(f"{end}x")]

    def _look(self, at: int) -> Steps:
        r, end = self.random, self.label()
        kind = r.random()
        if kind < 0.35:
            size = r.choice((1, 4, 8, 16))
            steps: Steps = [st_mem(DW, R10, -80 + n, 7) for n in (0, 8)]
            buffer = self.pointer(R3, -80) if r.random() < 0.6 else [mov64_imm(R3, 0)]
            steps += [*self.pointer(R1, at), mov64_imm(R2, r.choice((0, 1, 4, 14, 60, -1))), *buffer]
            steps += [mov64_imm(R4, size), call_kfunc("bpf_dynptr_slice"), jmp_imm(JEQ, R0, 0, end)]
            return [*steps, ldx_mem(B, R1, R0, size - 1), *self.fold(R1), label(end), alu64_imm(ADD, R7, 1)]
        if kind < 0.5:
            start, stop = r.choice((0, 1, 3)), r.choice((1, 4, 9, 30, 0))
            steps = [*self.pointer(R1, at), mov64_imm(R2, start), mov64_imm(R3, stop)]
            return [*steps, call_kfunc("bpf_dynptr_adjust"), *self.fold()]
        if kind < 0.7:
            name = r.choice(("is_null", "is_rdonly", "size"))
            # A bool of the kernel is the low byte; what lies above it is left over from before.
            low = [] if name == "size" else [alu64_imm(AND, R0, 255)]
            return [*self.pointer(R1, at), call_kfunc(f"bpf_dynptr_{name}"), *low, *self.fold()]
        if kind < 0.8:
            steps = [*self.pointer(R1, at), *self.pointer(R2, -48), call_kfunc("bpf_dynptr_clone"), *self.fold()]
            return [*steps, *self.pointer(R1, -48), call_kfunc("bpf_dynptr_size"), *self.fold()]
        steps = [st_mem(DW, R10, -80, 7), *self.pointer(R1, -80), mov64_imm(R2, r.choice((1, 4, 8)))]
        steps += [*self.pointer(R3, at), mov64_imm(R4, r.choice((0, 2, 20))), mov64_imm(R5, r.choice((0, 0, 1)))]
        return [*steps, call("dynptr_read"), *self.fold(), ldx_mem(DW, R1, R10, -80), *self.fold(R1)]

    def _string(self, register: int, at: int) -> Steps:
        if self.random.random() < 0.3:
            return [ld_map_value(register, "ro", self.random.choice(STARTS))]
        return [*self._bytes(self.random.choice(TEXTS).ljust(8, b"\0"), at), *self.pointer(register, at)]

    def strings(self) -> Steps:
        """Any string function over two strings."""
        r = self.random
        steps = self._string(R8, -40)
        if r.random() < 0.05:
            steps = [mov64_imm(R8, r.choice((0, 5)))]
        name = r.choice((*PAIRS, "strlen", "strnlen", "strchr", "strnchr", "strchrnul", "strrchr", "strnstr"))
        number = r.choice((0, 1, 3, 8, 97, 111, 0x6C, 255, -1, 80))
        if name in PAIRS or name == "strnstr":
            steps += [*self._string(R9, -48), mov64_reg(R2, R9), mov64_imm(R3, r.choice((0, 2, 5, 8)))]
        elif name == "strnchr":
            steps += [mov64_imm(R2, r.choice((0, 2, 8))), mov64_imm(R3, number)]
        else:
            steps += [mov64_imm(R2, number if "chr" in name else abs(number))]
        steps += [mov64_reg(R1, R8), call_kfunc(f"bpf_{name}"), *self.fold()]
        return [*steps, mov64_imm(R8, 3), mov64_imm(R9, 1)]

    def regions(self) -> Steps:
        """Code between the begin and the end of a region."""
        kind = self.random.choice(("rcu_read_lock rcu_read_unlock", "preempt_disable preempt_enable", "irq"))
        inner = [alu64_imm(XOR, R7, 5), *self.elements()]
        if kind == "irq":
            begin = [*self.pointer(R1, -112), call_kfunc("bpf_local_irq_save")]
            return [*begin, *inner, *self.pointer(R1, -112), call_kfunc("bpf_local_irq_restore")]
        begin_name, end_name = kind.split()
        return [call_kfunc(f"bpf_{begin_name}"), *inner, call_kfunc(f"bpf_{end_name}")]

    def count(self) -> Steps:
        """How many entries a hash table has."""
        name = self.random.choice(("hash", "hash2", "arr", "ph"))
        return [ld_map(R1, name), call_kfunc("bpf_map_sum_elem_count"), alu64_imm(AND, R0, 255), *self.fold()]
