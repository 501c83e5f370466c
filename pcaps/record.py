"""Record the captures of this directory: `python pcaps/record.py [--into DIR] [NAME ...]` (as root; without names all).

Each scenario builds a lab of two namespaces, runs real clients and servers in it, and records with tcpdump. What was
run and what came of it goes into provenance.json beside the captures, from which PROVENANCE.md is written. Recording
again gives the same kinds of packets, but other timestamps, ports and sequence numbers.
"""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from collections.abc import Callable

import provenance
from lab import CLIENT_IP, CLIENT_IP6, HERE, SERVER_IP, SERVER_IP6, Lab

OUT = HERE
SCENARIOS: dict[str, Callable[[], list[str]]] = {}


def scenario(function: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """Register a scenario; its docstring says what the files hold, its result is the commands it ran."""
    SCENARIOS[function.__name__] = function
    return function


def start_web(lab: Lab) -> None:
    """A web server on ports 80 and 8080, a TLS server on 443 and a name server, for both families."""
    site = lab.tmp / "site"
    site.mkdir()
    (site / "index.html").write_text("<!doctype html><title>example</title><p>It works.\n")
    (site / "data.bin").write_bytes(bytes(i * 7 & 0xFF for i in range(6000)))
    for port in (80, 8080):
        lab.start("server", f"python3 -m http.server {port} --bind :: --directory {site}", wait=1.0)
    lab.run(
        "server",
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=www.example.test "
        f"-keyout {lab.tmp}/key.pem -out {lab.tmp}/cert.pem",
    )
    lab.start("server", f"openssl s_server -accept 443 -www -key {lab.tmp}/key.pem -cert {lab.tmp}/cert.pem")
    start_dns(lab)


def start_dns(lab: Lab) -> None:
    """dnsmasq as a name server that knows example.test only."""
    lab.start(
        "server",
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= "
        f"--address=/example.test/{SERVER_IP} --address=/example.test/{SERVER_IP6} --local=/test/",
    )


@scenario
def web() -> list[str]:
    """HTTP on port 80 over IPv4 and IPv6 (plus port 8080, IP options, IPv6 destination options), TLS on 443, DNS over
    both families, ARP, neighbour discovery, ping both ways, one fragmented ping per family, UDP to port 80."""
    with Lab() as lab:
        start_web(lab)
        with lab.capture("client", "eth0", OUT / "web.pcap"):
            lab.run("client", "busybox ping -c 2 -i 0.2 " + SERVER_IP)
            lab.run("client", "busybox ping6 -c 2 -i 0.2 " + SERVER_IP6)
            for name in ("www.example.test", "missing.test"):
                lab.run("client", f"busybox nslookup {name} {SERVER_IP}", check=False)
            lab.run("client", f"busybox nslookup www.example.test {SERVER_IP6}", check=False)
            for host in (SERVER_IP, f"[{SERVER_IP6}]"):
                lab.run("client", f"curl -s -A curl --max-time 5 http://{host}/")
                lab.run("client", f"curl -s -A curl --max-time 5 -o data http://{host}/data.bin")
                lab.run("client", f"curl -s -A curl --max-time 5 http://{host}:8080/missing")
                lab.run("client", f"curl -s -A curl --max-time 5 -k -o page https://{host}/")
            lab.run("client", f"curl -s -A curl --max-time 5 --data name=value http://{SERVER_IP}/", check=False)
            lab.python("client", "senders", "http-ip-options", SERVER_IP)
            lab.python("client", "senders", "http-destination-options", SERVER_IP6)
            for host in (SERVER_IP, SERVER_IP6):
                lab.python("client", "senders", "udp", host, "80")
            lab.run("client", "busybox ping -c 1 -s 2000 " + SERVER_IP)
            lab.run("client", "busybox ping6 -c 1 -s 2000 " + SERVER_IP6)
            lab.run("server", "busybox ping -c 1 " + CLIENT_IP)
            lab.run("server", "busybox ping6 -c 1 " + CLIENT_IP6)
        return lab.commands


@scenario
def snaplen() -> list[str]:
    """HTTP over IPv4 and IPv6 behind a snapshot length of 60 bytes (the capture ring leaves 58): the TCP ports are
    inside over IPv4 and IPv6, the TCP flags only over IPv4, payload never; the wire length tells what was cut."""
    with Lab() as lab:
        start_web(lab)
        with lab.capture("client", "eth0", OUT / "snaplen.pcap", "-s 60"):
            for host in (SERVER_IP, f"[{SERVER_IP6}]"):
                lab.run("client", f"curl -s -A curl --max-time 5 http://{host}/")
                lab.run("client", f"curl -s -A curl --max-time 5 -k -o page https://{host}/")
            lab.run("client", f"busybox nslookup www.example.test {SERVER_IP}")
        return lab.commands


@scenario
def tls() -> list[str]:
    """TLS 1.2 and 1.3 handshakes, requests and closes, IPv4 and IPv6, with a throwaway P-256 key; a TCP connection to
    port 443 that is no TLS, and one refused (port 444)."""
    with Lab() as lab:
        start_web(lab)
        with lab.capture("client", "eth0", OUT / "tls.pcap"):
            for host in (SERVER_IP, f"[{SERVER_IP6}]"):
                for version in ("tls1_2", "tls1_3"):
                    lab.run("client", f"openssl s_client -{version} -connect {host}:443 -servername www.example.test")
            lab.run("client", f"curl -s -A curl --max-time 2 http://{SERVER_IP}:443/", check=False)
            lab.run("client", f"curl -s -A curl --max-time 2 https://{SERVER_IP}:444/", check=False)
        return lab.commands


@scenario
def dns() -> list[str]:
    """DNS queries and answers for A, AAAA and PTR over UDP and both families, EDNS, TXT, mixed case, NXDOMAIN, one
    query over TCP, and UDP to port 5353 as a bystander."""
    with Lab() as lab:
        start_dns(lab)
        with lab.capture("client", "eth0", OUT / "dns.pcap"):
            for name in ("www.example.test", "example.test", "missing.test", "example.test.example.test", SERVER_IP):
                lab.run("client", f"busybox nslookup {name} {SERVER_IP}", check=False)
            lab.run("client", f"busybox nslookup mail.example.test {SERVER_IP6}")
            lab.python("client", "senders", "dns-edns", SERVER_IP, "www.example.test", "1")
            lab.python("client", "senders", "dns-edns", SERVER_IP, "WwW.eXample.TEST", "16")
            lab.python("client", "senders", "dns-edns", SERVER_IP6, "www.example.test", "28")
            lab.python("client", "senders", "dns-tcp", SERVER_IP, "www.example.test")
            lab.python("client", "senders", "udp", SERVER_IP, "5353")
        return lab.commands


@scenario
def dhcp() -> list[str]:
    """Two whole DHCP exchanges (busybox udhcpc, ISC dhclient), the server's ping before an offer, its
    ARP, and UDP to ports 67 and 68 that is no BOOTP."""
    with Lab() as lab:
        lab.run("client", f"ip address del {CLIENT_IP}/24 dev eth0", note=False)
        lab.start(
            "server",
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --user=root --pid-file= --bind-interfaces "
            "--interface=eth0 --dhcp-range=192.0.2.100,192.0.2.110,1h --dhcp-authoritative "
            f"--dhcp-leasefile={lab.tmp}/leases",
        )
        (lab.tmp / "dhclient.conf").write_text('send host-name "lab2";\nrequest subnet-mask, routers;\n')
        with lab.capture("server", "eth0", OUT / "dhcp.pcap"):
            lab.run("client", "busybox udhcpc -i eth0 -f -q -R -n -s /bin/true -x hostname:lab -t 3 -T 4", limit=30)
            dhclient = lab.start(
                "client",
                f"dhclient -4 -1 -d -sf /bin/true -cf {lab.tmp}/dhclient.conf -lf {lab.tmp}/dhclient.leases -pf "
                f"{lab.tmp}/dhclient.pid eth0",
                wait=8,
            )
            dhclient.terminate()
            lab.run("client", f"ip address add {CLIENT_IP}/24 dev eth0")
            for port in ("67", "68"):
                lab.python("client", "senders", "udp", SERVER_IP, port, "300")
        return lab.commands


@scenario
def arp() -> list[str]:
    """ARP requests and replies, a probe for a free and for a taken address (RFC 5227), gratuitous announcements in both
    forms, an address that nobody has, then some ICMP and UDP as bystanders."""
    with Lab() as lab:
        with lab.capture("server", "eth0", OUT / "arp.pcap"):
            lab.run("client", f"busybox arping -c 2 -I eth0 -s {CLIENT_IP} {SERVER_IP}")
            for address in ("192.0.2.77", SERVER_IP):
                lab.run("client", f"busybox arping -D -c 1 -w 1 -I eth0 {address}", check=False)
            lab.run("client", f"busybox arping -U -c 1 -w 1 -I eth0 -s {CLIENT_IP} {CLIENT_IP}", check=False)
            lab.run("client", f"busybox arping -A -c 1 -w 1 -I eth0 -s {CLIENT_IP} {CLIENT_IP}", check=False)
            lab.run("client", "busybox ping -c 1 -W 1 192.0.2.99", check=False)
            lab.run("client", "busybox ping -c 1 " + SERVER_IP)
            lab.python("client", "senders", "udp", SERVER_IP, "9")
        return lab.commands


@scenario
def icmp() -> list[str]:
    """Echo requests and replies with the idents 0x1234, 0x4321 and 0x0034, a port unreachable, an expired TTL, a
    fragmented echo, and one TCP connection as bystander."""
    with Lab() as lab:
        start_web(lab)
        lab.run("client", f"ip route add 198.51.100.0/24 via {SERVER_IP}")
        lab.run("server", "sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'")
        lab.run("server", f"ip route add 198.51.100.0/24 via {CLIENT_IP}")
        with lab.capture("client", "eth0", OUT / "icmp.pcap"):
            for ident in ("0x1234", "0x4321", "0x0034"):
                lab.python("client", "senders", "ping", SERVER_IP, ident)
            lab.python("client", "senders", "udp", SERVER_IP, "9")
            lab.run("client", "busybox ping -c 1 -t 1 -W 1 198.51.100.1", check=False)
            lab.run("client", "busybox ping -c 1 -s 3000 " + SERVER_IP)
            lab.run("client", f"curl -s -A curl --max-time 5 http://{SERVER_IP}/")
        return lab.commands


@scenario
def icmpv6() -> list[str]:
    """Router solicitation and advertisements (dnsmasq), duplicate address detection, neighbour solicitations and
    advertisements, multicast listener reports, echo, and an unreachable port."""
    with Lab() as lab:
        lab.start(
            "server",
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --user=root --pid-file= --bind-interfaces "
            f"--interface=eth0 --enable-ra --dhcp-range=2001:db8::,ra-only --dhcp-leasefile={lab.tmp}/leases",
        )
        with lab.capture("server", "eth0", OUT / "icmpv6.pcap"):
            lab.run("client", "ip link set eth0 down")
            for name, value in (("accept_dad", 1), ("router_solicitations", 1), ("dad_transmits", 1)):
                lab.run("client", f"sh -c 'echo {value} > /proc/sys/net/ipv6/conf/eth0/{name}'")
            lab.run("client", "ip link set eth0 up")
            lab.run("client", "sleep 4")
            lab.run("client", f"ip address add {CLIENT_IP6}/64 dev eth0 nodad")
            lab.run("client", "busybox ping6 -c 2 -i 0.2 " + SERVER_IP6)
            lab.python("client", "senders", "udp", SERVER_IP6, "9")
            lab.run("client", "busybox ping6 -c 1 ff02::1%eth0", check=False)
        return lab.commands


def _tagged(name: str, tags: str, back: str) -> list[str]:
    """Ping, HTTP and DNS through two user-space taggers, with the same traffic untagged in between."""
    with Lab() as lab:
        for side, stack, number in (("client", tags, 10), ("server", back, 1)):
            lab.start_python(side, "relay", "vlan", "eth0", stack)
            lab.run(side, "ip link set vlan0 mtu 1400")
            lab.run(side, f"ip link set vlan0 address 02:00:00:00:01:{number:02x}")
            lab.run(side, f"ip address add 198.51.100.{number}/24 dev vlan0")
            lab.run(side, f"ip address add 2001:db8:1::{number:x}/64 dev vlan0 nodad")
            lab.quiet_ipv6(side, "vlan0")
            lab.run(side, "ip link set vlan0 up")
        start_web(lab)
        with lab.capture("server", "eth0", OUT / name):
            lab.run("client", "busybox ping -c 1 198.51.100.1")
            lab.run("client", "busybox ping6 -c 1 2001:db8:1::1")
            lab.run("client", "busybox ping -c 1 " + SERVER_IP)
            for host in ("198.51.100.1", "[2001:db8:1::1]", SERVER_IP):
                lab.run("client", f"curl -s -A curl --max-time 5 http://{host}/")
            lab.run("client", "busybox nslookup www.example.test 198.51.100.1")
        return lab.commands


@scenario
def vlan() -> list[str]:
    """802.1Q: ping, HTTP and DNS in VLAN 10 (priority 3 from the client, 0 from the server), the same untagged."""
    return _tagged("vlan.pcap", "0x8100:0x600a", "0x8100:0x000a")


@scenario
def qinq() -> list[str]:
    """802.1ad outside (VLAN 100), 802.1Q inside (VLAN 10): ping, HTTP and DNS, the same untagged."""
    return _tagged("qinq.pcap", "0x88a8:0x0064,0x8100:0x600a", "0x88a8:0x0064,0x8100:0x000a")


@scenario
def fragments() -> list[str]:
    """Fragmented and whole IPv4 and IPv6: echoes of 4000 bytes, UDP of 3000 bytes to ports 53 and 80, whole datagrams
    with and without DF, an HTTP exchange (DF set)."""
    with Lab() as lab:
        start_web(lab)
        with lab.capture("client", "eth0", OUT / "fragments.pcap"):
            lab.run("client", "busybox ping -c 1 -s 4000 " + SERVER_IP)
            lab.run("client", "busybox ping6 -c 1 -s 4000 " + SERVER_IP6)
            lab.run("client", "busybox ping -c 1 " + SERVER_IP)
            for host in (SERVER_IP, SERVER_IP6):
                for port in ("53", "80"):
                    lab.python("client", "senders", "udp", host, port, "3000")
                lab.python("client", "senders", "udp", host, "80", "100")
            lab.run("client", f"curl -s -A curl --max-time 5 http://{SERVER_IP}/")
        return lab.commands


@scenario
def syn() -> list[str]:
    """SYNs of several makes: Linux clients over both families, with small windows, scanner-like bare SYNs (window 1024,
    only MSS or no options) to open and closed ports, and the rest of those connections."""
    with Lab() as lab:
        start_web(lab)
        with lab.capture("client", "eth0", OUT / "syn.pcap"):
            for url in (f"http://{SERVER_IP}/", f"http://[{SERVER_IP6}]/", f"http://{SERVER_IP}:8080/"):
                lab.run("client", "curl -s -A curl --max-time 5 " + url)
            lab.run("client", f"curl -s -A curl --max-time 5 http://{SERVER_IP}:81/", check=False)
            for port in ("22", "80", "443"):
                lab.python("client", "senders", "syn", SERVER_IP, port, "1024", "020405b4")
            lab.python("client", "senders", "syn", SERVER_IP, "80", "8192")
        return lab.commands


@scenario
def loopback() -> list[str]:
    """Loopback traffic three ways in one run: `lo` (EN10MB), `any` as LINUX_SLL and as LINUX_SLL2, with HTTP and ping
    over lo and over the veth pair, both families."""
    with Lab() as lab:
        start_web(lab)
        with (
            lab.capture("server", "lo", OUT / "lo.pcap"),
            lab.capture("server", "any", OUT / "any-sll.pcap", "-y LINUX_SLL"),
            lab.capture("server", "any", OUT / "any-sll2.pcap", "-y LINUX_SLL2"),
        ):
            for host in ("127.0.0.1", "[::1]"):
                lab.run("server", f"curl -s -A curl --max-time 5 http://{host}/")
            lab.run("server", "busybox ping -c 1 127.0.0.1")
            lab.run("client", f"curl -s -A curl --max-time 5 http://{SERVER_IP}/")
            lab.run("client", f"curl -s -A curl --max-time 5 http://[{SERVER_IP6}]/")
            lab.run("client", f"busybox nslookup www.example.test {SERVER_IP}")
        return lab.commands


def _tun(lab: Lab) -> None:
    """A link of two TUN devices with addresses of both families."""
    lab.start_python("client", "relay", "tun", lab.namespace("server"))
    for side, own, other in (("client", "10", "1"), ("server", "1", "10")):
        lab.quiet_ipv6(side, "tun0")
        lab.run(side, "ip link set tun0 up")
        lab.run(side, f"ip address add 192.0.2.{own} peer 192.0.2.{other} dev tun0")
        lab.run(side, f"ip address add 2001:db8::{own} peer 2001:db8::{other} dev tun0 nodad")


@scenario
def raw() -> list[str]:
    """IP without a link header on a TUN device: HTTP, DNS, ping and a fragmented ping over both families. null.pcap
    holds the same packets with the four-byte address family of BSD loopback in front (rewritten from raw.pcap)."""
    with Lab(link=False) as lab:
        _tun(lab)
        start_web(lab)
        with lab.capture("client", "tun0", OUT / "raw.pcap"):
            for host in (SERVER_IP, f"[{SERVER_IP6}]"):
                lab.run("client", f"curl -s -A curl --max-time 5 http://{host}/")
            lab.run("client", "busybox ping -c 1 " + SERVER_IP)
            lab.run("client", "busybox ping6 -c 1 " + SERVER_IP6)
            lab.run("client", "busybox ping -c 1 -s 2000 " + SERVER_IP)
            lab.run("client", f"busybox nslookup www.example.test {SERVER_IP}")
        rewrite_as_null(OUT / "raw.pcap", OUT / "null.pcap")
        return lab.commands


def rewrite_as_null(source: Path, target: Path) -> None:
    """Link type NULL: each packet behind AF_INET (2) or AF_INET6 (30, as macOS numbers it) in host byte order."""
    data = source.read_bytes()
    out = bytearray(data[:20] + struct.pack("<I", 0))
    at = 24
    while at < len(data):
        seconds, fraction, caplen, length = struct.unpack_from("<IIII", data, at)
        packet = data[at + 16 : at + 16 + caplen]
        family = 30 if packet[0] >> 4 == 6 else 2
        out += struct.pack("<IIIII", seconds, fraction, caplen + 4, length + 4, family) + packet
        at += 16 + caplen
    target.write_bytes(out)


@scenario
def nanosecond() -> list[str]:
    """Ping and HTTP with nanosecond timestamps (magic 0xa1b23c4d)."""
    with Lab() as lab:
        start_web(lab)
        with lab.capture("client", "eth0", OUT / "nanosecond.pcap", "--time-stamp-precision=nano"):
            lab.run("client", "busybox ping -c 1 " + SERVER_IP)
            lab.run("client", f"curl -s -A curl --max-time 5 http://{SERVER_IP}/")
            lab.run("client", f"curl -s -A curl --max-time 5 http://[{SERVER_IP6}]/")
        return lab.commands


@scenario
def pcapng() -> list[str]:
    """two-interfaces.pcapng: one section, an Ethernet interface in microseconds and a RAW one (TUN) in nanoseconds,
    packets of both in order of arrival, a comment on the first packet. HTTP, ping and DNS on the first interface, ping
    and HTTP on the second."""
    with Lab() as lab:
        lab.start_python("client", "relay", "tun", lab.namespace("server"))
        for side, own, other in (("client", "10", "1"), ("server", "1", "10")):
            lab.quiet_ipv6(side, "tun0")
            lab.run(side, "ip link set tun0 up")
            lab.run(side, f"ip address add 203.0.113.{own} peer 203.0.113.{other} dev tun0")
        start_web(lab)
        recorder = lab.start_python(
            "client", "recorder", "pcapng", str(OUT / "two-interfaces.pcapng"), "2.5", "eth0", "tun0"
        )
        lab.run("client", "busybox ping -c 1 " + SERVER_IP)
        lab.run("client", "busybox ping -c 1 203.0.113.1")
        for host in (SERVER_IP, f"[{SERVER_IP6}]", "203.0.113.1"):
            lab.run("client", f"curl -s -A curl --max-time 5 http://{host}/")
        lab.run("client", f"busybox nslookup www.example.test {SERVER_IP}")
        recorder.wait(timeout=10)
        return lab.commands


@scenario
def discovery() -> list[str]:
    """Link discovery frames from a small sender (LLDP to three groups and unicast, CDP, VTP, FDP, EDP, SONMP, IS-IS),
    real spanning tree frames of a Linux bridge, and a ping as bystander."""
    with Lab() as lab:
        lab.run("client", "ip link add br0 type bridge stp_state 1 hello_time 100 forward_delay 200")
        lab.run("client", "ip link set br0 address 02:00:00:00:00:0c")
        with lab.capture("server", "eth0", OUT / "discovery.pcap"):
            lab.run("client", "busybox ping -c 1 " + SERVER_IP)
            lab.python("client", "senders", "discovery", "eth0")
            lab.run("client", "ip link set eth0 master br0")
            lab.run("client", "ip link set br0 up")
            lab.run("client", "sleep 3")
        return lab.commands


@scenario
def ptp() -> list[str]:
    """PTPv2 from a small sender: every message type over UDP (ports 319 and 320) and over Ethernet, untagged, in VLAN 5
    and double tagged; version 1, a neighbouring EtherType and another station's Sync as bystanders; a ping."""
    with Lab() as lab:
        with lab.capture("server", "eth0", OUT / "ptp.pcap"):
            lab.run("client", "busybox ping -c 1 " + SERVER_IP)
            lab.python("client", "senders", "ptp", "eth0", "224.0.1.129")
        return lab.commands


@scenario
def netlink() -> list[str]:
    """Real rtnetlink messages with the header of the kernel's nlmon device in front (link type NETLINK), written by
    recorder.py since the recording kernel has no nlmon: dumps of links, addresses and neighbours, a refused request,
    notifications of an address and a link change."""
    with Lab() as lab:
        lab.run("client", "busybox ping -c 1 " + SERVER_IP)
        lab.python("client", "recorder", "netlink", str(OUT / "netlink.pcap"))
        return lab.commands


def main() -> None:
    """Record the named scenarios, or all."""
    global OUT
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(SCENARIOS)}")
    parser.add_argument("--into", type=Path, default=HERE, help="directory for the captures")
    arguments = parser.parse_args()
    OUT = arguments.into.resolve()
    for name in arguments.names or list(SCENARIOS):
        print(name, file=sys.stderr)
        before = provenance.stamps(OUT)
        commands = SCENARIOS[name]()
        fresh = [file for file, stamp in provenance.stamps(OUT).items() if before.get(file) != stamp]
        provenance.note(OUT, name, SCENARIOS[name].__doc__ or "", fresh, commands)
    provenance.write(OUT)


if __name__ == "__main__":
    main()
