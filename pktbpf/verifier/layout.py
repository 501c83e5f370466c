"""The shape of a program before any value is looked at: functions, jumps, order, loops, live registers.

`Layout(program, ...)` runs the kernel's structural phases in the kernel's order, so that of several faults the same one
is reported: functions, jumps inside them, 64-bit immediates and opcodes, control flow (flow.py). It marks the
instructions where the walk records jumps and compares states. Mirrors add_subprog_and_kfunc, check_subprogs,
resolve_pseudo_ldimm64 and compute_live_registers.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from pktbpf.abi import helpers, kfuncs
from pktbpf.abi.kfuncs import Kfunc
from pktbpf.isa import extended
from pktbpf.isa.extended import Insn
from pktbpf.verifier.errors import invalid, refuse
from pktbpf.verifier.profile import Profile
from pktbpf.verifier.scalar import signed32

MAX_SUBPROGS = 256
HELPERS_WITH_CALLBACK = {164, 180, 181, 209}  # for_each_map_elem, find_vma, loop, user_ringbuf_drain
TIMER_SET_CALLBACK = 170
TAIL_CALL, GET_SMP_PROCESSOR_ID = 12, 8
MAY_GOTO = 0xE5
_CALLS_BEFORE = "function calls to other bpf functions"


def is_call(insn: Insn, src: int) -> bool:
    """A call of kind `src`: 0 a helper, 1 a function of the program, 2 a kernel function."""
    return insn.code == 0x85 and insn.src == src


def is_function_address(insn: Insn) -> bool:
    """A 64-bit immediate that names a function of the program."""
    return insn.code == 0x18 and insn.src == 4


def is_packet_load(insn: Insn) -> bool:
    """A load from the packet by a legacy instruction, which leaves the function where it fails."""
    return insn.code & 7 == 0 and insn.code & 0xE0 in (0x20, 0x40)


def jump_distance(insn: Insn) -> int:
    """Distance of a jump from the next instruction."""
    return insn.imm if insn.code == 0x06 else insn.off


@dataclass
class Function:
    """One function: where it starts and ends (slot after it), what it contains, and the stack it uses."""

    start: int
    end: int = 0
    tail_call: bool = False
    ld_abs: bool = False
    stack: int = 0
    callback: bool = False
    async_callback: bool = False
    fastcall_offset: int = 0
    keeps_fastcall_stack: bool = False
    removed: bool = False


@dataclass
class Layout:
    """Functions and per-instruction marks of a program that has passed the structural checks.

    prune: compare with earlier states here. jump: record the way here. force: always keep a checkpoint. callback: calls
    a helper that calls back. kfuncs: names of called kernel functions by slot. scc: number of the loop, 0 for none.
    live: bit mask of registers read later.
    """

    insns: tuple[Insn, ...]
    privilege: str
    rules: Profile
    kfuncs: Mapping[int, str] = field(default_factory=dict)
    functions: list[Function] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = len(self.insns)
        self.prune = bytearray(size + 1)
        self.jump = bytearray(size + 1)
        self.force = bytearray(size + 1)
        self.callback = bytearray(size + 1)
        self.scc = [0] * size
        self.live = [0] * size
        self.successors: list[tuple[int, ...]] = []
        self.goes_back = False
        self.found: set[int] = set()
        self.fastcall = bytearray(size)
        self.fastcall_spills: dict[int, int] = {}

    def function_at(self, index: int) -> int:
        """Number of the function that instruction `index` belongs to."""
        return bisect_right(self.starts, index) - 1

    def function_starting(self, index: int) -> int | None:
        """Number of the function that starts exactly there."""
        number = self.function_at(index)
        return number if number >= 0 and self.starts[number] == index else None

    def find_functions(self, gpl: bool) -> None:
        """Collect call targets; the first structural phase."""
        starts = self.found = {0}
        for index, insn in enumerate(self.insns):
            if insn.code != 0x85 and insn.code != 0x18:
                continue
            local = is_call(insn, 1) or (is_function_address(insn) and self.rules.function_pointers)
            if not local and not (is_call(insn, 2) and self.rules.function_pointers):
                continue
            if self.privilege == "none":
                newer = self.rules.function_pointers
                what = "loading/calling other bpf or kernel functions" if newer else _CALLS_BEFORE
                refuse(errno.EPERM, f"{what} are allowed for CAP_BPF and CAP_SYS_ADMIN", insn=index)
            if not local:
                self._check_kernel_function(index, insn, gpl)
                continue
            target = index + insn.imm + 1
            if not 0 <= target < len(self.insns):
                invalid("call to invalid destination", insn=index)
            if target not in starts and len(starts) >= MAX_SUBPROGS:
                refuse(errno.E2BIG, "too many subprograms", insn=index)
            starts.add(target)
        self.starts = sorted(starts)
        ends = [*self.starts[1:], len(self.insns)]
        self.functions = [Function(start, end) for start, end in zip(self.starts, ends, strict=True)]
        self.log += [f"func#{number} @{start}" for number, start in enumerate(self.starts)]

    def _check_kernel_function(self, index: int, insn: Insn, gpl: bool) -> None:
        if not gpl:
            invalid("cannot call kernel function from non-GPL compatible program", insn=index)
        name = self.kfuncs.get(index)
        if name is None and not insn.imm and not insn.off:
            return
        _check_module(index, insn)
        if name is None:
            invalid(f"kernel btf_id {insn.imm & 0xFFFFFFFF} is not a function", insn=index)
        row = kfuncs.BY_NAME.get(name)
        if row is not None and name not in self.rules.kfuncs:
            invalid(f"kernel function {name} came with Linux {row.since}", insn=index)
        if name.startswith("bpf_xdp_metadata"):
            invalid("metadata kfuncs require device-bound program", insn=index)

    def kfunc(self, index: int) -> Kfunc | None:
        """The kernel function that instruction `index` calls, None for any other instruction or an unknown one."""
        return kfuncs.BY_NAME.get(self.kfuncs.get(index, ""))

    def check_functions(self) -> None:
        """Jumps stay inside their function, and none runs off its end."""
        number = 0
        function = self.functions[0]
        for index, insn in enumerate(self.insns):
            code = insn.code
            if code == 0x85 and insn.imm == TAIL_CALL and not insn.src:
                function.tail_call = True
            if is_packet_load(insn):
                function.ld_abs = True
            if code & 7 in (5, 6) and code & 0xF0 not in (0x80, 0x90):
                target = index + (jump_distance(insn) if self.rules.long_goto else insn.off) + 1
                if not function.start <= target < function.end:
                    invalid(f"jump out of range from insn {index} to {signed32(target)}", insn=index)
            if index == function.end - 1:
                if code not in (0x95, 0x05, 0x06):
                    invalid("last insn is not an exit or jmp", insn=index)
                number += 1
                if number < len(self.functions):
                    function = self.functions[number]

    def check_immediates(self, resolve: ImmediateResolver, variables: ImmediateResolver) -> None:
        """64-bit immediates are whole and name something; every opcode exists."""
        index = 0
        insns, unknown = self.insns, _unknown_opcodes(self.rules)
        loads = (0x60, 0x80) if self.rules.signed_instructions else (0x60,)
        while index < len(insns):
            insn = insns[index]
            if insn.code & 7 == 1 and (insn.code & 0xE0 not in loads or insn.imm):
                invalid("BPF_LDX uses reserved fields", insn=index)
            if insn.code & 7 == 3 and not self.rules.atomics and (insn.code & 0xE0 not in (0x60, 0xC0) or insn.imm):
                invalid("BPF_STX uses reserved fields", insn=index)
            if insn.code == 0x18:
                self._check_wide(index, variables if insn.src == 3 else resolve)
                index += 2
                continue
            if insn.code not in extended.BY_CODE or insn.code in unknown:
                invalid(f"unknown opcode {insn.code:02x}", insn=index)
            index += 1

    def _check_wide(self, index: int, resolve: ImmediateResolver) -> None:
        insn = self.insns[index]
        if index == len(self.insns) - 1:
            invalid("invalid bpf_ld_imm64 insn", insn=index)
        second = self.insns[index + 1]
        if second.code or second.dst or second.src or second.off:
            invalid("invalid bpf_ld_imm64 insn", insn=index)
        if insn.src == 0 or (insn.src == 4 and self.rules.function_pointers):
            return
        by_index = insn.src in (5, 6) and self.rules.file_indexes
        if (insn.src not in (1, 2, 3) and not by_index) or (insn.src in (1, 5) and second.imm):
            invalid("unrecognized bpf_ld_imm64 insn", insn=index)
        if insn.src in (5, 6):
            refuse(errno.EPROTO, "fd_idx without fd_array is invalid", insn=index)
        resolve.resolve(index, insn, second.imm)

    def check_flow(self) -> None:
        """Every instruction is reachable, no jump lands inside an immediate, and (nobody only) nothing jumps back."""
        from pktbpf.verifier.flow import FlowCheck

        FlowCheck(self).run()
        self.successors = [self._successors(index) for index in range(len(self.insns))]
        self.goes_back = any(target <= index for index, targets in enumerate(self.successors) for target in targets)

    def _successors(self, index: int) -> tuple[int, ...]:
        insn = self.insns[index]
        code = insn.code
        # Ways out of a function in a packet load or a tail call are walked, but 6.18 does not follow them here.
        if code & 7 in (5, 6):
            operation = code & 0xF0
            if operation == 0x90:
                return ()
            if operation == 0x00:
                return (index + jump_distance(insn) + 1,)
            if operation != 0x80:
                return index + 1, index + insn.off + 1
        return (index + (2 if code == 0x18 else 1),)

    def postorder(self, number: int) -> list[int]:
        """Instructions of a function, each after those that follow it, as a search from its start leaves them."""
        seen, done = set[int](), set[int]()
        waiting, order = [self.functions[number].start], []
        while waiting:
            top = waiting[-1]
            seen.add(top)
            if top in done:
                order.append(top)
                waiting.pop()
                continue
            for target in self.successors[top]:
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
            done.add(top)
        return order

    def find_live_registers(self) -> None:
        """Registers that may be read after each point, by a backward fixed point."""
        uses = [self._uses(index, insn) for index, insn in enumerate(self.insns)]
        live = self.live
        size = len(live)
        changed = True
        while changed:
            changed = False
            for index in range(size - 1, -1, -1):
                after = 0
                for target in self.successors[index]:
                    if target < size:
                        after |= live[target]
                use, define = uses[index]
                before = (after & ~define) | use
                if before != live[index]:
                    live[index] = before
                    changed = self.goes_back  # else one pass over them from the end has seen everything

    def _uses(self, index: int, insn: Insn) -> tuple[int, int]:
        """Bit masks of registers read and written, as the kernel counts them."""
        code, dst, src = insn.code, 1 << insn.dst, 1 << insn.src
        kind, operation = code & 7, code & 0xF0
        if kind == 0:
            return (0, dst) if code == 0x18 else (0xFFFF, 0)
        if kind == 1:
            return src, dst
        if kind == 2:
            return dst, 0
        if kind == 3:
            return _atomic_uses(insn) if code & 0xE0 == 0xC0 else (dst | src, 0)
        if kind in (4, 7):
            if operation == 0xD0:
                return dst, dst
            if operation == 0xB0:
                return (src if code & 8 else 0), dst
            return (dst | src if code & 8 else dst), dst
        if operation in (0x00, 0xE0):
            return 0, 0
        if operation == 0x90:
            return 1, 0
        if operation == 0x80:
            summary = self._summary(index)
            return ((1 << (5 if summary is None else summary[0])) - 1) << 1, 0x3F
        return (dst | src if code & 8 else dst), 0

    def _summary(self, index: int) -> tuple[int, bool] | None:
        """(number of parameters, whether nothing comes back) of a called helper or kernel function; None if unknown."""
        insn = self.insns[index]
        if insn.src == 0:
            row = helpers.allowed(insn.imm, self.privilege)
            return None if row is None else (len(row.arg_types), row.ret == "void")
        kfunc = self.kfunc(index)
        return None if kfunc is None else (len(kfunc.params), kfunc.ret == "void")

    def find_fastcalls(self) -> None:
        """Spills around a helper call that the kernel drops again when it inlines that helper; stack depth shows."""
        for function in self.functions:
            lowest = 0
            span = range(function.start, function.end)
            for index in span:
                insn = self.insns[index]
                if insn.code == 0x7B and insn.dst == 10:
                    lowest = min(lowest, insn.off)
            for index in span:
                if is_call(self.insns[index], 0) or index in self.kfuncs:
                    self._match_fastcall(function, index, lowest)

    def _match_fastcall(self, function: Function, index: int, lowest: int) -> None:
        summary = self._summary(index)
        if summary is None:
            return
        parameters, void = summary
        clobbered = sum(1 << n for n in range(1 if void else 0, parameters + 1))
        expected = ~clobbered & 0x3F
        count = 0
        offset = lowest
        while count < 6:
            before, after = index - count - 1, index + count + 1
            if before < 0 or after >= len(self.insns):
                break
            store, load = self.insns[before], self.insns[after]
            if store.code != 0x7B or load.code != 0x79 or store.dst != 10 or load.src != 10:
                break
            if store.src != load.dst or not 1 << store.src & expected or store.off != offset or load.off != offset:
                break
            expected &= ~(1 << store.src)
            self.fastcall[before] = self.fastcall[after] = 1
            offset += 8
            count += 1
        if not count:
            return
        if is_call(self.insns[index], 0) and self.insns[index].imm == GET_SMP_PROCESSOR_ID:
            self.fastcall_spills[index] = count
        else:
            function.keeps_fastcall_stack = True
        function.fastcall_offset = min(function.fastcall_offset, offset)


class ImmediateResolver:
    """What a 64-bit immediate refers to; the walk's tables of maps and of the kernel's variables implement it."""

    def resolve(self, index: int, insn: Insn, second: int) -> None:
        """Check and remember what instruction `index` names."""
        raise NotImplementedError


def _unknown_opcodes(rules: Profile) -> frozenset[int]:
    """Opcodes that came later than this kernel."""
    return frozenset(
        (() if rules.signed_instructions else (0xD7,))
        + (() if rules.long_goto else (0x06,))
        + (() if rules.may_goto else (MAY_GOTO,))
        + (() if rules.ordered_atomics else (0xC3 | 0x08, 0xC3 | 0x10))
    )


def _check_module(index: int, insn: Insn) -> None:
    """Functions of modules need an array of descriptors, which no program here has."""
    if insn.off < 0:
        invalid(
            "negative offset disallowed for kernel module function call",
            "failed to find BTF for kernel function",
            insn=index,
        )
    if insn.off > 0:
        refuse(
            errno.EPROTO,
            "kfunc offset > 0 without fd_array is invalid",
            "failed to find BTF for kernel function",
            insn=index,
        )


def _atomic_uses(insn: Insn) -> tuple[int, int]:
    dst, src = 1 << insn.dst, 1 << insn.src
    if insn.imm == 0xF1:
        return 1 | dst | src, 1
    if insn.imm == 0x100:
        return src, dst
    if insn.imm == 0x110:
        return dst | src, 0
    return dst | src, src if insn.imm & 1 else 0
