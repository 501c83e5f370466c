"""Every map kind x attribute, operation, flag and wrong argument: the errno of the kernel, recorded and live."""

from __future__ import annotations

import json

import errno_table
import pytest

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.errors import KernelUnavailable, MapError
from pktbpf.kernel import syscall
from pktbpf.maps.attributes import KINDS, MEANINGLESS
from pktbpf.maps.face import Map


@pytest.fixture(scope="module")
def ours() -> dict[str, int]:
    return errno_table.table(errno_table.Ours())


def differences(expected: dict[str, int], found: dict[str, int]) -> dict[str, tuple[int, int | None]]:
    return {name: (number, found.get(name)) for name, number in expected.items() if found.get(name) != number}


def test_errnos_are_those_recorded_from_a_kernel(ours: dict[str, int]) -> None:
    recorded = json.loads(errno_table.RECORDED.read_text())["errnos"]
    assert recorded.keys() == ours.keys(), "the table's cases have changed: record it anew"
    assert len(recorded) > 15_000
    assert len(set(recorded.values())) >= 9  # EPERM, ENOENT, E2BIG, EBADF, EFAULT, EEXIST, EINVAL, ... and success
    assert differences(recorded, ours) == {}


@pytest.mark.kernel
def test_errnos_are_those_of_the_live_kernel(ours: dict[str, int]) -> None:
    try:
        syscall.available()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    from pktbpf.kernel.maps import possible_cpus

    if possible_cpus() != errno_table.POSSIBLE_CPUS:
        pytest.skip(f"the table is for {errno_table.POSSIBLE_CPUS} possible processors, here are {possible_cpus()}")
    assert differences(errno_table.table(errno_table.Live()), ours) == {}


def test_every_kind_is_known_or_refused_by_name() -> None:
    assert {*KINDS, *MEANINGLESS, "UNSPEC"} == set(BY_NAME)
    assert set(errno_table.BASE) == set(KINDS)
    for kind in MEANINGLESS:
        with pytest.raises(MapError, match=f"{kind} needs .* in a replay") as caught:
            Map(kind, 4, 4, 1)
        assert caught.value.errno == 22


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_creation_asks_for_the_kernels_privilege(kind: str) -> None:
    attributes = errno_table.BASE[kind]
    inner = Map("ARRAY", **errno_table.BASE["ARRAY"]) if kind in errno_table.OUTER else None  # type: ignore[arg-type]
    if BY_NAME[kind].privilege == "none":
        Map(kind, **attributes, inner=inner, privilege="none")  # type: ignore[arg-type]
        return
    with pytest.raises(MapError, match="needs CAP_BPF") as caught:
        Map(kind, **attributes, inner=inner, privilege="none")  # type: ignore[arg-type]
    assert caught.value.errno == 1
    Map(kind, **attributes, inner=inner, privilege="cap_bpf")  # type: ignore[arg-type]


def test_errors_say_what_is_wrong_in_one_line() -> None:
    m = Map("HASH", 4, 8, 1, name="flows")
    m[1] = 1
    with pytest.raises(MapError, match=r"^HASH map flows: update 2: Argument list too long \(E2BIG\)$"):
        m.update(2, 2)
    with pytest.raises(MapError, match=r"^HASH map flows: delete 05 00 00 00: No such file or directory \(ENOENT\)$"):
        m.delete(b"\5\0\0\0")
    with pytest.raises(MapError, match="key of HASH map flows takes 4 bytes, not 3"):
        m.lookup(b"abc")
    with pytest.raises(MapError, match="4294967296 does not fit in 4 bytes"):
        m.lookup(1 << 32)
