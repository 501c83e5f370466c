"""Numbers as people read them, and the summary they stand in."""

from __future__ import annotations

import pytest

from pktbpf.replayer.results import CaptureResult, FilterResult, Results
from pktbpf.report import as_json, as_text, numbers


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_994, "9.99 kB"), (9_995, "10.0 kB"), (99_950, "100 kB"),
     (999_499, "999 kB"), (999_500, "1.00 MB"), (700_684_856, "701 MB"), (7 * 10**18, "7000 PB")],
)  # fmt: skip
def test_sizes(value: int, said: str) -> None:
    assert numbers.size(value) == said


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 0, ""), (0, 5, "0.0 %"), (5, 5, "100.0 %"), (1, 3, "33.3 %"), (1, 10**6, "< 0.1 %"),
     (10**6 - 1, 10**6, "> 99.9 %")],
)  # fmt: skip
def test_shares_never_round_to_none_or_all(part: int, whole: int, said: str) -> None:
    assert numbers.share(part, whole) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0 µs"), (8.5e-4, "850 µs"), (0.01234, "12.3 ms"), (4.5678, "4.57 s"), (125.0, "2 min 05 s")],
)
def test_durations(value: float, said: str) -> None:
    assert numbers.duration(value) == said


def test_rates() -> None:
    assert [numbers.rate(r) for r in (0, 812.4, 45_600, 7_890_000)] == [
        "0 packets/s", "812 packets/s", "45.6 k packets/s", "7.89 M packets/s",
    ]  # fmt: skip


def results() -> Results:
    one = FilterResult("tcp", accepted=1000, dropped=9000, truncated=12, bytes_kept=64_000)
    capture = CaptureResult("a.pcap", [1], 10_000, 800_000, 900_000, 1000)
    return Results([one], [capture], elapsed=0.5)


def test_text_is_aligned_and_sparse() -> None:
    assert as_text.render(results()).splitlines() == [
        "link type     EN10MB (Ethernet)",
        "packets       10,000",
        "bytes         800 kB captured, 900 kB on the wire",
        "accepted       1,000  10.0 %, 64.0 kB kept",
        "dropped        9,000  90.0 %",
        "truncated         12  accepted, cut to the return value",
        "rate          20.0 k packets/s in 500 ms",
    ]


def test_text_mentions_rare_things_when_there_are_any() -> None:
    rare = results()
    rare.filters[0].indeterminate, rare.filters[0].undelivered, rare.filters[0].faults = 3, 4, {"budget": 5}
    rare.complete = False
    text = as_text.render(rare, verbose=True)
    assert "indeterminate      3  read past the captured bytes" in text
    assert "undelivered        4  would not reach such a socket" in text
    assert "budget             5  faults" in text
    assert "a.pcap: EN10MB, 10,000 packets, 1,000 accepted" in text
    assert text.endswith("stopped early: the numbers are those until then")


def test_json_has_every_counter() -> None:
    made = as_json.as_object(results())
    assert (made["packets"], made["accepted"], made["dropped"], made["rate"]) == (10_000, 1000, 9000, 20_000.0)
    assert made["filters"][0] == {
        "filter": "tcp", "accepted": 1000, "dropped": 9000, "truncated": 12, "indeterminate": 0, "undelivered": 0,
        "bytes_kept": 64_000, "faults": {},
    }  # fmt: skip
    assert made["captures"][0]["error"] is None
