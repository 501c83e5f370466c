"""A filter as a replay uses it: loaded once, verified once, made ready for each link type that the captures hold.

An expression is compiled when the first packet of a link type is met, once per link type. A program serves every link
type unless it says which one it was made for; packets of another are then a LinkTypeError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pktbpf import engine as engines
from pktbpf.abi.context import COLUMNS
from pktbpf.capture import linktypes
from pktbpf.engine.base import AttachProfile, Env, Layer, Runner, Skbs
from pktbpf.errors import (
    ExpressionError,
    FilterSyntaxError,
    LinkTypeError,
    ObjectError,
    ProgramRefused,
    UsageError,
    printable,
)
from pktbpf.filter import Filter, verify
from pktbpf.maps.face import Map
from pktbpf.objfile.values import Object
from pktbpf.program import ClassicProgram, Program, Verified
from pktbpf.replayer.livemaps import MapSpace

if TYPE_CHECKING:
    from pktbpf.engine.trace import TraceRecord

DLT_EN10MB, DLT_RAW = 1, 12

FilterSource: TypeAlias = "str | os.PathLike[str] | bytes | ClassicProgram | Program | Verified | Filter | Object"


class Selection:
    """One filter of a replay. name: its path, expression or origin, unless given. maps: the live maps of its program,
    by name; those that `space` knows or makes. several: it is one of several, so errors begin with its name."""

    def __init__(
        self, source: FilterSource, *, engine: str, profile: AttachProfile, env: Env, optimize: bool = True,
        space: MapSpace | None = None, name: str = "", several: bool = False,
    ):  # fmt: skip
        self.profile = profile
        self._engine = engines.get(engine)
        self._env = env
        self._optimize = optimize
        self._runners: dict[int, Runner] = {}
        self._runner: Runner | None = None
        self._expression: str | None = None
        self.maps: dict[str, Map] = {}
        self._space = space or MapSpace(cpus=env.cpu + 1, env=env)
        self._program: ClassicProgram | Program | Verified | None = None
        self._several = several
        with blaming(name or _said(source), several):
            loaded = self._load(source)
        self.name = printable(name or loaded)

    def _load(self, source: FilterSource) -> str:
        """Keep the expression, or load and verify the program at once; returns the name to show."""
        from pktbpf import loader

        if isinstance(source, os.PathLike):
            source = os.fspath(source)
        if isinstance(source, str) and loader.is_expression(source):
            if self.profile.layer not in (Layer.LINK, Layer.NETWORK, Layer.IP):
                raise UsageError(
                    f"attach profile {self.profile.name!r} has no header that the expression {source!r} could be"
                    " compiled for; give a program"
                )
            self._expression = source
            return source
        if isinstance(source, Filter):
            self._program, self.maps = source.verified, source.maps
        elif isinstance(source, ClassicProgram | Program | Verified):
            self._program = source
        elif isinstance(source, str):
            self._program = loader.load_filter_argument(source)
        else:
            loaded = source if isinstance(source, Object) else loader.load(source)
            self._program = loaded.program() if isinstance(loaded, Object) else loaded
        assert self._program is not None
        self._runner = self._prepare(self._program)
        return _name(source, self._program)

    @property
    def stateful(self) -> bool:
        """Whether the program has maps, so that packets after the last wanted one must not be run."""
        program = self._program.program if isinstance(self._program, Verified) else self._program
        return isinstance(program, Program) and bool(program.maps)

    def trace_records(self) -> list[TraceRecord]:
        """What the program has traced since the last call; always nothing on engines that keep no traces."""
        read = getattr(self._runner, "trace_records", None)
        return list(read()) if read is not None else []

    def runner(self, linktype: int) -> Runner:
        """The program ready for packets of `linktype`; LinkTypeError if it was made for another."""
        found = self._runners.get(linktype)
        if found is None:
            with blaming(self.name, self._several):
                found = self._runners[linktype] = self._for(linktype)
        return found

    def _for(self, linktype: int) -> Runner:
        seen = linktype if self.profile.layer is Layer.LINK else DLT_RAW
        if self._expression is not None:
            from pktbpf import loader

            # Only Ethernet frames lose their tag; what they are then is what a live socket's filter is compiled for.
            live = self._env.strip_vlan and seen == DLT_EN10MB
            program = loader.load(
                self._expression, linktype=seen, optimize=self._optimize, savefile=not live, live=live
            )
            return self._prepare(program)
        made_for = _linktype(self._program)
        if made_for is not None and made_for not in (seen, linktype):
            raise LinkTypeError(
                f"{self.name} was made for {linktypes.name_of(made_for)}, the packets are"
                f" {linktypes.name_of(linktype)}; compile it for that link type or give an expression"
            )
        assert self._runner is not None
        return self._runner

    def _prepare(self, program: ClassicProgram | Program | Verified) -> Runner:
        """Verify and make ready; the run over no packets lets an engine compile before the clock starts."""
        verified = program if isinstance(program, Verified) else verify(program, kernel_btf=self._env.kernel_btf)
        if verified.program.maps or verified.program.kvars:
            verified, maps = self._space.bind(verified)
            self.maps = self.maps or maps
        runner = self._engine.prepare(verified, self._env)
        runner.run(_no_packets())
        return runner


@contextmanager
def blaming(name: str, several: bool) -> Iterator[None]:
    """Errors of loading, checking and compiling begin with the filter's name, where there are several filters."""
    try:
        yield
    except (ExpressionError, FilterSyntaxError, LinkTypeError, ObjectError, ProgramRefused) as error:
        if several and name and not str(error).startswith(printable(name)):
            error.args = (f"{printable(name)}: {error}", *error.args[1:])
        raise


def _said(source: FilterSource) -> str:
    """What a filter is called before it is loaded; "" where only loading tells."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    return getattr(source, "origin", "")


def _no_packets() -> Skbs:
    none = np.zeros(0, dtype=np.int64)
    meta = np.zeros((0, len(COLUMNS)), dtype=np.int64)
    return Skbs(np.zeros(1, dtype=np.uint8), none, none, none, none, meta, np.zeros(0, dtype=np.bool_))


def _linktype(program: Any) -> int | None:
    """The link type that a program says it was made for."""
    if isinstance(program, Verified):
        program = program.program
    if isinstance(program, Program):
        program = program.classic
    return program.linktype if isinstance(program, ClassicProgram) else None


def _name(source: FilterSource, program: Any) -> str:
    """A path or text as given, else where the program came from, else what it is."""
    if isinstance(source, str) and "\n" not in source:
        return source
    if isinstance(program, Verified):
        program = program.program
    name = getattr(program, "origin", "") or getattr(program, "name", "")
    return str(name) or f"program of {len(program)} instructions"
