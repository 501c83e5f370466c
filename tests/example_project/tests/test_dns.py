"""The DNS expression, and packets of every origin."""

import dpkt
import pytest
from hypothesis import given, settings

from pktbpf.testing import FilterUnderTest, packets

scapy = pytest.importorskip("scapy.layers.all")


def test_origins(pktbpf_filter, pktbpf_packet):
    dns = pktbpf_filter("filters/dns.pcap-filter")
    query = pktbpf_packet.dns("example.com")
    assert dns.accepts(query)
    assert dns.accepts(query.hex(" "))
    assert dns.accepts(dpkt.ethernet.Ethernet(query))
    assert dns.accepts(scapy.Ether() / scapy.IP(dst="192.0.2.53") / scapy.UDP(dport=53))
    assert dns.rejects(scapy.Ether() / scapy.IP(dst="192.0.2.53") / scapy.UDP(sport=9, dport=54))


def test_verdicts(pktbpf_golden):
    pktbpf_golden("filters/dns.pcap-filter", "pcaps/dns.pcap")


def test_counters(pktbpf_filter, pktbpf_capture):
    counter = pktbpf_filter("filters/protocols.bpf")
    assert len(counter.accepted(pktbpf_capture("pcaps/dns.pcap"))) == len(pktbpf_capture("pcaps/dns.pcap"))
    assert counter.maps["counts"][17] > counter.maps["counts"][6]


HTTP = FilterUnderTest("tcp port 80", name="tcp port 80")


@given(packet=packets())
@settings(max_examples=50, deadline=None)
def test_only_tcp(packet):
    if HTTP.accepts(packet):
        assert packet[12:14] in (b"\x08\x00", b"\x86\xdd")
