"""Addresses of the live kernel's functions and variables: the same programs admitted, the same verdicts."""

from __future__ import annotations

import errno

import pytest

from pktbpf.asm.extended_text import assemble
from pktbpf.engine.base import Env
from pktbpf.errors import KernelUnavailable, ProgramRefused
from pktbpf.kernel import syscall
from pktbpf.kernel.loading import Loaded
from pktbpf.kernel.maps import possible_cpus
from pktbpf.kernel.unix_rig import UnixRig
from pktbpf.objfile.kernel_btf import running_kernel, running_symbols
from pktbpf.objfile.ksyms import symbol
from pktbpf.parity.captures import verified_by_both
from pktbpf.parity.compare import Session
from pktbpf.program import Program

pytestmark = pytest.mark.kernel

VARIABLE = assemble("r1 = ksym[bpf_prog_active] ll\ncall bpf_this_cpu_ptr\nr0 = *(u32 *)(r0 +0)\nr0 += 3\nexit\n")
MISSING = ".weak no_such_variable\nr1 = ksym[no_such_variable] ll\nr0 = 2\nif r1 != 0 goto +1\nr0 = 3\nexit\n"
FUNCTION = "r1 = ksym[schedule] ll\nr0 = 2\nif r1 != 0 goto +1\nr0 = 3\nexit\n"


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    try:
        syscall.available()
    except KernelUnavailable as error:
        pytest.skip(str(error))
    if running_kernel() is None:
        pytest.skip("the kernel shows no types of its own")


def agree(program: Program, variables: dict[str, object] | None = None) -> list[int]:
    """Bytes kept of some packets, the same on both sides."""
    packets = [bytes(size) for size in (1, 2, 3, 60)]
    with UnixRig() as rig:
        verified = verified_by_both(program, rig)
        with Session(verified, rig, engine="reference", env=Env(variables=variables or {})) as session:
            found = session.run(packets)
            assert (found.pairs, found.differing) == (4, ())
        loaded = Loaded()
        assert rig.attach_extended(loaded.program(program)) == 0
        kept = rig.lengths(packets)
        loaded.close()
    return kept


@pytest.mark.parametrize(("text", "kept"), [(FUNCTION, [1, 2, 2, 2]), (MISSING, [1, 2, 3, 3])])
def test_functions_and_what_is_missing(text: str, kept: list[int]) -> None:
    assert agree(assemble(text)) == kept


def test_what_neither_side_finds() -> None:
    with UnixRig() as rig, pytest.raises(ProgramRefused) as refused:
        verified_by_both(assemble("r1 = ksym[no_such_variable] ll\nr0 = 0\nexit\n"), rig)
    assert refused.value.errno == errno.ESRCH


def test_a_kernel_without_addresses_of_variables_refuses_them() -> None:
    if _listed("bpf_prog_active"):
        pytest.skip("this kernel lists its variables")
    with UnixRig() as rig, pytest.raises(ProgramRefused) as refused:
        verified_by_both(VARIABLE, rig)
    assert refused.value.errno == errno.ENOENT
    assert "failed to find the address for kernel symbol 'bpf_prog_active'" in refused.value.reason


def _listed(name: str) -> bool:
    symbols = running_symbols()
    return symbols is None or name in symbols


def test_variables_read_the_same() -> None:
    if not _listed("bpf_prog_active"):
        pytest.skip("the kernel lists no addresses of variables (CONFIG_KALLSYMS_ALL is not set)")
    assert agree(VARIABLE) == [1, 2, 3, 3]
    found = symbol(running_kernel(), "runqueues")
    assert found is not None
    assert found.type is not None
    offset, _ = found.type.part(".cpu")
    cpus = possible_cpus()
    for cpu in range(cpus + 1):
        text = f"r1 = ksym[runqueues] ll\nr2 = {cpu}\ncall bpf_per_cpu_ptr\nif r0 != 0 goto +2\nr0 = 1\nexit\n"
        program = assemble(text + f"r0 = *(u32 *)(r0 +{offset})\nr0 += 2\nexit\n")
        kept = 2 + cpu if cpu < cpus else 1
        values: dict[str, object] = {f"runqueues[{one}].cpu": one for one in range(cpus)}
        assert agree(program, values) == [min(size, kept) for size in (1, 2, 3, 60)]
