"""Tests without Python: `NAME.bpftest.yaml` beside a filter becomes one test per entry of its `tests`.

Keys of the file: filter (default: the sibling called NAME.*), attach, engine, linktype, program, meta, maps, tests. Of
a test: name, packet, packets or capture; accept, kept, accepted (packet numbers), count, verdicts, maps (contents
afterwards), wire_len, start, meta. Every test starts with fresh maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from pktbpf.errors import PktbpfError, UsageError
from pktbpf.testing.builder import KINDS, PacketBuilder
from pktbpf.testing.captures import CaptureUnderTest, as_packet
from pktbpf.testing.engines import names_of
from pktbpf.testing.factory import build, must_find
from pktbpf.testing.kernel import KernelDiffers, Unavailable, Witness
from pktbpf.testing.subject import FilterUnderTest, Judgement

_FILE_KEYS = {"filter", "attach", "engine", "linktype", "program", "meta", "maps", "tests"}
_TEST_KEYS = {
    "name", "packet", "packets", "capture", "accept", "kept", "accepted", "count", "verdicts", "maps", "wire_len",
    "start", "meta",
}  # fmt: skip
_EXPECTATIONS = {"accept", "kept", "accepted", "count", "verdicts", "maps"}


class Failed(Exception):
    """An expectation that did not hold; the message is what the report shows."""


class YamlFile(pytest.File):
    """A *.bpftest.yaml file."""

    def collect(self) -> Iterable[pytest.Item]:
        """One item per test, per engine where several were asked for."""
        import yaml

        try:
            document = yaml.safe_load(self.path.read_text())
        except yaml.YAMLError as error:
            raise self.CollectError(f"{self.path}: {' '.join(str(error).split())}") from None
        try:
            _check(document, self.path)
        except UsageError as error:
            raise self.CollectError(str(error)) from None
        engines = self._engines(document)
        for number, entry in enumerate(document["tests"], 1):
            for engine in engines:
                name = str(entry.get("name", f"test {number}")) + (f"[{engine}]" if len(engines) > 1 else "")
                yield YamlItem.from_parent(self, name=name, document=document, entry=entry, engine=engine)

    def _engines(self, document: Mapping[str, Any]) -> list[str]:
        return names_of(self.config.getoption("pktbpf_engine") or [document.get("engine", "interpreter")])


Collected: TypeAlias = YamlFile


def _check(document: Any, path: Path) -> None:
    """Refuse what would otherwise be ignored without a word. Raises UsageError."""
    if not isinstance(document, dict) or not isinstance(document.get("tests"), list) or not document["tests"]:
        raise UsageError(f"{path}: a mapping with a list `tests` is wanted")
    _known(document, _FILE_KEYS, str(path))
    for number, entry in enumerate(document["tests"], 1):
        where = f"{path}: test {number}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: a mapping is wanted")
        _known(entry, _TEST_KEYS, where)
        if sum(key in entry for key in ("packet", "packets", "capture")) != 1:
            raise UsageError(f"{where}: exactly one of packet, packets and capture is wanted")
        if not _EXPECTATIONS & set(entry):
            raise UsageError(f"{where}: nothing is expected; say one of {', '.join(sorted(_EXPECTATIONS))}")


def _known(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}; there are {', '.join(sorted(known))}")


class YamlItem(pytest.Item):
    """One test of a file."""

    def __init__(self, *, document: dict[str, Any], entry: dict[str, Any], engine: str, **keywords: Any):
        super().__init__(**keywords)
        self.document, self.entry, self.engine = document, entry, engine

    def runtest(self) -> None:
        """Run the packets and compare."""
        witnesses: list[Witness] = []
        try:
            subject = self._subject(witnesses)
            _fill(subject, self.document.get("maps", {}))
            judged = [self._judge(subject, packet) for packet in self._packets()]
            for problem in _problems(self.entry, subject, judged):
                raise Failed(problem)
        except Unavailable as error:
            pytest.skip(f"the live kernel cannot be asked: {error}")
        finally:
            for witness in witnesses:
                witness.close()

    def _subject(self, witnesses: list[Witness]) -> FilterUnderTest:
        document = self.document
        source = document.get("filter") or _sibling(self.path)
        loading = {"linktype": document.get("linktype"), "program": document.get("program")}
        options = {"attach": document.get("attach", "packet")}
        return build(self, self.path, source, witnesses, self.engine, loading, options)

    def _packets(self) -> list[bytes]:
        entry = self.entry
        if "capture" in entry:
            path = must_find(self.config, self.path, entry["capture"])
            return list(CaptureUnderTest(path, str(entry["capture"])))
        return [_packet(one) for one in ([entry["packet"]] if "packet" in entry else entry["packets"])]

    def _judge(self, subject: FilterUnderTest, packet: bytes) -> Judgement:
        meta = {**self.document.get("meta", {}), **self.entry.get("meta", {})}
        start = self.entry.get("start", 0)
        return subject._judge(packet, self.entry.get("wire_len"), start, meta, None)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The message alone for what a test or filter did wrong, a traceback for anything unforeseen."""
        if isinstance(excinfo.value, Failed | PktbpfError | KernelDiffers):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """File and name."""
        return self.path, None, f"{self.path.name}: {self.name}"


def _sibling(path: Path) -> Path:
    stem = path.name.split(".bpftest.")[0]
    found = [p for p in sorted(path.parent.glob(f"{stem}.*")) if not p.name.endswith((".yaml", ".yml", ".py", ".pcap"))]
    if len(found) != 1:
        raise UsageError(f"{path}: say `filter:`, {len(found)} files beside it are called {stem}.*")
    return found[0]


def _packet(given: Any) -> bytes:
    """Hex text, or a mapping of one kind to its fields: {tcp: {dport: 80}}."""
    if isinstance(given, str):
        return as_packet(given)
    if isinstance(given, dict) and len(given) == 1:
        kind, fields = next(iter(given.items()))
        return PacketBuilder().build(str(kind), **(fields or {}))
    raise UsageError(f"a packet is hexadecimal text or one of {', '.join(KINDS)} with its fields, not {given!r}")


def _fill(subject: FilterUnderTest, maps: Mapping[str, Any]) -> None:
    for name, contents in maps.items():
        found = _map(subject, name)
        for key, value in contents.items():
            found[_key(key)] = _key(value)


def _map(subject: FilterUnderTest, name: str) -> Any:
    if name not in subject.filter.maps:
        known = ", ".join(subject.filter.maps) or "none"
        raise UsageError(f"{subject.name} has no map {name!r}; there are {known}")
    return subject.filter.maps[name]


def _key(value: Any) -> Any:
    """Numbers stay numbers; text is hexadecimal."""
    return bytes.fromhex(value.replace(" ", "").replace(":", "")) if isinstance(value, str) else value


def _problems(entry: Mapping[str, Any], subject: FilterUnderTest, judged: list[Judgement]) -> Iterable[str]:
    """What does not hold, each with the explanation of its packet."""
    if "accept" in entry:
        for judgement in judged:
            if judgement.accepted != entry["accept"]:
                yield _told(f"expected to be {'accepted' if entry['accept'] else 'rejected'}", judgement)
    if "kept" in entry:
        for judgement in judged:
            if judgement.kept != entry["kept"]:
                yield _told(f"expected to keep {entry['kept']} bytes, kept {judgement.kept}", judgement)
    yield from _many(entry, judged)
    for name, contents in entry.get("maps", {}).items():
        yield from _contents(name, _map(subject, name), contents)


def _many(entry: Mapping[str, Any], judged: list[Judgement]) -> Iterable[str]:
    numbers = [number for number, judgement in enumerate(judged, 1) if judgement.accepted]
    if "count" in entry and len(numbers) != entry["count"]:
        yield f"expected {entry['count']} accepted packets, there are {len(numbers)}: {numbers}"
    if "accepted" in entry:
        wanted = _numbers(entry["accepted"])
        for number in sorted(wanted ^ set(numbers)):
            if number > len(judged):
                yield f"there is no packet {number}, only {len(judged)}"
            else:
                yield _told(f"expected to be {'accepted' if number in wanted else 'rejected'}", judged[number - 1])
    for number, value in entry.get("verdicts", {}).items():
        judgement = judged[int(number) - 1]
        if judgement.verdict != value:
            yield _told(f"packet {number} expected to return {value}, returned {judgement.verdict}", judgement)


def _numbers(given: Any) -> set[int]:
    """Packet numbers: integers, or ranges as "7-12"."""
    found: set[int] = set()
    for one in given if isinstance(given, list) else [given]:
        first, _, last = str(one).partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _contents(name: str, found: Any, contents: Mapping[Any, Any]) -> Iterable[str]:
    for key, value in contents.items():
        try:
            have = found[_key(key)]
        except KeyError:
            have = None
        if have != (None if value is None else _key(value)):
            shown = have.hex(" ") if isinstance(have, bytes) else have
            yield f"map {name}[{key}] is {'absent' if have is None else shown}, expected {value}"


def _told(problem: str, judgement: Judgement) -> str:
    return "\n".join([f"{judgement.title}: {problem}", *judgement.explain()[1:]])
