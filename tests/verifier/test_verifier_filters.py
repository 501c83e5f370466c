"""Every filter and object that is shipped, and the objects of the loader's tests, before the live kernel: as root, with
CAP_BPF alone and as nobody. The same errno, refusing instruction and first line.

Maps, types and functions are created by root and handed down, so that a refusal is the verifier's. Classic filters go
through SO_ATTACH_FILTER, and through BPF_PROG_LOAD where their translation needs no functions of the kernel's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from verifier_oracle import Oracle, Verdict, difference, kernel_types, parse

import pktbpf
from pktbpf.errors import ProgramRefused
from pktbpf.kernel.loading import Loaded
from pktbpf.objfile import Object, load_object
from pktbpf.objfile.kernel_btf import KERNEL_BTF, running_symbols
from pktbpf.parity.admission import our_errno
from pktbpf.program import ClassicProgram, Program
from pktbpf.verifier import verify

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
FILTERS = ROOT / "filters"
CLASSIC = sorted(path for folder in (FILTERS, FILTERS / "refused") for path in folder.iterdir() if path.is_file())
OBJECTS = sorted((FILTERS / "ebpf").rglob("*.o"))
# Objects that the loader's tests make of everything an object may hold; these need no other kernel's types or maps.
OBJECTS += [ROOT / "tests" / "objfile" / "src" / f"{name}.o" for name in
            ("calls", "core_kernel", "externs", "globals", "kernel_vars", "names")]  # fmt: skip
Line = tuple[int, int, int, int]
PRIVILEGES = ("root", "cap_bpf", "none")
SO_ATTACH_FILTER = 26


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    if os.geteuid():
        pytest.skip("loading programs needs root")
    if not KERNEL_BTF.exists():
        pytest.skip("the kernel says nothing of its types")
    found = Oracle()
    if found.live_version() < (6, 18):
        pytest.skip("the newest rules are those of Linux 6.18")
    return found


def ours(program: Program, privilege: str) -> Verdict:
    try:
        verify(program, privilege=privilege, kernel_btf=kernel_types(), kernel_symbols=running_symbols())
    except ProgramRefused as refused:
        return Verdict(refused.errno, refused.insn, refused.reason)
    return Verdict(0)


@contextlib.contextmanager
def loaded(programs: list[Program]) -> Iterator[list[tuple[bytes, dict[str, object]]]]:
    """Code and what goes with it, descriptors of maps and types put in."""
    with contextlib.closing(Loaded()) as held:
        made = []
        for program in programs:
            code, options = held.parts(program)
            functions, license_ = options.get("func_info", b""), options["license"].encode()
            made.append((code, {"license": license_, "types": options["btf_fd"], "functions": functions}))
        yield made


@pytest.mark.parametrize("privilege", PRIVILEGES)
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
def test_objects_get_the_kernels_verdict(path: Path, privilege: str, oracle: Oracle) -> None:
    found = load_object(path, btf=str(KERNEL_BTF))
    assert isinstance(found, Object)
    assert found.programs
    with loaded(list(found.programs.values())) as parts, oracle.allowed(privilege):
        for program, (code, options) in zip(found.programs.values(), parts, strict=True):
            kernel, mine = oracle.answer(code, privilege, **options), ours(program, privilege)
            assert not difference(kernel, mine), (program.name, kernel, mine)


def attached(code: bytes, *, nobody: bool) -> int:
    """The errno of SO_ATTACH_FILTER, asked by a child."""
    pid = os.fork()
    if pid == 0:
        number = 255
        try:
            if nobody:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            raw = ctypes.create_string_buffer(code, max(len(code), 1))
            one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            number = 0
            one.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(code) // 8, ctypes.addressof(raw))
            )
        except OSError as refused:
            number = refused.errno or 255
        finally:
            os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("path", CLASSIC, ids=lambda path: path.name)
def test_classic_filters_get_the_kernels_errno(path: Path) -> None:
    if os.geteuid():
        pytest.skip("becoming nobody needs root")
    program = pktbpf.load(path)
    assert isinstance(program, ClassicProgram)
    wanted = our_errno(program)[0]
    assert [attached(program.to_bytes(), nobody=nobody) for nobody in (False, True)] == [wanted, wanted]


def test_translations_get_the_kernels_verdict(oracle: Oracle) -> None:
    judged = 0
    for privilege in PRIVILEGES:
        with oracle.allowed(privilege):
            for path in CLASSIC:
                program = pktbpf.load(path)
                if our_errno(program)[0]:
                    continue
                translated = pktbpf.verify(program).program
                if translated.internal_calls:
                    continue
                kernel = oracle.answer(translated.to_bytes(), privilege)
                assert not difference(kernel, ours(translated, privilege)), (path.name, privilege, kernel)
                judged += 1
    assert judged >= 3 * 15


def changed(lines: list[Line], starts: list[int], words: int, size: int) -> dict[str, list[Line]]:
    """Line records of a program with one thing wrong, by what."""
    (slot, file, text, place), rest = lines[0], lines[1:]
    return {
        "as they are": lines, "none": [], "out of order": [rest[0], lines[0], *rest[1:]],
        "twice": [lines[0], *lines], "beyond the end": [*lines, (size, file, text, place)],
        "no such text": [(slot, file, words, place), *rest], "last text": [(slot, file, words - 1, place), *rest],
        "no such file": [(slot, 1 << 30, text, place), *rest], "none of main": rest,
        "none of functions": [line for line in lines if line[0] < starts[1]],
        **{f"none of {start}": [line for line in lines if line[0] != start] for start in starts[1:]},
    }  # fmt: skip


@pytest.mark.parametrize("functions", [True, False])
@pytest.mark.parametrize("name", ["first", "second", "third"])
def test_line_information_gets_the_kernels_verdict(name: str, functions: bool, oracle: Oracle) -> None:
    found = load_object(ROOT / "tests" / "objfile" / "src" / "calls.o", program=name)
    assert isinstance(found, Program)
    btf = found.btf
    variants = changed(list(btf.lines), sorted(btf.functions), len(btf.btf.strings), len(found))
    if not functions:
        btf = dataclasses.replace(btf, functions={})
    second = next((slot + 1 for slot, insn in enumerate(found.insns) if insn.code == 0x18), None)
    if second is not None:
        variants["second half"] = sorted([*btf.lines, (second, *btf.lines[0][1:])])
    refused = 0
    with contextlib.closing(Loaded()) as held:
        for what, lines in variants.items():
            program = dataclasses.replace(found, btf=dataclasses.replace(btf, lines=tuple(lines)))
            kernel, mine = parse(*held.log(program, 1)), ours(program, "root")
            assert not difference(kernel, mine), (what, kernel, mine)
            refused += bool(mine.errno)
    assert refused >= 8
