"""The unix rig against programs whose verdict is plain."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import attach
from pktbpf.kernel.unix_rig import UnixRig

pytestmark = pytest.mark.kernel


def code(*insns: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<HBBI", *insn) for insn in insns)


RET_LEN = code((0x80, 0, 0, 0), (0x16, 0, 0, 0))
DROP = code((0x06, 0, 0, 0))


@pytest.fixture
def rig() -> Iterator[UnixRig]:
    try:
        made = UnixRig()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    with made:
        yield made


def test_kept_length_is_the_return_value(rig: UnixRig) -> None:
    for value, kept in ((0, -1), (1, 1), (5, 5), (10, 10), (11, 10), (0xFFFFFFFF, 10)):
        assert rig.attach_classic(code((0x06, 0, 0, value))) == 0
        assert rig.lengths([b"0123456789"]) == [kept]


def test_large_datagrams(rig: UnixRig) -> None:
    assert rig.attach_classic(RET_LEN) == 0
    sizes = [1, 100, 16_384, 65_536, 262_144, rig.largest]
    assert rig.lengths([bytes(size) for size in sizes]) == sizes
    with pytest.raises(OSError, match="too long") as caught:
        rig.lengths([bytes(rig.largest + 1)])
    assert caught.value.errno == errno.EMSGSIZE


def test_empty_datagram_is_told_from_a_dropped_one(rig: UnixRig) -> None:
    assert rig.attach_classic(code((0x06, 0, 0, 1))) == 0
    seen = rig.run([b"", b"ab"])
    assert seen.accepted.tolist() == [True, True]
    assert seen.kept.tolist() == [0, 1]
    assert rig.attach_classic(DROP) == 0
    seen = rig.run([b"", b"ab"])
    assert seen.accepted.tolist() == [False, False]
    assert seen.delivered.tolist() == [True, True]


def test_many_packets_stay_in_step(rig: UnixRig) -> None:
    assert rig.attach_classic(code((0x30, 0, 0, 0), (0x16, 0, 0, 0))) == 0
    packets = [bytes([n % 256]) * 300 for n in range(5000)]
    assert rig.lengths(packets) == [(n % 256) or -1 for n in range(5000)]


def test_refused_program_leaves_none_behind(rig: UnixRig) -> None:
    assert rig.attach_classic(DROP) == 0
    assert rig.attach_classic(b"") == errno.EINVAL
    assert rig.lengths([b"ab"]) == [2]


def test_read_back_and_lock(rig: UnixRig) -> None:
    assert attach.read_back(rig.filtered) == b""
    assert rig.detach() == errno.ENOENT
    assert rig.attach_classic(RET_LEN) == 0
    assert attach.read_back(rig.filtered) == RET_LEN
    assert attach.lock(rig.filtered) == 0
    assert rig.detach() == errno.EPERM
    assert rig.attach_classic(DROP) == errno.EPERM
    assert rig.lengths([b"ab"]) == [2]
