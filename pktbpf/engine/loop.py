"""The one compiled loop over packed words (pktbpf.engine.image) for all packets of a batch.

In: an image, Skbs columns, and memory (a Workspace of pktbpf.engine.interpreter). Out: verdict and fault columns. Every
memory access is bounds-checked (pktbpf.engine.memory, pktbpf.engine.packet); jumps were checked when the image was
built; steps over backward jumps and calls draw on a budget; so no program, checked or not, can leave its own memory or
run for ever.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pktbpf.abi.context import COLUMN
from pktbpf.abi.limits import MAX_FRAMES, REG_FP, STACK_SIZE
from pktbpf.abi.map_kinds import BY_NAME as KINDS
from pktbpf.engine import common_helpers
from pktbpf.engine.arith import M32, U0, U16, U32, arsh, sdiv, sext8, sext16, sext32, smod, swap16, swap32, swap64
from pktbpf.engine.base import Fault
from pktbpf.engine.basic_helpers import call_basic
from pktbpf.engine.common_helpers import call_common
from pktbpf.engine.control_helpers import (
    DRAIN,
    F_KIND,
    F_LIMIT,
    F_R10,
    F_RETURN,
    FOR_EACH,
    LOOP,
    TAIL_CALL,
    again,
    tail_call,
)  # fmt: skip
from pktbpf.engine.control_helpers import begin as begin_walk
from pktbpf.engine.image import IMMEDIATE, OP
from pktbpf.engine.memory import (
    B_CAPTURED,
    B_COUNT,
    B_DATA,
    B_HEAD,
    B_LENGTH,
    B_MAC,
    B_META,
    B_NETWORK,
    B_REGIONS,
    B_REGS,
    B_STATE,
    B_WORK,
    CB_BEGIN,
    CB_END,
    CONTEXT_BASE,
    CONTEXT_REGION,
    PACKET_REGION,
    READ,
    STACK_BASE,
    WORK,
    WRITE,
    context_load,
    load,
    resolve,
    store,
)  # fmt: skip
from pktbpf.engine.packet import LOADED, UNKNOWN, slow_load
from pktbpf.engine.rare_kernel import call_kernel
from pktbpf.engine.rare_maps import call_maps
from pktbpf.engine.rare_rings import call_rings
from pktbpf.engine.rare_text import call_text
from pktbpf.engine.rare_timers import T_RUNNING, call_timers, expired
from pktbpf.hot import Bytes, Ints, Scalar, Words, borrowed, hot, load_be32, load_u8, peek64, poke64
from pktbpf.maps.layout import FIRST_NUMBER, KIND, MAP_POINTER, MAX_ENTRIES, STRIDE
from pktbpf.maps.layout import clear as clear_memory

# Operations of the loop as numbers; the lint test compares these lists with the table.
FAULT_OPCODE, FAULT_JUMP, RETURN_ZERO, EXIT, CALL_HELPER, CALL_LOCAL, JA, JA32, MAY_GOTO, LD_IMM64 = (
    OP[n] for n in ("FAULT_OPCODE", "FAULT_JUMP", "RETURN_ZERO", "EXIT", "CALL_HELPER", "CALL_LOCAL", "JA", "JA32",
                    "MAY_GOTO", "LD_IMM64")
)  # fmt: skip
ADD64, SUB64, MUL64, DIV64, OR64, AND64, LSH64, RSH64, MOD64, XOR64, MOV64, ARSH64, SDIV64, SMOD64, NEG64 = (
    OP[f"{n}64"] for n in ("ADD", "SUB", "MUL", "DIV", "OR", "AND", "LSH", "RSH", "MOD", "XOR", "MOV", "ARSH", "SDIV",
                           "SMOD", "NEG")
)  # fmt: skip
ADD32, SUB32, MUL32, DIV32, OR32, AND32, LSH32, RSH32, MOD32, XOR32, MOV32, ARSH32, SDIV32, SMOD32, NEG32 = (
    OP[f"{n}32"] for n in ("ADD", "SUB", "MUL", "DIV", "OR", "AND", "LSH", "RSH", "MOD", "XOR", "MOV", "ARSH", "SDIV",
                           "SMOD", "NEG")
)  # fmt: skip
MOVSX864, MOVSX1664, MOVSX3264, MOVSX832, MOVSX1632 = (
    OP[n] for n in ("MOVSX864", "MOVSX1664", "MOVSX3264", "MOVSX832", "MOVSX1632")
)
JEQ64, JGT64, JGE64, JSET64, JNE64, JSGT64, JSGE64, JLT64, JLE64, JSLT64, JSLE64 = (
    OP[f"{n}64"] for n in ("JEQ", "JGT", "JGE", "JSET", "JNE", "JSGT", "JSGE", "JLT", "JLE", "JSLT", "JSLE")
)  # fmt: skip
JEQ32, JGT32, JGE32, JSET32, JNE32, JSGT32, JSGE32, JLT32, JLE32, JSLT32, JSLE32 = (
    OP[f"{n}32"] for n in ("JEQ", "JGT", "JGE", "JSET", "JNE", "JSGT", "JSGE", "JLT", "JLE", "JSLT", "JSLE")
)  # fmt: skip
MASK, SWAP16, SWAP32, SWAP64, LDX, LDSX, ST, STX, ATOMIC = (
    OP[n] for n in ("MASK", "SWAP16", "SWAP32", "SWAP64", "LDX", "LDSX", "ST", "STX", "ATOMIC")
)
PACKET, PACKET_JUMP, RETURN_IMM, HEADER_LENGTH = (
    OP[n] for n in ("PACKET", "PACKET_JUMP", "RETURN_IMM", "HEADER_LENGTH")
)

F_INDETERMINATE, F_OPCODE, F_JUMP, F_MEMORY, F_BUDGET, F_CALL, F_DEPTH, F_CONTEXT = (
    int(f) for f in (Fault.INDETERMINATE, Fault.OPCODE, Fault.JUMP, Fault.MEMORY, Fault.BUDGET, Fault.CALL, Fault.DEPTH,
                     Fault.CONTEXT)
)  # fmt: skip

PROBE = np.uint64(IMMEDIATE)
U1, U2, U3, U4, U8, U15, U31, U63, U512 = (np.uint64(n) for n in (1, 2, 3, 4, 8, 15, 31, 63, STACK_SIZE))
R_READ, R_WRITE, R_BOTH = np.uint64(READ), np.uint64(WRITE), np.uint64(READ | WRITE)
ARRAY = KINDS["ARRAY"].number
FRAME_POINTER = np.uint64(8 * REG_FP)
BYTES_PER_STEP = np.uint64(WORK)
FIRST_MAP, PACKET_ROW = np.uint64(FIRST_NUMBER), np.uint64(PACKET_REGION)
MAP_LOOKUP = common_helpers.LOOKUP
MAC, NETWORK, CPU = COLUMN["mac_offset"], COLUMN["network_offset"], COLUMN["cpu"]


@hot
def fetch(
    data: Bytes,
    base: Scalar,
    length: Scalar,
    captured: Scalar,
    head: Scalar,
    mac: Scalar,
    network: Scalar,
    offset: Scalar,
    size: Scalar,
) -> Scalar:
    """slow_load for a 32-bit offset that the fast path did not take."""
    return slow_load(data, base, length, captured, head, mac, network, np.int64(np.int32(offset)), size)


@hot
def atomic(regs: Scalar, word: Scalar, place: Scalar, size: Scalar) -> None:
    """One atomic operation on 4 or 8 bytes; nothing else runs meanwhile, so plain loads and stores do. regs: machine
    address of the registers."""
    operation = (word >> U32) & np.uint64(0xFFFF)
    source, target = regs + ((word >> np.uint64(12)) & U15) * U8, regs + ((word >> U8) & U15) * U8
    if operation == np.uint64(0x100):  # load-acquire
        poke64(target, load(place, size))
        return
    if operation == np.uint64(0x110):  # store-release
        store(place, size, peek64(source))
        return
    value = peek64(source) if size == U8 else peek64(source) & M32
    old = load(place, size)
    kind = operation & np.uint64(0xF0)
    if operation == np.uint64(0xF1):  # compare and exchange with r0
        expected = peek64(regs) if size == U8 else peek64(regs) & M32
        if old == expected:
            store(place, size, value)
        poke64(regs, old)
        return
    if operation == np.uint64(0xE1):
        store(place, size, value)
    elif kind == np.uint64(0x00):
        store(place, size, old + value)
    elif kind == np.uint64(0x40):
        store(place, size, old | value)
    elif kind == np.uint64(0x50):
        store(place, size, old & value)
    else:
        store(place, size, old ^ value)
    if operation & U1:
        poke64(source, old)


@hot
def enter(regs: Scalar, row: Words, pc: Scalar, stack: Scalar, depth: Scalar) -> None:
    """Save what a call must give back into a frame's row, and move the frame pointer up to a cleared stack. regs,
    stack: machine addresses."""
    for index in range(4):
        row[index] = peek64(regs + np.uint64(48 + 8 * index))
    frame_pointer = peek64(regs + FRAME_POINTER)
    row[F_R10], row[F_RETURN], row[F_KIND] = frame_pointer, np.uint64(pc), U0
    clear_memory(stack + np.uint64(STACK_SIZE * (depth + 1)), U512)
    poke64(regs + FRAME_POINTER, frame_pointer + U512)


@hot
def run_batch(
    words: Words,
    entry: Scalar,
    zero_memory: Scalar,
    zero_cb: Scalar,
    data: Bytes,
    base: Ints,
    length: Ints,
    captured: Ints,
    head: Ints,
    meta: Ints,
    no_meta: Scalar,
    mac_default: Scalar,
    network_default: Scalar,
    delivered: Any,
    regions: Words,
    stack: Bytes,
    context: Bytes,
    frames: Words,
    regs: Words,
    addresses: Words,
    basic: Scalar | None,
    world: Scalar | None,
    kinds: Scalar | None,
    rings: Scalar | None,
    text: Scalar | None,
    timers: Scalar | None,
    kernel: Scalar | None,
    budget: Scalar,
    counts: Words | None,
    verdict: Any,
    fault: Any,
) -> None:
    """Run the image over every packet.

    counts: None, or uint64[slots, 2] of executions and taken branches. basic, world, kinds, rings: 0 where the
    program calls basic helpers only, any others, or those of a rarer group; text, timers, kernel: machine addresses of
    their groups' states, see pktbpf.engine.groups. What is None is not compiled; most filters call nothing.
    """
    block_at, data_at = addresses[0], addresses[1]
    regs_at, table, rows = peek64(block_at + B_REGS), peek64(block_at + B_REGIONS), peek64(block_at + B_COUNT)
    stack_at, context_at = regions[U1, U0], regions[U2, U0]
    return_zero, plain_exit = np.int64(len(words) - 2), np.int64(len(words) - 1)
    number = -1
    while True:
        number += 1
        if number >= len(base):
            break
        if not delivered[number]:
            verdict[number], fault[number] = 0, 2
            continue
        begin, size, have = np.uint64(base[number]), length[number], np.uint64(max(captured[number], 0))
        # Not a slice of meta: its reference count would cost 4 ns a packet.
        shown = 0 if no_meta else number
        mac = mac_default if no_meta else meta[shown, MAC]
        network = network_default if no_meta else meta[shown, NETWORK]
        for index in range(11):
            regs[np.uint64(index)] = U0
        regs[U1] = CONTEXT_BASE
        regs[np.uint64(6)] = CONTEXT_BASE
        regs[np.uint64(10)] = STACK_BASE + U512
        if entry == 0:
            regs[np.uint64(6)] = U0
        if zero_memory:
            clear_memory(stack_at + U512 - np.uint64(zero_memory), np.uint64(zero_memory))
        if zero_cb:
            clear_memory(context_at + CB_BEGIN, CB_END - CB_BEGIN)
        pc, depth, fuel, failure, may_goto = np.int64(entry), np.int64(0), np.int64(budget), 0, np.int64(0)
        tail_calls, limit = 0, np.int64(MAX_FRAMES - 1)
        if world is not None:
            poke64(block_at + B_META, addresses[2] + np.uint64(0 if no_meta else number * meta.shape[1] * 8))
            poke64(block_at + B_DATA, data_at + begin)
            poke64(block_at + B_LENGTH, np.uint64(size))
            poke64(block_at + B_CAPTURED, have)
            poke64(block_at + B_HEAD, np.uint64(head[number]))
            poke64(block_at + B_MAC, np.uint64(mac))
            poke64(block_at + B_NETWORK, np.uint64(network))
        if kernel is not None:
            regions[PACKET_ROW, 0], regions[PACKET_ROW, 1] = data_at + begin, have
        if timers is not None:
            due = expired(timers, borrowed(meta, shown), regs, block_at, addresses[3])
            if due >= 0:
                pc = due
                poke64(block_at + B_META, addresses[3])
        while True:
            word = words[np.uint64(pc)]
            op = np.int64(word & np.uint64(0x7F))
            dst = (word >> U8) & U15
            src = (word >> np.uint64(12)) & U15
            imm = np.uint64(np.int64(word) >> np.int64(32))
            b = imm if word & np.uint64(0x80) else regs[src]
            a = regs[dst]
            if counts is not None:
                counts[pc, 0] += U1
            pc += 1
            fuel -= 1
            if fuel < 0:
                failure = F_BUDGET
                break
            if op == PACKET_JUMP:
                where = (regs[src] + imm) & M32
                if where + U4 <= have:
                    value = load_be32(data, begin + where) >> ((dst >> U1) << U3)
                else:
                    value, outcome = fetch(
                        data, base[number], size, captured[number], head[number], mac, network, where,
                        np.int64(U4 - (dst >> U1)),
                    )  # fmt: skip
                    if outcome != LOADED:
                        if outcome == UNKNOWN:
                            failure = F_INDETERMINATE
                            break
                        pc = return_zero
                        continue
                regs[U0] = value
                test = words[np.uint64(pc)]
                if (value == (test >> U32)) == ((dst & U1) != U0):
                    pc += np.int64((test >> U16) & np.uint64(0xFFFF)) + 1
                else:
                    pc += np.int64((word >> U16) & np.uint64(0xFFFF)) + 1
            elif op == RETURN_IMM:
                regs[U0] = imm & M32
                if depth == 0:
                    break
                pc = plain_exit
            elif op == HEADER_LENGTH:
                where = imm & M32
                if where + U1 <= have:
                    value = load_u8(data, begin + where)
                else:
                    value, outcome = fetch(
                        data, base[number], size, captured[number], head[number], mac, network, where, np.int64(1)
                    )
                    if outcome != LOADED:
                        if outcome == UNKNOWN:
                            failure = F_INDETERMINATE
                            break
                        pc = return_zero
                        continue
                regs[np.uint64(7)] = (value & U15) << U2
                regs[U2] = regs[U0]
                pc += 6
            elif op == JEQ64:
                if a == b:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
            elif op == JNE64:
                if a != b:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
            elif op == JSET64:
                if a & b:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
            elif op == JGT64:
                if a > b:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
            elif op == JGE64:
                if a >= b:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
            elif op == JLT64:
                if a < b:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
            elif op == JLE64:
                if a <= b:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
            elif op == JA:
                pc += np.int64(np.int16(word >> U16))
            elif op == PACKET:
                where = (regs[src] + imm) & M32
                if where + U4 <= have:
                    value = load_be32(data, begin + where) >> ((dst >> U1) << U3)
                else:
                    value, outcome = fetch(
                        data, base[number], size, captured[number], head[number], mac, network, where,
                        np.int64(U4 - (dst >> U1)),
                    )  # fmt: skip
                    if outcome != LOADED:
                        if outcome == UNKNOWN:
                            failure = F_INDETERMINATE
                            break
                        pc = return_zero
                        continue
                regs[U0] = value
            elif op == MOV64:
                regs[dst] = b
            elif op == MOV32:
                regs[dst] = b & M32
            elif op == AND32:
                regs[dst] = a & b & M32
            elif op == AND64:
                regs[dst] = a & b
            elif op == ADD64:
                regs[dst] = a + b
            elif op == ADD32:
                regs[dst] = (a + b) & M32
            elif op == SUB64:
                regs[dst] = a - b
            elif op == SUB32:
                regs[dst] = (a - b) & M32
            elif op == MUL64:
                regs[dst] = a * b
            elif op == MUL32:
                regs[dst] = (a * b) & M32
            elif op == OR64:
                regs[dst] = a | b
            elif op == OR32:
                regs[dst] = (a | b) & M32
            elif op == XOR64:
                regs[dst] = a ^ b
            elif op == XOR32:
                regs[dst] = (a ^ b) & M32
            elif op == LSH64:
                regs[dst] = a << (b & U63)
            elif op == LSH32:
                regs[dst] = (a << (b & U31)) & M32
            elif op == RSH64:
                regs[dst] = a >> (b & U63)
            elif op == RSH32:
                regs[dst] = (a & M32) >> (b & U31)
            elif op == ARSH64:
                regs[dst] = arsh(a, b & U63)
            elif op == ARSH32:
                regs[dst] = arsh(sext32(a), b & U31) & M32
            elif op == NEG64:
                regs[dst] = U0 - a
            elif op == NEG32:
                regs[dst] = (U0 - a) & M32
            elif op == DIV64:
                regs[dst] = U0 if b == U0 else a // b
            elif op == DIV32:
                regs[dst] = U0 if b & M32 == U0 else (a & M32) // (b & M32)
            elif op == MOD64:
                regs[dst] = a if b == U0 else a % b
            elif op == MOD32:
                regs[dst] = (a & M32) if b & M32 == U0 else (a & M32) % (b & M32)
            elif op == SDIV64:
                regs[dst] = sdiv(a, b)
            elif op == SDIV32:
                regs[dst] = sdiv(sext32(a), sext32(b)) & M32
            elif op == SMOD64:
                regs[dst] = smod(a, b)
            elif op == SMOD32:
                regs[dst] = smod(sext32(a), sext32(b)) & M32
            elif op == MOVSX864:
                regs[dst] = sext8(b)
            elif op == MOVSX1664:
                regs[dst] = sext16(b)
            elif op == MOVSX3264:
                regs[dst] = sext32(b)
            elif op == MOVSX832:
                regs[dst] = sext8(b) & M32
            elif op == MOVSX1632:
                regs[dst] = sext16(b) & M32
            elif op == MASK:
                if imm < np.uint64(64):
                    regs[dst] = a & ((U1 << imm) - U1)
            elif op == SWAP16:
                regs[dst] = swap16(a)
            elif op == SWAP32:
                regs[dst] = swap32(a)
            elif op == SWAP64:
                regs[dst] = swap64(a)
            elif op == LD_IMM64:
                regs[dst] = words[np.uint64(pc)]
                pc += 1
            elif op == LDX or op == LDSX:
                address = regs[src] + np.uint64(np.int64(np.int16(word >> U16)))
                if address >> U32 == np.uint64(CONTEXT_REGION):
                    value, ok = context_load(address & M32, imm, meta, shown, size, context_at)
                    if ok == 0:
                        failure = F_CONTEXT
                        break
                else:
                    place = resolve(address, imm, R_READ, table, rows)
                    if place != U0:
                        value = load(place, imm)
                    elif word & PROBE:
                        value = U0
                    else:
                        failure = F_MEMORY
                        break
                if op == LDSX:
                    if imm == U4:
                        value = sext32(value)
                    elif imm == U2:
                        value = sext16(value)
                    else:
                        value = sext8(value)
                regs[dst] = value
            elif op == STX or op == ST:
                address = a + np.uint64(np.int64(np.int16(word >> U16)))
                width = imm if op == STX else src
                if address >> U32 == np.uint64(CONTEXT_REGION):
                    where = address & M32
                    if where < CB_BEGIN or where + width > CB_END:
                        failure = F_CONTEXT
                        break
                place = resolve(address, width, R_WRITE, table, rows)
                if place == U0:
                    failure = F_MEMORY
                    break
                store(place, width, regs[src] if op == STX else imm)
            elif op == ATOMIC:
                width = (word >> np.uint64(48)) & np.uint64(0xFF)
                acquire = (word >> U32) & np.uint64(0xFFFF) == np.uint64(0x100)
                address = (regs[src] if acquire else a) + np.uint64(np.int64(np.int16(word >> U16)))
                if address >> U32 == np.uint64(CONTEXT_REGION):
                    failure = F_CONTEXT
                    break
                place = resolve(address, width, R_BOTH, table, rows)
                if place == U0:
                    failure = F_MEMORY
                    break
                atomic(regs_at, word, place, width)
            elif op == EXIT or op == RETURN_ZERO:
                if op == RETURN_ZERO:
                    regs[U0] = U0
                if depth == 0:
                    break
                saved = borrowed(frames, depth - 1)
                if world is not None and saved[F_KIND] != U0:
                    more, value = again(block_at, saved, depth - 1, np.uint64(meta[shown, CPU]), regs[U0], rings)
                    if more:
                        pc = np.int64(value)
                        continue
                    regs[U0] = value
                depth -= 1
                limit = np.int64(saved[F_LIMIT])
                for index in range(4):
                    regs[np.uint64(6 + index)] = saved[index]
                regs[np.uint64(10)] = saved[F_R10]
                pc = np.int64(saved[F_RETURN])
            elif op == CALL_LOCAL:
                if depth >= limit:
                    failure = F_DEPTH
                    break
                enter(regs_at, borrowed(frames, depth), pc, stack_at, depth)
                frames[depth, F_LIMIT] = np.uint64(limit)
                depth += 1
                pc += np.int64(imm)
            elif op == CALL_HELPER:
                value, ok = U0, F_CALL
                if basic is not None:
                    value, ok = call_basic(
                        np.int64(imm), regs, borrowed(meta, shown), data, base[number], size, captured[number], network,
                        peek64(block_at + B_STATE),
                    )
                if world is not None:
                    called = np.int64(imm)
                    if called == MAP_LOOKUP:
                        # Arrays inline, as the kernel does it (array_map_gen_lookup); 60 ns a call otherwise.
                        which = (regs[U1] ^ MAP_POINTER) >> U32
                        place = resolve(regs[U2], U4, R_READ, table, rows)
                        if (
                            which >= FIRST_MAP
                            and which < np.uint64(regions.shape[0])
                            and np.int64(regions[which, KIND]) == ARRAY
                            and place != U0
                            and regs[U1] & M32 == U0
                        ):
                            value = load(place, U4)
                            inside = value < regions[which, MAX_ENTRIES]
                            regs[U0] = which << U32 | value * regions[which, STRIDE] if inside else U0
                            continue
                    if called == TAIL_CALL:
                        target, ok = tail_call(block_at, tail_calls)
                        if ok != 0:
                            failure = ok
                            break
                        if target >= 0:
                            tail_calls += 1
                            limit = depth + np.int64(MAX_FRAMES - 1)
                            regs[U1] = CONTEXT_BASE
                            pc = target
                        continue
                    if called == LOOP or called == FOR_EACH or called == DRAIN:
                        if depth >= limit:
                            failure = F_DEPTH
                            break
                        enter(regs_at, borrowed(frames, depth), pc, stack_at, depth)
                        frames[depth, F_LIMIT] = np.uint64(limit)
                        value, ok, more = begin_walk(called, block_at, borrowed(frames, depth))
                        if more:
                            more, value = again(
                                block_at, borrowed(frames, depth), depth, np.uint64(meta[shown, CPU]), U0, rings
                            )
                        if more:
                            depth += 1
                            pc = np.int64(value)
                            continue
                        regs[np.uint64(10)] -= U512
                    else:
                        ok = F_CALL
                        if kinds is not None:
                            value, ok = call_maps(called, block_at)
                        if rings is not None and ok == F_CALL:
                            value, ok = call_rings(called, block_at)
                        if text is not None and ok == F_CALL:
                            value, ok = call_text(called, block_at, text)
                        if timers is not None and ok == F_CALL:
                            value, ok = call_timers(called, block_at, timers)
                        if kernel is not None and ok == F_CALL:
                            value, ok = call_kernel(called, block_at, kernel)
                        if ok == F_CALL:
                            value, ok = call_common(called, block_at)
                        fuel -= np.int64(peek64(block_at + B_WORK) // BYTES_PER_STEP)
                        poke64(block_at + B_WORK, U0)
                if ok != 0:
                    failure = ok
                    break
                regs[U0] = value
            elif op == MAY_GOTO:
                may_goto += 1
                if may_goto > 0x7FFFFF:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
            elif op == JA32:
                pc += np.int64(imm)
            elif op == FAULT_JUMP:
                failure = F_JUMP
                break
            elif op == FAULT_OPCODE:
                failure = F_OPCODE
                break
            else:
                taken: Any = False
                if op == JSGT64:
                    taken = np.int64(a) > np.int64(b)
                elif op == JSGE64:
                    taken = np.int64(a) >= np.int64(b)
                elif op == JSLT64:
                    taken = np.int64(a) < np.int64(b)
                elif op == JSLE64:
                    taken = np.int64(a) <= np.int64(b)
                else:
                    x, y = a & M32, b & M32
                    if op == JEQ32:
                        taken = x == y
                    elif op == JNE32:
                        taken = x != y
                    elif op == JSET32:
                        taken = (x & y) != U0
                    elif op == JGT32:
                        taken = x > y
                    elif op == JGE32:
                        taken = x >= y
                    elif op == JLT32:
                        taken = x < y
                    elif op == JLE32:
                        taken = x <= y
                    elif op == JSGT32:
                        taken = np.int32(x) > np.int32(y)
                    elif op == JSGE32:
                        taken = np.int32(x) >= np.int32(y)
                    elif op == JSLT32:
                        taken = np.int32(x) < np.int32(y)
                    else:
                        taken = np.int32(x) <= np.int32(y)
                if taken:
                    if counts is not None:
                        counts[pc - 1, 1] += U1
                    pc += np.int64(np.int16(word >> U16))
        if timers is not None:  # noqa: SIM102 - two tests, so that numba drops the branch
            if peek64(timers + T_RUNNING) != U0:
                poke64(timers + T_RUNNING, U0)
                number -= 1  # that was a timer; another one or the packet itself is next
                continue
        verdict[number] = np.uint32(0) if failure else np.uint32(regs[U0] & M32)
        fault[number] = failure
