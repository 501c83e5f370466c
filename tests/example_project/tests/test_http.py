"""The web filter: what it takes, what it leaves, and the verdicts over a recorded session."""

import pytest


@pytest.fixture
def http(pktbpf_filter):
    return pktbpf_filter("filters/http.bpf")


@pytest.mark.parametrize("port", [22, 443, 8080])
def test_other_ports(http, pktbpf_packet, port):
    assert http.rejects(pktbpf_packet.tcp(dport=port))


def test_web(http, pktbpf_packet):
    assert http.accepts(pktbpf_packet.tcp(dport=80))
    assert http.accepts(pktbpf_packet.tcp(sport=80, dport=50000, flags="SA"))
    assert http.kept(pktbpf_packet.tcp("x" * 500, dport=80)) == 96


def test_recorded_session(http, pktbpf_capture):
    web = pktbpf_capture("pcaps/web.pcap")
    assert http.rejects(web.packet(1))
    assert len(http.accepted(web)) == 56


def test_verdicts(http, pktbpf_golden):
    pktbpf_golden(http, "pcaps/web.pcap")


@pytest.mark.pktbpf_engines
def test_every_engine(http, pktbpf_packet, pktbpf_engine):
    assert http.accepts(pktbpf_packet.tcp(dport=80)), pktbpf_engine


@pytest.mark.pktbpf_kernel
def test_live_kernel(http, pktbpf_packet):
    assert http.accepts(pktbpf_packet.tcp(dport=80))
    assert http.rejects(pktbpf_packet.udp(dport=80))
