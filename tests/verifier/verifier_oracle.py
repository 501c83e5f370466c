"""The live kernel's verdict on raw instructions, as root and as an unprivileged user, for differential tests.

Programs name maps by their number in MAPS (the imm of the first slot); the oracle puts the file descriptor in. A child
process that has become nobody answers for the unprivileged case while kernel.unprivileged_bpf_disabled is 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import pickle
import re
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifier_maps import TYPED, load_table
from verifier_types import FUNCTIONS

from pktbpf.abi import kfuncs
from pktbpf.isa.extended import Insn
from pktbpf.objfile.btf import Btf, BtfKind
from pktbpf.program import MapSpec

SYSCTL = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
LOCK = Path(tempfile.gettempdir()) / "pktbpf-unprivileged-bpf.users"
NUMBERS = {
    "HASH": 1, "ARRAY": 2, "PROG_ARRAY": 3, "PERF_EVENT_ARRAY": 4, "PERCPU_HASH": 5, "PERCPU_ARRAY": 6,
    "CGROUP_ARRAY": 8, "LRU_HASH": 9, "LRU_PERCPU_HASH": 10, "LPM_TRIE": 11, "ARRAY_OF_MAPS": 12, "HASH_OF_MAPS": 13,
    "QUEUE": 22, "STACK": 23, "RINGBUF": 27, "BLOOM_FILTER": 30, "USER_RINGBUF": 31, "SOCKMAP": 15, "XSKMAP": 17,
    "SOCKHASH": 18, "TASK_STORAGE": 29, "STACK_TRACE": 7, "CGROUP_STORAGE": 19, "REUSEPORT_SOCKARRAY": 20,
    "DEVMAP": 14, "CPUMAP": 16,
}  # fmt: skip
_INNER = MapSpec("ARRAY", 4, 8, 2)
# (spec, may be created by nobody)
MAPS: tuple[tuple[MapSpec, bool], ...] = (
    (MapSpec("ARRAY", 4, 16, 4, name="arr"), True),
    (MapSpec("HASH", 8, 48, 8, name="hash"), True),
    (MapSpec("ARRAY", 4, 64, 1, name="one"), True),
    (MapSpec("PERCPU_ARRAY", 4, 8, 2, name="pca"), True),
    (MapSpec("PERCPU_HASH", 4, 16, 4, name="pch"), True),
    (MapSpec("PROG_ARRAY", 4, 4, 4, name="progs"), True),
    (MapSpec("RINGBUF", 0, 0, 4096, name="ring"), True),
    (MapSpec("LRU_HASH", 4, 8, 4, name="lru"), False),
    (MapSpec("LPM_TRIE", 8, 8, 4, flags=1, name="lpm"), False),
    (MapSpec("QUEUE", 0, 8, 4, name="queue"), False),
    (MapSpec("STACK", 0, 8, 4, name="stack"), False),
    (MapSpec("BLOOM_FILTER", 0, 8, 4, name="bloom"), False),
    (MapSpec("ARRAY", 4, 16, 1, flags=1 << 7, name="ro"), True),
    (MapSpec("ARRAY", 4, 16, 1, flags=1 << 8, name="wo"), True),
    (MapSpec("ARRAY_OF_MAPS", 4, 4, 2, name="outer", inner=_INNER), False),
    (MapSpec("USER_RINGBUF", 0, 0, 4096, name="uring"), True),
    (MapSpec("PERF_EVENT_ARRAY", 4, 4, 2, name="perf"), True),
    (MapSpec("SOCKMAP", 4, 4, 2, name="socks"), False),
    *((spec, False) for spec in TYPED),
)
# Calls of kernel functions name them by their place here.
KFUNCS: tuple[str, ...] = (*(row.name for row in kfuncs.ROWS), "bpf_task_acquire", "bpf_obj_new_impl")
_LINE = re.compile(r"^(\d+): (?:\([0-9a-f]{2}\) |BUG_[0-9a-f]{2}$)")
_CALLS = re.compile(r"call (pc[+-]|bpf_(loop|for_each_map_elem|user_ringbuf_drain|find_vma|timer_set_callback)#)")
_NOTE = re.compile(
    r"R\d is not a scalar|arg#\d (expect|type tag)|(variable|negative offset|dereference of modified) \w+ ptr R\d"
    r"|(Expected|cannot pass).*dynptr"
)
_GLOBAL_NOTE = re.compile(r"Func#\d+ \('\w+'\) is (global and assumed valid|safe for any)|Validating ")
_SEARCH = re.compile(r"verifier bug: (backtracking (?!misuse)|(static|global) subprog |callback |subprog e)")
_COUNTS = re.compile(
    r"^processed (\d+) insns .*max_states_per_insn (\d+) total_states (\d+) peak_states (\d+)", re.MULTILINE
)
_NOISE = ("processed ", "verification time", "stack depth ")


@dataclass(frozen=True)
class Verdict:
    """errno 0 is accepted. insn: from the log; None for the whole program. line: first line of the error."""

    errno: int
    insn: int | None = None
    line: str = ""
    log: str = ""

    @property
    def counts(self) -> tuple[int, ...]:
        """Instructions walked, and checkpoints: most of one instruction, all, most at once. Empty without a log."""
        found = _COUNTS.search(self.log)
        return tuple(map(int, found.groups())) if found else ()


@functools.cache
def kernel_types() -> Btf | None:
    """The running kernel's own types, where it has any."""
    place = Path("/sys/kernel/btf/vmlinux")
    return Btf.parse(place.read_bytes(), "vmlinux") if place.exists() else None


@functools.cache
def kfunc_number(name: str) -> int:
    """Number of a function's type in the running kernel's BTF."""
    types = kernel_types()
    found = types.find(name, BtfKind.FUNC) if types is not None else None
    assert found is not None, name
    return found.id


_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, 168)
    result = int(_libc.syscall(321, command, buffer, 168))
    return result if result >= 0 else -ctypes.get_errno()


def create_map(spec: MapSpec, types: int = 0) -> int:
    """File descriptor, or minus errno. types: the table of types that a map with BTF names."""
    inner = create_map(spec.inner, types) if spec.inner is not None else 0
    attr = bytearray(168)
    struct.pack_into(
        "<IIIIIII16s", attr, 0, NUMBERS[spec.kind], spec.key_size, spec.value_size, spec.max_entries, spec.flags, inner,
        0, spec.name.encode(),
    )  # fmt: skip
    value_type = getattr(spec, "value_type_id", 0)
    if value_type:
        struct.pack_into("<III", attr, 48, types, spec.key_type_id, value_type)  # type: ignore[attr-defined]
    fd = _bpf(0, bytes(attr))
    if inner > 0:
        os.close(inner)
    if fd >= 0 and getattr(spec, "frozen", False):
        _fill(fd, spec)
    return fd


def _fill(fd: int, spec: MapSpec) -> None:
    """First contents of every element, after which nobody may write the map."""
    contents = ctypes.create_string_buffer(spec.initial, spec.value_size)  # type: ignore[attr-defined]
    for index in range(spec.max_entries):
        key = ctypes.create_string_buffer(struct.pack("<I", index))
        attr = struct.pack("<IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(contents), 0)
        assert _bpf(2, attr) == 0
    assert _bpf(22, struct.pack("<I", fd)) == 0


_buffer = ctypes.create_string_buffer(1 << 20)


def load(
    raw: bytes, *, level: int = 1, license: bytes = b"GPL", types: int = 0, functions: bytes = b""
) -> tuple[int, str]:
    """(0 or errno, log). types, functions: the table of types and `struct bpf_func_info[]` that go with the program."""
    code = ctypes.create_string_buffer(raw, max(len(raw), 8))
    terms = ctypes.create_string_buffer(license)
    infos = ctypes.create_string_buffer(functions, max(len(functions), 1))
    while True:
        attr = struct.pack(
            "<IIQQIIQII16sIIIIQI", 1, len(raw) // 8, ctypes.addressof(code), ctypes.addressof(terms), level,
            len(_buffer) if level else 0, ctypes.addressof(_buffer) if level else 0, 0, 0, b"", 0, 0,
            types if functions else 0, 8 if functions else 0, ctypes.addressof(infos) if functions else 0,
            len(functions) // 8,
        )  # fmt: skip
        _buffer[0] = b"\0"
        fd = _bpf(5, attr)
        if fd != -11:
            break
    if fd >= 0:
        os.close(fd)
        return 0, _buffer.value.decode(errors="replace")
    if fd == -28 and level:
        return load(raw, level=0, license=license, types=types, functions=functions)
    return -fd, _buffer.value.decode(errors="replace") if level else ""


def plain(line: str) -> str:
    """Without the place of an instruction after the kernel's rewriting, which nothing here needs to know."""
    return re.sub(r"at insn \d+ \(subprog", "at insn N (subprog", line)


def difference(kernel: Verdict, mine: Verdict) -> str:
    """What differs, empty if nothing does."""
    if bool(kernel.errno) != bool(mine.errno):
        return "verdict"
    if kernel.errno != mine.errno:
        return "errno"
    if kernel.insn is not None and kernel.insn != mine.insn:
        return "instruction"
    # A log that does not fit into the oracle's buffer is not there at all.
    if plain(kernel.line) != plain(mine.line) and kernel.log:
        return "line"
    return "counts" if kernel.counts and mine.counts and kernel.counts != mine.counts else ""


def parse(number: int, log: str) -> Verdict:
    """Refusing instruction and first error line out of a level 1 log."""
    if not number:
        return Verdict(0, log=log)
    looping = re.search(r"infinite loop detected at insn (\d+)$", log, re.MULTILINE)
    if looping:
        return Verdict(number, int(looping[1]), looping[0], log)
    lines = [line.split("processed ")[0] for line in log.splitlines() if not line.startswith(_NOISE)]
    insn, at = None, 0
    for position, line in enumerate(lines):
        found = _LINE.match(line)
        if found:
            insn, at = int(found[1]), position + 1
    rest = [line for line in lines[at:] if line.strip()]
    while len(rest) > 1 and _GLOBAL_NOTE.match(rest[0]):
        del rest[0]
    if at and _CALLS.search(lines[at - 1]) and not any(line.startswith("Caller passes") for line in rest):
        # What does not fit a static function's types is only noted.
        while len(rest) > 1 and _NOTE.match(rest[0]):
            del rest[0]
    if any(_SEARCH.match(line) for line in rest):
        insn = None  # also where paths join, before the instruction there is shown
    return Verdict(number, insn, rest[0] if rest else "", log)


@contextlib.contextmanager
def _unprivileged_allowed() -> Iterator[None]:
    """The sysctl is 0 meanwhile. Several processes may need it so at once: a file, changed only under its lock, has the
    value from before and who still needs the 0; the last one puts the value back, also for those that were killed."""
    _enter_and_leave(os.getpid(), None)
    try:
        yield
    finally:
        _enter_and_leave(None, os.getpid())


def _enter_and_leave(entering: int | None, leaving: int | None) -> None:
    with LOCK.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before, *users = file.read().split() or [SYSCTL.read_text().strip()]
        if str(leaving) in users:
            users.remove(str(leaving))
        alive = [pid for pid in users if Path(f"/proc/{pid}").exists()]
        if entering is not None:
            before = before if alive else SYSCTL.read_text().strip()
            alive.append(str(entering))
        SYSCTL.write_text("0" if alive else before)
        file.truncate(0)
        file.write(" ".join([before, *alive]) if alive else "")


class Sample(tuple[Insn, ...]):
    """Instructions that also say which of verifier_types.FUNCTIONS each of their functions is, by first slot."""

    functions: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, insns: Iterable[Insn], functions: Iterable[tuple[int, str]] = ()) -> Sample:
        made = cls(insns)
        made.functions = tuple(functions)
        return made


class Oracle:
    """The kernel. `verdict` answers for "root" and, inside `unprivileged()`, for "none"."""

    def __init__(self) -> None:
        # Far from the small numbers that a program may write as the descriptor of a table of types: it has none.
        near = load_table(_bpf)
        self.types = fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, 800)
        os.close(near)
        self.fds = [create_map(spec, self.types) for spec, _ in MAPS]
        self._child: tuple[int, int, int] | None = None

    @staticmethod
    def live_version() -> tuple[int, int]:
        """Version of the running kernel."""
        major, minor = os.uname().release.split(".")[:2]
        return int(major), int(minor)

    def encode(self, insns: tuple[Insn, ...]) -> bytes:
        out = []
        for insn in insns:
            if insn.code == 0x85 and insn.src == 2 and 0 <= insn.imm < len(KFUNCS):
                insn = insn._replace(imm=kfunc_number(KFUNCS[insn.imm]))
            elif insn.code == 0x18 and insn.src in (1, 2):
                known = 0 <= insn.imm < len(self.fds)
                insn = insn._replace(imm=self.fds[insn.imm] if known else 9999)
            out.append(insn.encode())
        return b"".join(out)

    def verdict(self, insns: tuple[Insn, ...], privilege: str = "root", *, gpl: bool = True, level: int = 1) -> Verdict:
        functions = b"".join(struct.pack("<II", at, FUNCTIONS[name]) for at, name in getattr(insns, "functions", ()))
        return self.answer(
            self.encode(insns), privilege, level=level, license=b"GPL" if gpl else b"Proprietary", types=self.types,
            functions=functions,
        )  # fmt: skip

    def answer(self, code: bytes, privilege: str, **options: Any) -> Verdict:
        """The verdict on instructions whose descriptors are open here since before `unprivileged` began; see `load`."""
        if privilege == "root":
            return parse(*load(code, **options))
        assert self._child is not None
        _, reader, writer = self._child
        message = pickle.dumps((code, options))
        os.write(writer, struct.pack("<I", len(message)) + message)
        (length,) = struct.unpack("<I", _read(reader, 4))
        return parse(*pickle.loads(_read(reader, length)))

    def ask(self, insns: tuple[Insn, ...], privilege: str) -> Verdict:
        """One verdict with any privilege; `allowed` is cheaper for many."""
        with self.allowed(privilege):
            return self.verdict(insns, privilege)

    def allowed(self, privilege: str) -> contextlib.AbstractContextManager[None]:
        """Verdicts with that privilege are answered meanwhile."""
        return contextlib.nullcontext() if privilege == "root" else self.unprivileged(privilege)

    @contextlib.contextmanager
    def unprivileged(self, privilege: str = "none") -> Iterator[None]:
        """A child that is nobody (or has CAP_BPF alone) answers meanwhile."""
        with _unprivileged_allowed():
            yield from self._with_child(privilege)

    def _with_child(self, privilege: str) -> Iterator[None]:
        ask, answer = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(ask[1])
                os.close(answer[0])
                _serve(ask[0], answer[1], privilege)
            finally:
                os._exit(0)
        os.close(ask[0])
        os.close(answer[1])
        self._child = (pid, answer[0], ask[1])
        try:
            yield
        finally:
            os.close(ask[1])
            os.close(answer[0])
            os.waitpid(pid, 0)
            self._child = None


def _read(fd: int, size: int) -> bytes:
    out = b""
    while len(out) < size:
        part = os.read(fd, size - len(out))
        if not part:
            raise EOFError
        out += part
    return out


def _serve(reader: int, writer: int, privilege: str) -> None:
    if privilege == "none":
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    else:
        header = ctypes.create_string_buffer(struct.pack("<II", 0x20080522, 0))
        data = ctypes.create_string_buffer(struct.pack("<6I", 0, 0, 0, 1 << 7, 1 << 7, 0))
        _libc.syscall(126, header, data)
    while True:
        try:
            (length,) = struct.unpack("<I", _read(reader, 4))
        except EOFError:
            return
        raw, options = pickle.loads(_read(reader, length))
        message = pickle.dumps(load(raw, **options))
        os.write(writer, struct.pack("<I", len(message)) + message)
