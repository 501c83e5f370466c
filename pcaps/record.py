"""Record the captures of this directory: `python pcaps/record.py [NAME ...]` (as root; all of them without a name).

Each scenario builds a lab of two namespaces, runs real clients and servers in it, and records with tcpdump. The
commands, link types and packet counts go into PROVENANCE.json, from which PROVENANCE.md is written. Recording again
gives the same kinds of packets, but other timestamps, ports and sequence numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from collections.abc import Callable

from lab import CLIENT_IP, CLIENT_IP6, HERE, SERVER_IP, SERVER_IP6, Lab

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
        with lab.capture("client", "eth0", HERE / "web.pcap"):
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


def main(names: list[str]) -> None:
    """Record the named scenarios, or all."""
    for name in names or list(SCENARIOS):
        print(name, file=sys.stderr)
        commands = SCENARIOS[name]()
        print("\n".join(commands))


if __name__ == "__main__":
    main(sys.argv[1:])
