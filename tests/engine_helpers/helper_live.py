"""The live kernel's side of the helper tests, with the methods of helper_lab.Ours.

A Shelf keeps from one program to the next what is dear to make: filling a map of maps waits for other processors (some
milliseconds), and perf events need a system call and pages each.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from helper_lab import ETHERNET, GIVEN, KEYED, Spec, btf, drained, functions

from pktbpf.abi.context import BY_NAME
from pktbpf.abi.limits import SKB_CONTEXT_SIZE
from pktbpf.kernel import rings, syscall
from pktbpf.kernel.loading import kfunc_number
from pktbpf.kernel.maps import LiveMap
from pktbpf.kernel.perf_events import PerfReader
from pktbpf.kernel.unix_rig import UnixRig
from pktbpf.program import Program

_OUTER = ("ARRAY_OF_MAPS", "HASH_OF_MAPS")
_CONTEXT = bytearray(SKB_CONTEXT_SIZE)
for _name, _value in GIVEN.items():
    struct.pack_into("<I", _CONTEXT, BY_NAME[_name].offset, _value)
_TYPES = {"lock": 6, "timer": 8, "kptr": 12}  # in helper_lab.btf()


class Shelf:
    """A pair of sockets, the BTF of the lab, maps of maps with their inner ones, arrays of perf events; by name."""

    def __init__(self) -> None:
        self.rig = UnixRig()
        self.readers: dict[str, PerfReader] = {}
        self._maps: dict[str, tuple[Spec, LiveMap]] = {}
        self.types = syscall.load_btf(btf())

    def map(self, name: str, spec: Spec, specs: Mapping[str, Spec]) -> LiveMap:
        """The map of that name as a program finds it at first, made when it is not there."""
        if name not in self._maps:
            inner = self.map(spec.inner, specs[spec.inner], specs).fd if spec.inner else 0
            self._maps[name] = spec, create(name, spec, self.types, inner)
            made = self._maps[name][1]
            if spec.kind == "PERF_EVENT_ARRAY":
                self.readers[name] = PerfReader(made.fd, spec.max_entries)
            for index, target in spec.slots.items():
                value = struct.pack("<I", self.map(target, specs[target], specs).fd)
                made.update(struct.pack("<I", index), value)
        have, found = self._maps[name]
        assert have == spec, name
        self._renew(name, spec, found)
        return found

    def _renew(self, name: str, spec: Spec, found: LiveMap) -> None:
        if name in self.readers:
            self.readers[name].read()
        elif spec.kind == "ARRAY":
            for index in range(spec.max_entries):
                found.update(struct.pack("<I", index), bytes(spec.value_size))
        elif spec.kind == "HASH":
            for key, _ in list(found.raw_items()):
                found.delete(key)
        for key, value in spec.entries:
            found.update(key, value)

    def close(self) -> None:
        """Let go of everything."""
        for reader in self.readers.values():
            reader.close()
        for _, found in self._maps.values():
            found.close()
        self.rig.close()
        os.close(self.types)


def create(name: str, spec: Spec, types: int, inner: int = 0) -> LiveMap:
    """A map of the kernel with the types that a lock, timer or kernel pointer in its value needs, still empty."""
    if not spec.special:
        return LiveMap(
            spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags, name[:15], inner_fd=inner
        )  # fmt: skip
    made = LiveMap.__new__(LiveMap)
    made.kind, made.key_size, made.value_size = spec.kind, spec.key_size, spec.value_size
    made.fd = syscall.create_map(
        spec.kind, spec.key_size, spec.value_size, spec.max_entries, flags=spec.flags, btf_fd=types, key_type=1,
        value_type=_TYPES[spec.special],
    )  # fmt: skip
    return made


class Live:
    """Programs and maps in the kernel, `main` attached to a socket. shelf: of other programs, or one of its own.
    Raises syscall.LoadRefused."""

    def __init__(self, programs: Mapping[str, Program], specs: Mapping[str, Spec], shelf: Shelf | None = None):
        self.specs, self.shelf, self._own = specs, shelf or Shelf(), shelf is None
        self.maps: dict[str, LiveMap] = {}
        self.fds: dict[str, int] = {}
        outer = [spec for spec in specs.values() if spec.kind in _OUTER]
        self._shared = {name for name, spec in specs.items() if spec in outer or spec.kind == "PERF_EVENT_ARRAY"}
        self._shared |= {name for spec in outer for name in (spec.inner, *spec.slots.values())}
        try:
            for name, spec in specs.items():
                self.maps[name] = self._map(name, spec)
            for name in sorted(programs, key=lambda name: name == "main"):
                self.fds[name] = self.load(programs[name], self.maps)
            for name, spec in specs.items():
                for index, target in spec.programs.items():
                    self.maps[name].update(struct.pack("<I", index), struct.pack("<I", self.fds[target]))
            assert self.shelf.rig.attach_extended(self.fds["main"]) == 0
        except BaseException:
            self.close()
            raise

    def _map(self, name: str, spec: Spec) -> LiveMap:
        if name in self._shared:
            return self.shelf.map(name, spec, self.specs)
        made = create(name, spec, self.shelf.types)
        for key, value in spec.entries:
            made.update(key, value)
        if spec.samples:
            rings.produce(made.fd, spec.max_entries, spec.samples)
        if spec.frozen:
            made.freeze()
        return made

    def load(self, program: Program, maps: Mapping[str, LiveMap]) -> int:
        """The descriptor of a program that works on these maps; the caller closes it."""
        insns = list(program.insns)
        for slot, spec in program.maps.items():
            insns[slot] = insns[slot]._replace(imm=maps[spec.name].fd)
        for slot, name in program.kfuncs.items():
            insns[slot] = insns[slot]._replace(imm=kfunc_number(name))
        code = b"".join(insn.encode() for insn in insns)
        infos = b"".join(struct.pack("<II", start, 3) for start in functions(insns))
        return syscall.load_program(code, btf_fd=self.shelf.types, func_info=infos)

    def run(self, packets: Iterable[bytes]) -> list[int]:
        """As Ours.run, through SO_ATTACH_BPF."""
        return self.shelf.rig.lengths(packets)

    def once(self, payload: bytes) -> tuple[int, int]:
        """As Ours.once, through BPF_PROG_TEST_RUN."""
        return syscall.run_once(self.fds["main"], ETHERNET + payload, context=bytes(_CONTEXT))[0], 0

    def contents(self) -> dict[str, Any]:
        """As Ours.contents."""
        return {name: self._contents(name, spec) for name, spec in self.specs.items()}

    def _contents(self, name: str, spec: Spec) -> Any:
        found = self.maps[name]
        if spec.kind in KEYED:
            return sorted(found.raw_items())
        if spec.kind in ("QUEUE", "STACK"):
            return drained(found)
        if spec.kind == "PERF_EVENT_ARRAY":
            return [(sample.cpu, sample.data) for sample in self.shelf.readers[name].read()]
        return rings.records(found.fd, spec.max_entries) if spec.kind == "RINGBUF" else None

    def close(self) -> None:
        """Close every descriptor that is not on a shelf of others."""
        self.shelf.rig.detach()
        for fd in self.fds.values():
            os.close(fd)
        for name, found in self.maps.items():
            if name not in self._shared:
                found.close()
        self.fds, self.maps = {}, {}
        if self._own:
            self.shelf.close()
