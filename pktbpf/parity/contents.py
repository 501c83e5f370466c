"""Final contents of a program's maps: the live kernel's beside ours, key by key, record by record.

Data sections and tables are compared byte for byte, per-CPU values by what is not zero, whatever processor it lies on;
records of ring buffers and perf events by their number. Our side ran several times, with other clocks and random
numbers each: 8-byte words that differ between those runs hang on them and are shown, but not compared; an entry that
is not there in all of them is not compared at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pktbpf.kernel.loading import Loaded
from pktbpf.kernel.perf_events import unpadded
from pktbpf.maps import events
from pktbpf.maps.face import Map
from pktbpf.parity.consumers import OUTGOING, Consumers

TABLES = frozenset({"HASH", "ARRAY", "PERCPU_HASH", "PERCPU_ARRAY", "LRU_HASH", "LRU_PERCPU_HASH", "LPM_TRIE"})
QUEUES = frozenset({"QUEUE", "STACK"})
COMPARED = TABLES | QUEUES | OUTGOING
ROWS_SHOWN, LONG = 16, 32
WORD = 8
Items = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with both values, None where a side has no such entry; all are bytes. Of records the key is their number,
    of perf events their number and the processor's, four bytes each.

    moving: offsets of the 8-byte words that hang on the time or chance. steady: False where the whole entry does.
    """

    key: bytes
    kernel: bytes | None
    ours: bytes | None
    moving: tuple[int, ...] = ()
    steady: bool = True

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same, but for what moves."""
        if not self.steady or self.kernel == self.ours:
            return True
        if self.kernel is None or self.ours is None or len(self.kernel) != len(self.ours):
            return False
        return _without(self.kernel, self.moving) == _without(self.ours, self.moving)


@dataclass(frozen=True, slots=True)
class Contents:
    """One map after the run. entries: those that hold anything on either side. lost: perf events that found no room,
    in the kernel's ring and in our buffer; with any, events cannot be told apart by their number."""

    name: str
    kind: str
    entries: tuple[Entry, ...]
    lost: tuple[int, int] = (0, 0)

    @property
    def differing(self) -> int:
        """Entries that differ."""
        return sum(not entry.equal for entry in self.entries)

    @property
    def uncompared(self) -> int:
        """Entries that hang on the time or chance, wholly or in part."""
        return sum(bool(entry.moving) or not entry.steady for entry in self.entries)


def compare_maps(variants: Sequence[Mapping[str, Map]], loaded: Loaded, consumers: Consumers) -> tuple[Contents, ...]:
    """Every map that has comparable contents, by name. variants: our maps by name, of each of our runs, the one that
    counts first. Queues and stacks of the kernel are empty afterwards."""
    found = []
    for name, one in sorted(variants[0].items()):
        if one.kind not in COMPARED or one.frozen:
            continue
        ours = [_ours(name, maps[name], consumers, number) for number, maps in enumerate(variants)]
        entries = entries_of(_kernel(name, one, loaded, consumers, ours[0]), ours)
        found.append(Contents(name, one.kind, entries, consumers.lost(name)))
    return tuple(found)


def _ours(name: str, one: Map, consumers: Consumers, number: int) -> Items:
    if one.kind in OUTGOING:
        return consumers.ours(number, name)
    if one.kind in QUEUES:
        return _numbered(list(events.queued(one)))
    return _held(dict(one.raw_items()), one)


def _kernel(name: str, one: Map, loaded: Loaded, consumers: Consumers, ours: Items) -> Items:
    if one.kind in OUTGOING:
        return {key: unpadded(data, len(ours.get(key, data))) for key, data in consumers.kernel(name).items()}
    with loaded.live(one.spec) as live:
        if one.kind not in QUEUES:
            return _held(dict(live.raw_items()), one)
        values: list[bytes] = []
        while True:
            try:
                values.append(live.lookup_and_delete())
            except OSError:  # ENOENT: empty
                return _numbered(values)


def _numbered(values: Sequence[bytes]) -> Items:
    return {number.to_bytes(4, "little"): value for number, value in enumerate(values)}


def entries_of(kernel: Items, variants: Sequence[Items]) -> tuple[Entry, ...]:
    """The entries of one map, in order of their keys. variants: what each of our runs left."""
    ours, others = variants[0], variants[1:]
    same_keys = all(other.keys() == ours.keys() for other in others)
    found = []
    for key in {**ours, **kernel}:
        mine = ours.get(key)
        if mine is None:
            found.append(Entry(key, kernel[key], None, steady=same_keys))
            continue
        values = [other.get(key) for other in others]
        steady = all(value is not None and len(value) == len(mine) for value in values)
        moving = {at for value in values if value is not None for at in _differing_words(mine, value)}
        found.append(Entry(key, kernel.get(key), mine, tuple(sorted(moving)), steady))
    return tuple(sorted(found, key=lambda entry: _order(entry.key)))


def _differing_words(one: bytes, other: bytes) -> list[int]:
    return [at for at in range(0, len(one), WORD) if one[at : at + WORD] != other[at : at + WORD]]


def _without(value: bytes, moving: Sequence[int]) -> bytes:
    left = bytearray(value)
    for at in moving:
        left[at : at + WORD] = bytes(len(left[at : at + WORD]))
    return bytes(left)


def _held(items: Items, one: Map) -> dict[bytes, bytes]:
    """Entries that hold anything, of arrays those not zero. Of per-CPU values the parts that are not zero, sorted."""
    held = {}
    for key, value in items.items():
        if one.percpu:
            size = (one.value_size + 7) // 8 * 8
            parts = (value[at : at + one.value_size] for at in range(0, len(value), size))
            value = b"".join(sorted(part for part in parts if any(part)))
        if "ARRAY" not in one.kind or any(value):
            held[key] = value
    return held


def _order(key: bytes) -> tuple[int, bytes]:
    return int.from_bytes(key, "little") if len(key) in (1, 2, 4, 8) else 0, key


def lines(contents: tuple[Contents, ...]) -> list[str]:
    """The maps as text: a line each, then the entries side by side, those that differ first and marked."""
    out: list[str] = []
    for one in contents:
        told = f"{one.differing:,} differing" if one.differing else "equal"
        if one.uncompared:
            told += f"; {one.uncompared:,} not compared whole, since they hang on the time or chance"
        if any(one.lost):
            told += f"; found no room: {one.lost[0]:,} in the kernel's ring, {one.lost[1]:,} in ours"
        what = {"RINGBUF": "records", "PERF_EVENT_ARRAY": "events"}.get(one.kind, "entries")
        nothing = "all zero" if one.kind.endswith("ARRAY") and what == "entries" else f"no {what}"
        held = f"{len(one.entries):,} {what}" if one.entries else nothing
        out += ["", f"map {one.name}  {one.kind}, {held}, {told}"]
        rows = sorted(one.entries, key=lambda entry: entry.equal)
        shown = [_row(one.kind, entry) for entry in rows[:ROWS_SHOWN]]
        table = [("key", "kernel", "pktbpf", ""), *shown] if shown else []
        widths = [max((len(row[n]) for row in table), default=0) for n in range(3)]
        out += ["  " + "  ".join(f"{row[n]:<{widths[n]}}" for n in range(3)).rstrip() + row[3] for row in table]
        if len(rows) > ROWS_SHOWN:
            out.append(f"  ... and {len(rows) - ROWS_SHOWN:,} more")
    return out


def _row(kind: str, entry: Entry) -> tuple[str, str, str, str]:
    kernel, ours = _text(entry.kernel, entry.moving), _text(entry.ours, entry.moving)
    if kernel == ours and len(ours) > LONG:
        ours = "="
    return _key_text(kind, entry.key), kernel, ours, "" if entry.equal else "  <>"


def _key_text(kind: str, key: bytes) -> str:
    if kind == "PERF_EVENT_ARRAY":
        return f"cpu {int.from_bytes(key[4:], 'little')}, {int.from_bytes(key[:4], 'little')}"
    return _text(key)


def _text(raw: bytes | None, moving: Sequence[int] = ()) -> str:
    """A number, or hexadecimal digits with dots for what is not compared."""
    if raw is None:
        return "-"
    if len(raw) in (1, 2, 4, 8):
        return "." if moving else str(int.from_bytes(raw, "little"))
    words = (raw[at : at + WORD] for at in range(0, len(raw), WORD))
    return "".join("." * 2 * len(word) if n * WORD in moving else word.hex() for n, word in enumerate(words))


def as_objects(contents: tuple[Contents, ...]) -> list[dict[str, Any]]:
    """For JSON: hexadecimal keys and values, None for an entry that a side does not have."""
    return [
        {
            "name": one.name,
            "type": one.kind.lower(),
            "differing": one.differing,
            "uncompared": one.uncompared,
            "lost": {"kernel": one.lost[0], "pktbpf": one.lost[1]},
            "entries": [
                {
                    "key": entry.key.hex(),
                    "kernel": None if entry.kernel is None else entry.kernel.hex(),
                    "pktbpf": None if entry.ours is None else entry.ours.hex(),
                    "compared": entry.steady,
                    "moving": list(entry.moving),
                }
                for entry in one.entries
            ],
        }
        for one in contents
    ]
