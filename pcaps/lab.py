"""A throwaway network for recording: two namespaces joined by a veth pair, clients, servers and tcpdump.

Everything lives in namespaces that `Lab` creates and removes; nothing outside of them is ever addressed. Each command
is kept as text, in order, so that the provenance file states exactly what was run. Needs root, iproute2 and tcpdump.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

CLIENT_MAC = "02:00:00:00:00:0a"
SERVER_MAC = "02:00:00:00:00:0b"
CLIENT_IP, SERVER_IP = "192.0.2.10", "192.0.2.1"
CLIENT_IP6, SERVER_IP6 = "2001:db8::10", "2001:db8::1"
HERE = Path(__file__).resolve().parent

_SIOCETHTOOL = 0x8946
_ETHTOOL_SETTERS = (0x15, 0x17, 0x19, 0x1F, 0x24, 0x2C)  # rx csum, tx csum, sg, tso, gso, gro


class Lab:
    """Two namespaces, `client` and `server`, with a veth pair `eth0` between them (addresses optional).

    `commands` collects what was run, with the namespace in front. Use it as a context manager: leaving it ends the
    processes it started and removes the namespaces.
    """

    def __init__(self, *, addresses: bool = True, link: bool = True):
        self.commands: list[str] = []
        self.tmp = Path(tempfile.mkdtemp(prefix="pktbpf-record-"))
        self._tag = f"pktbpf-{os.getpid()}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._addresses = addresses
        self._link = link

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _build(self) -> None:
        for side in ("client", "server"):
            subprocess.run(["ip", "netns", "add", self.namespace(side)], check=True)
            self.run(side, "ip link set lo up", note=False)
        if not self._link:
            return
        client, server = self.namespace("client"), self.namespace("server")
        near, far = f"eth0 address {CLIENT_MAC}", f"eth0 address {SERVER_MAC} netns {server}"
        subprocess.run(f"ip -n {client} link add {near} type veth peer name {far}".split(), check=True)
        for side, ip, ip6 in (("client", CLIENT_IP, CLIENT_IP6), ("server", SERVER_IP, SERVER_IP6)):
            self.quiet_ipv6(side, "eth0")
            if self._addresses:
                self.run(side, f"ip address add {ip}/24 dev eth0", note=False)
                self.run(side, f"ip address add {ip6}/64 dev eth0 nodad", note=False)
            self.python(side, "lab", "offload-off", "eth0", note=False)
            self.run(side, "ip link set eth0 up", note=False)
        time.sleep(0.3)

    def quiet_ipv6(self, side: str, device: str) -> None:
        """No router solicitations and no duplicate address detection, which would come at random times."""
        for name in ("accept_dad", "router_solicitations", "dad_transmits"):
            self.run(side, f"sh -c 'echo 0 > /proc/sys/net/ipv6/conf/{device}/{name}'", note=False)

    def namespace(self, side: str) -> str:
        return f"{self._tag}-{side}"

    def _argv(self, side: str, command: str) -> list[str]:
        import shlex

        return ["ip", "netns", "exec", self.namespace(side), *shlex.split(command)]

    def run(self, side: str, command: str, *, note: bool = True, check: bool = True, limit: float = 20) -> str:
        """Run to the end (at most `limit` seconds); standard output as text."""
        if note:
            self.note(side, command)
        done = subprocess.run(self._argv(side, command), capture_output=True, timeout=limit, cwd=self.tmp, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{command}: exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode(errors="replace")

    def python(self, side: str, module: str, *arguments: str, note: bool = True) -> str:
        """Run pcaps/MODULE.py with arguments in a namespace."""
        if note:
            self.note(side, " ".join(["python", f"pcaps/{module}.py", *arguments]))
        return self.run(side, " ".join([sys.executable, str(HERE / f"{module}.py"), *arguments]), note=False)

    def start(self, side: str, command: str, *, note: bool = True, wait: float = 0.5) -> subprocess.Popen[bytes]:
        """Start a server; it is ended when the lab closes."""
        if note:
            self.note(side, command + " &")
        process = subprocess.Popen(
            self._argv(side, command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self.tmp,
        )  # fmt: skip
        self._processes.append(process)
        time.sleep(wait)
        if process.poll() not in (None, 0):
            raise RuntimeError(f"{command}: ended at once with {process.returncode}")
        return process

    def start_python(self, side: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start pcaps/MODULE.py as a server."""
        self.note(side, " ".join(["python", f"pcaps/{module}.py", *arguments]) + " &")
        return self.start(side, " ".join([sys.executable, str(HERE / f"{module}.py"), *arguments]), note=False)

    def note(self, side: str, command: str) -> None:
        text = (
            command.replace(str(self.tmp) + "/", "")
            .replace(sys.executable, "python")
            .replace(str(HERE) + "/", "pcaps/")
        )
        self.commands.append(f"[{side}] {text}")

    @contextlib.contextmanager
    def capture(self, side: str, device: str, path: Path, *options: str, settle: float = 0.4) -> Iterator[None]:
        """tcpdump on a device while the body runs."""
        command = " ".join(
            ["tcpdump", "-Z root -U --immediate-mode -n -B 16384 -s 0", *options, f"-i {device} -w {path}"]
        )
        self.note(side, " ".join(["tcpdump", *options, f"-i {device} -w {path.name}"]))
        process = subprocess.Popen(self._argv(side, command), stderr=subprocess.PIPE, cwd=self.tmp)
        assert process.stderr is not None
        for line in process.stderr:
            if b"listening on" in line:
                break
        else:
            raise RuntimeError(f"{command}: tcpdump did not start")
        try:
            yield
            time.sleep(settle)
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=10)[1].decode()
        if not re.search(r"\b0 packets dropped by kernel", rest):
            raise RuntimeError(f"{command}: {rest.strip()}")

    def close(self) -> None:
        """End what was started, remove the namespaces and the scratch directory."""
        import shutil

        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
        for side in ("client", "server"):
            subprocess.run(["ip", "netns", "del", self.namespace(side)], check=False, capture_output=True)
        shutil.rmtree(self.tmp)


def offload_off(device: str) -> None:
    """Checksums computed and segments cut before the wire, so that the capture shows what a real wire carries."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for setter in _ETHTOOL_SETTERS:
            value = array.array("B", struct.pack("=II", setter, 0))
            request = struct.pack("=16sQ16x", device.encode(), value.buffer_info()[0])
            # a device that lacks the feature answers EOPNOTSUPP: then there is nothing to switch off
            with contextlib.suppress(OSError):
                fcntl.ioctl(sock, _SIOCETHTOOL, request)


if __name__ == "__main__":
    if sys.argv[1:2] != ["offload-off"]:
        raise SystemExit("usage: lab.py offload-off DEVICE")
    offload_off(sys.argv[2])
