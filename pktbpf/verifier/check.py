"""verify: the phases of BPF_PROG_LOAD in the kernel's order, and what becomes of the result."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Container
from dataclasses import replace

from pktbpf.errors import UsageError
from pktbpf.program import KernelVariable, Program, Verified
from pktbpf.verifier import globals as global_functions
from pktbpf.verifier import newer
from pktbpf.verifier.depth import check_depth, check_function_addresses
from pktbpf.verifier.errors import Refusal, refuse, unsupported
from pktbpf.verifier.explanation import VerifierRefused, command, explain
from pktbpf.verifier.flow import find_loops
from pktbpf.verifier.kernel_types import Kernel, KernelTypes
from pktbpf.verifier.kernel_variables import VariableTable
from pktbpf.verifier.layout import Layout
from pktbpf.verifier.log import LEVEL1, LEVEL2, NOTHING, Log
from pktbpf.verifier.maps import MapTable
from pktbpf.verifier.profile import NEWEST, Profile, profile
from pktbpf.verifier.reasons.trail import Trail
from pktbpf.verifier.types import FunctionTypes
from pktbpf.verifier.walk import MAX_INSNS, Walk
from pktbpf.verifier.watch import Watcher

PRIVILEGES = ("root", "cap_bpf", "none")
MAX_UNPRIVILEGED = 4096
_GPL = ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")


def verify(
    program: Program,
    *,
    privilege: str = "root",
    kernel: str = NEWEST,
    log_level: int = 0,
    cpus: int = 2,
    kernel_btf: KernelTypes | None = None,
    kernel_symbols: Container[str] | None = None,
) -> Verified:
    """What the kernel would say of `program` as a socket filter.

    privilege: "root" (all capabilities), "cap_bpf" (CAP_BPF alone) or "none" (unprivileged BPF enabled). kernel: a
    version from 5.10 on. log_level: bits as in BPF_PROG_LOAD (1 log, 2 all states, 4 statistics). cpus: number of
    processors, which bounds bpf_get_smp_processor_id. kernel_btf: the kernel's own types, which programs that look into
    its structures or variables are judged by; without them those cannot be judged (EOPNOTSUPP). kernel_symbols: names
    whose addresses the kernel can look up, None for all. Raises ProgramRefused with the
    kernel's errno, the refusing instruction and its words; UsageError for an unknown privilege or version.
    """
    if privilege not in PRIVILEGES:
        raise UsageError(f"privilege {privilege!r} is none of {', '.join(PRIVILEGES)}")
    if log_level & ~7:
        raise UsageError(f"log level {log_level} is not made of 1, 2 and 4")
    types = Kernel(kernel_btf, kernel_symbols) if kernel_btf is not None else None
    program = _named(program, types)
    check = _Check(program, privilege, profile(kernel), log_level, cpus, types)
    try:
        check.run()
    except Refusal as problem:
        raise check.refused(problem) from problem
    accesses = check.walk.facts.accesses if check.walk is not None and check.walk.facts is not None else {}
    return Verified(program, facts=accesses, log=check.whole_log())


def _named(program: Program, types: Kernel | None) -> Program:
    """The program with names for those calls of kernel functions, and those addresses of kernel variables, that have
    only the number of a kernel's type."""
    if types is None:
        return program
    functions, variables = dict(program.kfuncs), dict(program.kvars)
    for slot, insn in enumerate(program.insns):
        if insn.imm <= 0 or insn.off:
            continue
        if insn.code == 0x85 and insn.src == 2 and slot not in functions and (name := types.function(insn.imm)):
            functions[slot] = name
        if insn.code == 0x18 and insn.src == 3 and slot not in variables and (name := types.variable(insn.imm)):
            variables[slot] = KernelVariable(name)
    if len(functions) == len(program.kfuncs) and len(variables) == len(program.kvars):
        return program
    return replace(program, kfuncs=functions, kvars=variables)


class _LongerError(Exception):
    """A verification was given up."""


class _Limit(Watcher):
    """Gives up after newer.LONGEST instructions."""

    def __init__(self) -> None:
        self.left = newer.LONGEST

    def instruction(self, walk: Walk, previous: int, index: int) -> None:
        self.left -= 1
        if not self.left:
            raise _LongerError


class _Check:
    """One verification: its phases in order, and what is known of it when one of them fails."""

    def __init__(
        self, program: Program, privilege: str, rules: Profile, log_level: int, cpus: int, kernel: Kernel | None
    ):
        self.program = program
        self.privilege = privilege
        self.rules = rules
        self.cpus = cpus
        self.kernel = kernel
        lines = getattr(program.btf, "line_texts", None) if log_level else None
        self.log = Log(log_level, program.insns, lines, program.kfuncs) if log_level else None
        self.watcher: Watcher | None = self.log if log_level & (LEVEL1 | LEVEL2) else None
        self.layout: Layout | None = None
        self.walk: Walk | None = None
        self.began = time.perf_counter()

    def run(self) -> None:
        """All phases. Fails with a Refusal."""
        program, privilege = self.program, self.privilege
        limit = MAX_UNPRIVILEGED if privilege == "none" else MAX_INSNS
        if not 0 < len(program.insns) <= limit:
            refuse(errno.E2BIG, f"{len(program.insns)} instructions are none, or more than {limit}")
        if program.internal_calls:
            unsupported("a translated classic program that calls the kernel's own functions", program.internal_calls[0])
        layout = self.layout = Layout(program.insns, privilege, self.rules, program.kfuncs)
        gpl = program.license in _GPL
        maps = MapTable(program.maps, self.rules)
        types = FunctionTypes(program.btf, layout)
        watcher = self.watcher
        types.check_order()
        layout.find_functions(gpl)
        if watcher is not None:
            watcher.shaped(layout)
        layout.check_functions()
        types.check()
        variables = VariableTable(program.kvars, self.kernel)
        layout.check_immediates(maps, variables)
        layout.check_flow()
        find_loops(layout)
        layout.find_live_registers()
        layout.find_fastcalls()
        if watcher is not None:
            watcher.analysed(layout)
        walk = self.walk = Walk(
            layout, maps, types, self.rules, privilege=privilege, gpl=gpl, cpus=self.cpus, log=watcher,
            kernel=self.kernel, variables=variables,
        )  # fmt: skip
        walk.main()
        global_functions.verify_called(walk)
        check_depth(walk)
        check_function_addresses(walk)

    def refused(self, problem: Refusal) -> VerifierRefused:
        """The error that the caller sees."""
        explanation = explain(problem, self.program, self.privilege, self.walk, self._again)
        explanation = newer.told(explanation, self.program, self.rules, self._judged)
        text = "\n".join(explanation.lines)
        if self.log is not None:
            self.log.lines(tuple(line for line in problem.lines if line))
            text = self.whole_log()
        return VerifierRefused(problem.errno, explanation, log=text, see=command(self.program, self.privilege))

    def whole_log(self) -> str:
        """The log with its last lines, empty at level 0 and where the kernel does not begin one."""
        if self.log is None or self.layout is None:
            return ""
        microseconds = int((time.perf_counter() - self.began) * 1e6)
        functions = self.layout.functions
        depths = [one.stack for one in functions if not one.removed] if functions else [0] * len(self.layout.found)
        depth = "+".join(map(str, depths))
        self.log.finish(self.walk.statistics() if self.walk is not None else NOTHING, microseconds, depth)
        return self.log.text

    def _judged(self, rules: Profile) -> newer.Verdict:
        """What another version says, as far as that does not take long."""
        second = _Check(self.program, self.privilege, rules, 0, self.cpus, self.kernel)
        second.watcher = _Limit()
        try:
            second.run()
        except Refusal as problem:
            return newer.Verdict(problem.insn, True)
        except _LongerError:
            return newer.Verdict(None, False, whole=False)
        return newer.Verdict(None, False)

    def _again(self, trail: Trail) -> None:
        """The same verification, which stops at the same place, followed by another log."""
        second = _Check(self.program, self.privilege, self.rules, 0, self.cpus, self.kernel)
        second.watcher = trail
        with contextlib.suppress(Refusal):
            second.run()
