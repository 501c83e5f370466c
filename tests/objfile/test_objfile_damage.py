"""Damaged objects: whatever is done to the bytes, the end is an Object or a one-line ObjectError."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pktbpf.errors import ObjectError, UsageError
from pktbpf.objfile import Object, load_object
from pktbpf.objfile.btf import Btf
from pktbpf.objfile.load import read_elf_btf

SRC = Path(__file__).parent / "src"
FILTERS = Path(__file__).parents[2] / "filters" / "ebpf"
OBJECTS = sorted(SRC.glob("*.o")) + sorted(FILTERS.glob("*.o"))
KCONFIG = {"LINUX_KERNEL_VERSION": "1"}
EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0")


def mutate(raw: bytes, rng: random.Random) -> bytes:
    """Cut the bytes off, or change some: anywhere, in the header, or among the section headers at the end."""
    if rng.random() < 0.1:
        return raw[: rng.randrange(len(raw))]
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5, 20, 100))):
        where = rng.random()
        at = rng.randrange(len(out)) if where < 0.7 else rng.randrange(64) if where < 0.8 else -1 - rng.randrange(1900)
        at %= len(out)
        if rng.random() < 0.7:
            out[at] = rng.choice((rng.randrange(256), 0, 1, 4, 8, 127, 128, 255))
        else:
            word = rng.choice(EXTREMES)
            out[at : at + len(word)] = word
    return bytes(out)


def survive(raw: bytes, target: bytes) -> bool:
    """Whether the object loads; every failure is an ObjectError of one line."""
    reason = None
    try:
        found = load_object(raw, btf=target, kconfig=KCONFIG, cpus=1)
        assert isinstance(found, Object)
        for name in found.variables:
            found.value(name)
    except ObjectError as error:
        reason = str(error)
    assert reason is None or "\n" not in reason
    return reason is None


def run(count: int, seed: int) -> None:
    rng = random.Random(seed)
    raws = [path.read_bytes() for path in OBJECTS]
    target = read_elf_btf((SRC / "core_target.o").read_bytes(), "core_target.o")
    loaded = sum(survive(mutate(rng.choice(raws), rng), target) for _ in range(count))
    assert 0 < loaded < count


def test_mutated_objects() -> None:
    run(1500, 11)


@pytest.mark.long
def test_many_mutated_objects() -> None:
    run(25_000, 12)


def test_damaged_btf_alone() -> None:
    rng = random.Random(5)
    raw = read_elf_btf((SRC / "globals.o").read_bytes(), "globals.o")
    good = 0
    for _ in range(1500):
        reason = None
        try:
            table = Btf.parse(mutate(raw, rng))
            for found in table.types():
                if found.size:
                    table.size_of(found.id)
        except ObjectError as error:
            reason = str(error)
        assert reason is None or "\n" not in reason
        good += reason is None
    assert 0 < good < 1500


def section_beyond(raw: bytes) -> bytes:
    """The object with a first section that ends at byte 1000000."""
    at = int.from_bytes(raw[40:48], "little") + 64 + 24
    start = int.from_bytes(raw[at : at + 8], "little")
    return raw[: at + 8] + (1_000_000 - start).to_bytes(8, "little") + raw[at + 16 :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: b"", "not an ELF object"),
        (lambda raw: raw[:40], "shorter than its header"),
        (lambda raw: raw[:4] + b"\x01" + raw[5:], "not a 64-bit ELF object"),
        (lambda raw: raw[:18] + b"\x3e\x00" + raw[20:], "machine 62 is not BPF"),
        (lambda raw: raw[:16] + b"\x02\x00" + raw[18:], "not a relocatable object"),
        (lambda raw: raw[: len(raw) // 2], r"truncated: the section table ends at \d+, the file has \d+ bytes"),
        (lambda raw: raw[:-1], r"truncated: the section table ends at \d+, the file has \d+ bytes"),
        (lambda raw: section_beyond(raw), r"truncated: section 1 ends at 1000000, the file has \d+ bytes"),
        (lambda raw: raw.replace((0xEB9F).to_bytes(2, "little") + b"\x01\x00", b"\x00\x00\x01\x00", 1), "BTF magic"),
    ],
)
def test_clear_reasons(change: object, reason: str) -> None:
    raw = (FILTERS / "proto_counts.o").read_bytes()
    with pytest.raises(ObjectError, match=reason):
        load_object(change(raw), path="x.o")  # type: ignore[operator]


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        load_object("/nonexistent/x.o")


def test_usage_error_names_what_is_there() -> None:
    with pytest.raises(UsageError, match=r"x\.o: no global variable 'limit'; there are burst, dropped, passed, rate"):
        load_object((FILTERS / "rate_limit.o").read_bytes(), path="x.o").with_values({"limit": 1})
