"""verify: the phases of BPF_PROG_LOAD in the kernel's order, and what becomes of the result."""

from __future__ import annotations

import errno

from pktbpf.errors import ProgramRefused, UsageError
from pktbpf.program import Program, Verified
from pktbpf.verifier.depth import check_depth
from pktbpf.verifier.errors import Refusal, refuse, unsupported
from pktbpf.verifier.layout import Layout
from pktbpf.verifier.maps import MapTable
from pktbpf.verifier.profile import NEWEST, profile
from pktbpf.verifier.types import FunctionTypes
from pktbpf.verifier.walk import MAX_INSNS, Walk

PRIVILEGES = ("root", "cap_bpf", "none")
MAX_UNPRIVILEGED = 4096
_GPL = ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")


def verify(
    program: Program, *, privilege: str = "root", kernel: str = NEWEST, log_level: int = 0, cpus: int = 2
) -> Verified:
    """What the kernel would say of `program` as a socket filter.

    privilege: "root" (all capabilities), "cap_bpf" (CAP_BPF alone) or "none" (unprivileged BPF enabled). kernel: a
    version from 5.10 on. log_level: bits as in BPF_PROG_LOAD (1 log, 2 all states, 4 statistics). cpus: number of
    processors, which bounds bpf_get_smp_processor_id. Raises ProgramRefused with the kernel's errno, the refusing
    instruction and its words; UsageError for an unknown privilege or version.
    """
    if privilege not in PRIVILEGES:
        raise UsageError(f"privilege {privilege!r} is none of {', '.join(PRIVILEGES)}")
    rules = profile(kernel)
    try:
        return _verify(program, privilege, rules, log_level, cpus)
    except Refusal as problem:
        lines = problem.lines or ("",)
        raise ProgramRefused(problem.errno, problem.insn, lines[0], log="\n".join(lines)) from problem


def _verify(program: Program, privilege: str, rules: object, log_level: int, cpus: int) -> Verified:
    from pktbpf.verifier.profile import Profile

    assert isinstance(rules, Profile)
    insns = program.insns
    limit = MAX_UNPRIVILEGED if privilege == "none" else MAX_INSNS
    if not 0 < len(insns) <= limit:
        refuse(errno.E2BIG, f"{len(insns)} instructions are none, or more than {limit}")
    if program.internal_calls:
        unsupported("a translated classic program that calls the kernel's own functions", program.internal_calls[0])
    layout = Layout(insns, privilege)
    gpl = program.license in _GPL
    maps = MapTable(program.maps)
    types = FunctionTypes(program.btf, layout)
    layout.find_functions(gpl)
    layout.check_functions()
    types.check()
    layout.check_immediates(maps)
    layout.check_flow()
    layout.find_loops()
    layout.find_live_registers()
    layout.find_fastcalls()
    walk = Walk(layout, maps, types, rules, privilege=privilege, gpl=gpl, cpus=cpus, log=None)
    walk.main()
    check_depth(walk)
    accesses = walk.facts.accesses if walk.facts is not None else {}
    return Verified(program, facts=accesses, log="\n".join(walk.notes))
