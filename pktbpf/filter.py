"""A program attached to a socket that is not there: verify() admits it, Filter runs it on packets one by one or many.

Here a packet's byte 0 is the program's byte 0 (a link header for `packet`, a UDP header for `udp`, ...); replay()
finds that place in captured frames. Bytes in front of it may be given with `start`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace as _replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pktbpf import engine as engines
from pktbpf.engine.base import AttachProfile, Env
from pktbpf.engine.base import profile as find_profile
from pktbpf.errors import UsageError
from pktbpf.program import ClassicProgram, Program, Verified
from pktbpf.translator import translate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pktbpf.engine.base import Engine, Outcome, Runner, Skbs
    from pktbpf.maps.face import Map
    from pktbpf.objfile.values import Object

Buffer = bytes | bytearray | memoryview


def verify(program: ClassicProgram | Program | Verified | Object, **options: Any) -> Verified:
    """What the kernel's checks say: Verified, or ProgramRefused with errno, instruction and reason.

    An object stands for its only program (ObjectError names them where it has several). A classic program goes through
    the checks of SO_ATTACH_FILTER and is translated; an extended one through the verifier, which takes `options` (see
    pktbpf.verifier.verify). kernel_btf may also be given as bytes or as the path of a file, raw
    (/sys/kernel/btf/vmlinux) or ELF; by default nothing of the running machine is looked at.
    """
    if isinstance(program, Verified):
        return program
    if isinstance(program, ClassicProgram):
        return Verified(translate(program))
    if not isinstance(program, Program):
        program = program.program()
    if program.classic is not None and program.internal_calls:
        return Verified(program)
    from pktbpf.verifier import verify as verify_extended

    if options.get("kernel_btf") is not None:
        from pktbpf.objfile.kernel_btf import given

        options["kernel_btf"] = given(options["kernel_btf"])
    if program.kvars:
        from pktbpf.objfile.ksyms import check_declarations

        check_declarations(program, options.get("kernel_btf"))
    return verify_extended(program, **options)


class Filter:
    """A program, an engine and an attach profile.

    program: anything verify() takes, or what load() takes (a path, text, bytes). attach: a profile name, see
    pktbpf.engine.base.PROFILES. env: the environment of the runs (seed, cpu, metadata that holds for all packets).
    maps: live maps to use by name; the others are made. `maps` afterwards holds all of them by name.
    Runs of one Filter in several threads wait for each other; Filters that share maps must not run at the same time.
    Raises ProgramRefused, UsageError.
    """

    def __init__(
        self, program: Any, *, engine: str | Engine = "interpreter", attach: str | AttachProfile = "packet",
        env: Env | None = None, maps: Mapping[str, Map] | None = None,
    ):  # fmt: skip
        if not isinstance(program, ClassicProgram | Program | Verified):
            from pktbpf.loader import load
            from pktbpf.objfile.values import Object

            loaded = load(program) if not isinstance(program, Object) else program
            program = loaded.program() if isinstance(loaded, Object) else loaded
        self.env = env or Env()
        self.verified = verify(program, kernel_btf=self.env.kernel_btf)
        self.maps: dict[str, Map] = {}
        self.profile = find_profile(attach)
        if self.verified.program.maps or self.verified.program.kvars:
            from pktbpf.instance import Instance

            admit = partial(verify, kernel_btf=self.env.kernel_btf)
            instance = Instance(maps, admit=admit, cpus=self.env.cpu + 1, env=self.env)
            self.verified = instance.bind(self.verified)
            self.maps = instance.maps
        self.program = self.verified.program
        self.runner: Runner = engines.get(engine).prepare(self.verified, self.env)

    def run(self, packet: Buffer, wire_len: int | None = None, *, start: int = 0, **metadata: int | bool | None) -> int:
        """The program's u32 return value; 0 also where a load hits bytes that were not captured.

        wire_len: length in bytes of the whole packet from byte 0 on (skb->len), default what is there. start: index in
        `packet` of byte 0. metadata: columns of pktbpf.abi.context.COLUMNS, None for unset; defaults come from the
        profile and the bytes. protocol and vlan_proto are in host order, offsets relative to byte 0.
        """
        return int(self.outcome(packet, wire_len, start=start, **metadata).verdict[0])

    def kept(self, packet: Buffer, wire_len: int | None = None, *, start: int = 0, **metadata: Any) -> int:
        """Bytes of the packet that the socket keeps, 0 when it is dropped; the profile's trim floor applies."""
        skbs = self._skbs([packet], wire_len, start, metadata)
        outcome = self.runner.run(skbs)
        return int(self.profile.kept(outcome.verdict, skbs.length)[0])

    def outcome(self, packet: Buffer, wire_len: int | None = None, *, start: int = 0, **metadata: Any) -> Outcome:
        """Verdict and fault columns of one packet."""
        return self.runner.run(self._skbs([packet], wire_len, start, metadata))

    def run_many(self, packets: Iterable[Buffer], **metadata: Any) -> NDArray[np.uint32]:
        """Return values for many packets, uint32[n]; metadata holds for all of them."""
        return self.runner.run(self._skbs(list(packets), None, 0, metadata)).verdict

    def kept_many(self, packets: Iterable[Buffer], **metadata: Any) -> NDArray[np.int64]:
        """Bytes kept of many packets, int64[n]."""
        skbs = self._skbs(list(packets), None, 0, metadata)
        return self.profile.kept(self.runner.run(skbs).verdict, skbs.length)

    def _skbs(self, packets: list[Buffer], wire_len: int | None, start: int, metadata: dict[str, Any]) -> Skbs:
        from pktbpf.capture.batch import batch_of
        from pktbpf.engine import skb

        for one in packets:
            try:
                memoryview(one)
            except TypeError:
                kind = type(one).__name__
                raise UsageError(f"a packet is bytes, not {kind}; for hexadecimal text bytes.fromhex(...)") from None
        values = {name: skb.metadatum(name, value) for name, value in metadata.items()}
        shortest = min((len(p) for p in packets), default=start)
        if not 0 <= start <= shortest:
            raise UsageError(f"start {start} is outside the packet of {shortest} bytes")
        linktype = getattr(self.program.classic, "linktype", None)
        batch = batch_of([bytes(p) for p in packets], linktype=1 if linktype is None else linktype)
        env = _replace(self.env, metadata={**self.env.metadata, **values}, strip_vlan=False)
        skbs = skb.given(batch, self.profile, env, start)
        if wire_len is not None:
            if wire_len < shortest - start:
                raise UsageError(f"wire_len {wire_len} is less than the {shortest - start} bytes given")
            skbs.length[:] = wire_len
        return skbs
