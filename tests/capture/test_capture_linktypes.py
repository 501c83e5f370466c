"""Link types: names, values and descriptions as libpcap has them, and the mapping to what files store."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest

from pktbpf.capture import linktypes
from pktbpf.errors import LinkTypeError


@pytest.fixture(scope="module")
def pcap_library() -> ctypes.CDLL:
    name = ctypes.util.find_library("pcap")
    if name is None:
        pytest.skip("there is no system libpcap")
    library = ctypes.CDLL(name)
    library.pcap_datalink_val_to_name.restype = ctypes.c_char_p
    library.pcap_datalink_val_to_description.restype = ctypes.c_char_p
    return library


def test_names_and_descriptions_are_those_of_libpcap(pcap_library: ctypes.CDLL) -> None:
    compared = 0
    for value in range(290):
        name = pcap_library.pcap_datalink_val_to_name(value)
        if name is not None:
            compared += 1
            assert linktypes.name_of(value) == name.decode()
            assert linktypes.describe(value) == pcap_library.pcap_datalink_val_to_description(value).decode()
            assert pcap_library.pcap_datalink_name_to_val(linktypes.name_of(value).encode()) == value
    assert compared > 150


def test_rows_are_sorted_and_unambiguous() -> None:
    values = [value for value, _, _ in linktypes.ROWS]
    names = [name for _, name, _ in linktypes.ROWS]
    assert values == sorted(set(values))
    assert len(set(names)) == len(names)
    assert set(linktypes.ALIASES.values()) <= set(names)
    assert not set(linktypes.ALIASES) & set(names)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("EN10MB", 1),
        ("en10mb", 1),
        ("DLT_EN10MB", 1),
        ("LINKTYPE_ETHERNET", 1),
        ("linktype_ieee802_11_radiotap", 127),
        ("IEEE802_11_RADIO", 127),
        ("RAW", 12),
        ("LINKTYPE_RAW", 12),
        ("Linux_SLL2", 276),
        (" ppp ", 9),
        ("147", 147),
        ("101", 101),
        ("0", 0),
    ],
)
def test_by_name(text: str, value: int) -> None:
    assert linktypes.by_name(text) == value


@pytest.mark.parametrize("text", ["", "DLT_", "ETHERNOT", "-1", "1.5", "99999999999", "\u0661", "EN10MB\n\nX"])
def test_unknown_names(text: str) -> None:
    with pytest.raises(LinkTypeError) as caught:
        linktypes.by_name(text)
    assert "\n" not in str(caught.value)


def test_every_name_finds_its_value() -> None:
    for value, name, _ in linktypes.ROWS:
        assert linktypes.by_name(name) == linktypes.by_name(f"dlt_{name.lower()}") == value
        assert linktypes.name_of(value) == name


def test_unknown_values_print_as_numbers() -> None:
    assert linktypes.name_of(9_999) == linktypes.describe(9_999) == "9999"


def test_file_values_both_ways() -> None:
    for value, _, _ in linktypes.ROWS:
        assert linktypes.from_file(linktypes.to_file(value)) == value
    assert {value: linktypes.to_file(value) for value in (11, 12, 15, 16, 19, 1)} == {
        11: 100, 12: 101, 15: 102, 16: 103, 19: 106, 1: 1,
    }  # fmt: skip
    for value in (100, 101, 102, 103, 106):
        with pytest.raises(LinkTypeError):
            linktypes.to_file(value)


@pytest.mark.parametrize(
    ("linktype", "snaplen", "adjusted"),
    [(1, 0, 262_144), (1, 96, 96), (1, 1 << 31, 262_144), (1, (1 << 31) - 1, (1 << 31) - 1), (231, 0, 128 << 20)],
)
def test_snapshot_lengths(linktype: int, snaplen: int, adjusted: int) -> None:
    assert linktypes.adjust_snaplen(linktype, snaplen) == adjusted
