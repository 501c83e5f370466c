"""Variables of the kernel on both engines: values by name, a copy for each processor, what leads nowhere reads 0."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_samples import sample

from pktbpf.asm.extended_text import assemble
from pktbpf.engine.base import Env
from pktbpf.errors import MapError, ProgramRefused, UsageError
from pktbpf.filter import Filter, verify
from pktbpf.program import trust

KERNEL = sample().btf()
PACKET = bytes(64)
THIS = "r1 = ksym[{}] ll\ncall bpf_this_cpu_ptr\n"
OTHER = "r1 = ksym[{}] ll\nr2 = {}\ncall bpf_per_cpu_ptr\nif r0 != 0 goto +2\nr0 = 77\nexit\n"

# Program up to `exit`, values set, processor of the run, verdict.
CASES: tuple[tuple[str, dict[str, Any], int, int], ...] = (
    (THIS.format("counter") + "r0 = *(u32 *)(r0 +0)", {}, 0, 0),
    (THIS.format("counter") + "r0 = *(u32 *)(r0 +0)", {"counter": 5}, 2, 5),
    (THIS.format("counter") + "r0 = *(s8 *)(r0 +0)", {"counter": "-3"}, 0, (1 << 32) - 3),
    (THIS.format("counter") + "r0 = *(u32 *)(r0 +0)", {"counter": 5, "counter[1]": 6}, 1, 6),
    (THIS.format("counter") + "r0 = *(u32 *)(r0 +0)", {"counter[0]": 6}, 1, 0),
    (OTHER.format("counter", 1) + "r0 = *(u32 *)(r0 +0)", {"counter[1]": 9}, 2, 9),
    (OTHER.format("counter", 3) + "r0 = *(u32 *)(r0 +0)", {}, 2, 77),
    (OTHER.format("counter", -1) + "r0 = *(u32 *)(r0 +0)", {}, 2, 77),
    (THIS.format("numbers") + "r0 = *(u32 *)(r0 +8)", {"numbers[1][2]": 4, "numbers[0][2]": 3}, 1, 4),
    (THIS.format("here") + "r0 = *(u32 *)(r0 +8)", {"here.n": 8}, 0, 8),
    (THIS.format("here") + "r1 = *(u64 *)(r0 +0)\nr0 = *(u32 *)(r1 +4)\nr0 += 7", {}, 0, 7),
    (THIS.format("here") + "r1 = *(u64 *)(r0 +0)\nr0 = *(s32 *)(r1 +4)\nr0 += 7", {"here.next": 1 << 40}, 0, 7),
    (THIS.format("there") + "r0 = *(u32 *)(r0 +4)", {"there": '{"y": 3}'}, 0, 3),
    (THIS.format("current_cell") + "r0 = *(u64 *)(r0 +0)", {"current_cell": 12}, 0, 12),
    ("r1 = ksym[total] ll\nr0 = *(u16 *)(r1 +0)", {"total": 0x10002}, 0, 2),
    ("r1 = ksym[origin] ll\nr0 = *(u32 *)(r1 +8)", {"origin": {"n": 6}}, 0, 6),
    (".weak missing\nr1 = ksym[missing] ll\nr0 = 1\nif r1 == 0 goto +1\nr0 = 2", {}, 0, 1),
    ("r1 = ksym[kernel_function] ll\nr0 = 1\nif r1 == 0 goto +1\nr0 = 2", {}, 0, 2),
)  # fmt: skip


@pytest.mark.parametrize("engine", ["reference", "interpreter"])
@pytest.mark.parametrize(("text", "values", "cpu", "wanted"), CASES)
def test_values(text: str, values: dict[str, Any], cpu: int, wanted: int, engine: str) -> None:
    env = Env(kernel_btf=KERNEL, variables=values, cpu=cpu)
    outcome = Filter(assemble(text + "\nexit\n"), env=env, engine=engine).outcome(PACKET)
    assert (outcome.fault[0], outcome.verdict[0]) == (0, wanted)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"here.m": 1}, "here: struct cell has no field 'm'"),
        ({"here[4].n": 1}, r"here\[4\].n: here has copies for 1 processors"),
        ({"counter": "many"}, "counter: int takes a number, not 'many'"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], words: str) -> None:
    name = next(iter(values)).split("[")[0].split(".")[0]
    program = assemble(THIS.format(name) + "r0 = 0\nexit\n")
    with pytest.raises(UsageError, match=words):
        Filter(program, env=Env(kernel_btf=KERNEL, variables=values))


@pytest.mark.parametrize("engine", ["reference", "interpreter"])
def test_programs_behind_tail_calls_have_them_too(engine: str) -> None:
    from pktbpf.asm.builder import R0, R1, R2, R3, R6, build, call, exit_, ld_map, mov64_imm, mov64_reg
    from pktbpf.objfile.values import MapDefinition, ProgramRef

    home: dict[str, Any] = {}
    progs = MapDefinition("PROG_ARRAY", 4, 4, 2, name="progs", slots={1: ProgramRef("second", home)})
    home["second"] = assemble(THIS.format("here") + "r1 = *(u64 *)(r0 +0)\nr2 = *(u32 *)(r1 +0)\nr0 = 6\nexit\n")
    jump = [mov64_reg(R6, R1), ld_map(R2, "progs"), mov64_imm(R3, 1), call("tail_call"), mov64_imm(R0, 1), exit_()]
    assert Filter(build(jump, maps={"progs": progs}), env=Env(kernel_btf=KERNEL), engine=engine).run(PACKET) == 6


def test_a_number_of_the_kernel_names_its_variable() -> None:
    number = KERNEL.by_name("counter")[0]
    program = assemble(f"r1 = btf_id[{number}] ll\ncall bpf_this_cpu_ptr\nr0 = *(u32 *)(r0 +0)\nexit\n")
    env = Env(kernel_btf=KERNEL, variables={"counter": 5})
    assert Filter(program, env=env, engine="reference").run(PACKET) == 5


def test_programs_cannot_write_them_and_unchecked_ones_fault() -> None:
    write = assemble(THIS.format("counter") + "*(u32 *)(r0 +0) = 1\nr0 = 1\nexit\n")
    with pytest.raises(ProgramRefused, match="R0 cannot write into rdonly_mem"):
        verify(write, kernel_btf=KERNEL)
    nowhere = assemble(THIS.format("here") + "r1 = *(u64 *)(r0 +0)\nr0 = *(u32 *)(r1 +4)\nexit\n")
    for engine in ("reference", "interpreter"):
        for program in (write, nowhere):
            unchecked = Filter(trust(program), env=Env(kernel_btf=KERNEL), engine=engine)
            assert unchecked.outcome(PACKET).fault[0] != 0
    with pytest.raises((MapError, UsageError)):
        Filter(trust(write))


def test_the_structure_of_a_map_is_not_there() -> None:
    types = sample()
    types.struct("bpf_array", 64, ("max_entries", types.by_name("int")[0], 36))
    text = ".map a ARRAY key_size=4 value_size=4 max_entries=3\nr1 = map[a] ll\nr0 = *(u32 *)(r1 +36)\nexit\n"
    with pytest.raises(ProgramRefused, match="instruction 2: reads the structure that the kernel keeps of a map"):
        Filter(assemble(text), env=Env(kernel_btf=types))
