"""The Python builder: each function against the assembler's reading of the same instruction."""

from __future__ import annotations

import pytest

from pktbpf.asm import builder
from pktbpf.asm.builder import (
    ADD,
    ARSH,
    BE,
    CMPXCHG,
    DW,
    FETCH,
    JEQ,
    JNE,
    JSGT,
    LE,
    LOAD_ACQ,
    R0,
    R1,
    R2,
    R6,
    R10,
    STORE_REL,
    SUB,
    B,
    H,
    Step,
    W,
    alu32_imm,
    alu32_reg,
    alu64_imm,
    alu64_reg,
    atomic_op,
    bswap,
    build,
    call,
    call_kfunc,
    call_local,
    emit,
    endian,
    exit_,
    ja,
    ja32,
    jmp32_imm,
    jmp32_reg,
    jmp_imm,
    jmp_reg,
    label,
    ld_abs,
    ld_func,
    ld_imm64,
    ld_ind,
    ld_ksym,
    ld_map,
    ld_map_value,
    ldsx_mem,
    ldx_mem,
    may_goto,
    mov32_imm,
    mov32_reg,
    mov64_imm,
    mov64_reg,
    movsx32_reg,
    movsx64_reg,
    neg32,
    neg64,
    raw,
    sdiv_imm,
    sdiv_reg,
    smod_imm,
    smod_reg,
    st_mem,
    stx_mem,
)  # fmt: skip
from pktbpf.asm.extended_text import assemble
from pktbpf.isa.extended import Insn
from pktbpf.program import MapSpec

SAME = {
    "r0 = 2": mov64_imm(R0, 2),
    "w0 = -1": mov32_imm(R0, 0xFFFFFFFF),
    "r0 = r1": mov64_reg(R0, R1),
    "w0 = w1": mov32_reg(R0, R1),
    "r0 += 5": alu64_imm(ADD, R0, 5),
    "r0 -= r1": alu64_reg(SUB, R0, R1),
    "w0 s>>= 3": alu32_imm(ARSH, R0, 3),
    "w0 += w1": alu32_reg(ADD, R0, R1),
    "r0 = (s32)r1": movsx64_reg(R0, R1, 32),
    "w0 = (s8)w1": movsx32_reg(R0, R1, 8),
    "r0 = -r0": neg64(R0),
    "w0 = -w0": neg32(R0),
    "r0 s/= 3": sdiv_imm(R0, 3),
    "w0 s/= w1": sdiv_reg(R0, R1, 32),
    "r0 s%= 3": smod_imm(R0, 3),
    "r0 s%= r1": smod_reg(R0, R1),
    "r0 = be16 r0": endian(BE, R0, 16),
    "r0 = le64 r0": endian(LE, R0, 64),
    "r0 = bswap32 r0": bswap(R0, 32),
    "r0 = *(u16 *)skb[12]": ld_abs(H, 12),
    "r0 = *(u8 *)skb[r6 + 3]": ld_ind(B, R6, 3),
    "r0 = *(u32 *)(r1 +16)": ldx_mem(W, R0, R1, 16),
    "r0 = *(s8 *)(r1 -1)": ldsx_mem(B, R0, R1, -1),
    "*(u64 *)(r10 -8) = 7": st_mem(DW, R10, -8, 7),
    "*(u8 *)(r10 -8) = r1": stx_mem(B, R10, R1, -8),
    "lock *(u64 *)(r1 +0) += r2": atomic_op(DW, ADD, R1, R2, 0),
    "r2 = atomic_fetch_add((u32 *)(r1 +4), r2)": atomic_op(W, ADD | FETCH, R1, R2, 4),
    "r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)": atomic_op(DW, CMPXCHG, R1, R2, 0),
    "r0 = load_acquire((u8 *)(r1 +0))": atomic_op(B, LOAD_ACQ, R0, R1, 0),
    "store_release((u16 *)(r1 +0), r2)": atomic_op(H, STORE_REL, R1, R2, 0),
    "goto +3": ja(3),
    "gotol -3": ja32(-3),
    "may_goto +1": may_goto(1),
    "if r0 == 6 goto +1": jmp_imm(JEQ, R0, 6, 1),
    "if r0 != r1 goto +1": jmp_reg(JNE, R0, R1, 1),
    "if w0 s> -1 goto +1": jmp32_imm(JSGT, R0, -1, 1),
    "if w0 s> w1 goto +1": jmp32_reg(JSGT, R0, R1, 1),
    "call bpf_map_lookup_elem": call("map_lookup_elem"),
    "call 5": call(5),
    "call bpf_ktime_get_ns#5": call("bpf_ktime_get_ns"),
    "call pc+2": call_local(2),
    "call kernel-function#9": call_kfunc(9),
    "exit": exit_(),
    "r1 = 0x123456789 ll": ld_imm64(R1, 0x123456789),
    "r1 = -1 ll": ld_imm64(R1, -1),
    "r1 = subprog[+4] ll": ld_func(R1, 4),
    "r1 = ksym[runqueues] ll": ld_ksym(R1, "runqueues"),
    "r1 = btf_id[3] ll": Step(emit("LD_BTF_ID", R1, imm=3).insn, upper=0),
    ".insn 0xff, 1, 2, 3, 4": raw(0xFF, 1, 2, 3, 4),
}


@pytest.mark.parametrize("text", SAME)
def test_macro_equals_text(text: str) -> None:
    built, assembled = build([SAME[text]]), assemble(text)
    assert (built.insns, built.kvars) == (assembled.insns, assembled.kvars)


def test_build_resolves_labels_functions_and_maps() -> None:
    counts = MapSpec("ARRAY", 4, 8, 256, name="counts")
    steps = [
        mov64_reg(R6, R1),
        ld_map(R1, "counts"),
        ld_map_value(R2, "counts", 8),
        call_local("sub"),
        jmp_imm(JEQ, R0, 6, "reject"),
        ja("reject"),
        label("reject"),
        exit_(),
        label("sub"),
        ld_func(R2, "sub"),
        ja32("sub"),
    ]
    program = build(steps, name="p", maps={"counts": counts})
    text = """
        r6 = r1
        r1 = map[counts] ll
        r2 = map[counts][0]+8 ll
        call sub
        if r0 == 6 goto reject
        goto reject
reject: exit
sub:    r2 = subprog[sub] ll
        gotol sub
    """
    assert program.insns == assemble(text, maps={"counts": counts}).insns
    assert program.maps == {1: counts, 3: counts}
    assert program.name == "p"
    assert program.insns[5] == Insn(0x85, src=1, imm=3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: mov64_imm(R0, 1 << 32), "use ld_imm64"),
        (lambda: mov64_imm(16, 1), "register 16"),
        (lambda: ldx_mem(W, R0, R1, 40000), "16 signed bits"),
        (lambda: call("frobnicate"), "no helper"),
        (lambda: alu64_imm(0xE0, R0, 1), "no operation"),
        (lambda: atomic_op(B, ADD, R0, R1, 0), "no atomic operation"),
        (lambda: raw(256), "opcode 256"),
        (lambda: ld_imm64(R0, 1 << 64), "64 bits"),
        (lambda: build([ja("x")]), "'x' is missing"),
        (lambda: build([label("x"), label("x")]), "given twice"),
        (lambda: build([ld_map(R1, "m")]), "not among maps="),
        (lambda: build([ja("far"), *[exit_()] * 40000, label("far")]), "16 signed bits"),
    ],
)
def test_wrong_operands(make: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()  # type: ignore[operator]


def test_all_names_exist() -> None:
    assert all(hasattr(builder, name) for name in builder.__all__)
