"""What the questions share: captures, compiled C programs, interleaved measuring, results as JSON with machine info."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCRATCH = Path(os.environ.get("PKTBPF_BENCH_DIR", tempfile.gettempdir())) / "pktbpf-bench"
FILTER = "tcp dst port 80"


def capture(packets: int, size: int) -> Path:
    """A generated capture (bench/generate.py, seed 1), made when it is not there yet."""
    path = SCRATCH / f"{packets}-{size}.pcap"
    if not path.exists():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        making = path.with_suffix(".making")
        sizes = ["--packets", str(packets), "--bytes", str(size)]
        subprocess.run([sys.executable, str(HERE / "generate.py"), str(making), *sizes], check=True)
        making.rename(path)
    return path


def compiled(name: str) -> Path:
    """A C program of bench/c, built with `gcc -O2 -lpcap`."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    binary = SCRATCH / name
    subprocess.run(["gcc", "-O2", "-o", str(binary), str(HERE / "c" / f"{name}.c"), "-lpcap"], check=True)
    return binary


def seconds(command: list[str]) -> float:
    """Wall time of a command; its output goes nowhere."""
    begun = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def pktbpf(*arguments: str) -> list[str]:
    """The command line of this interpreter's pktbpf."""
    return [sys.executable, "-c", "from pktbpf.cli import main; main()", *arguments]


def interleaved(subjects: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every subject once per round, so that a noisy minute hits all; the first round warms up and is dropped."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, run in subjects.items():
            value = run()
            if number:
                taken[name].append(value)
    return taken


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.processor())
    packages = ("pktbpf", "numba", "llvmlite", "numpy", "dpkt", "scapy")
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def save(question: str, facts: Mapping[str, Any], taken: Mapping[str, list[float]], unit: str, base: str) -> None:
    """Write results/QUESTION.json. base: the subject that ratios are taken to."""
    medians = {name: statistics.median(values) for name, values in taken.items()}
    rows = {
        name: {"median": value, "ratio": value / medians[base], "values": taken[name]}
        for name, value in medians.items()
    }
    RESULTS.mkdir(exist_ok=True)
    result = {"question": question, "unit": unit, "base": base, **facts, "rows": rows, "machine": machine()}
    (RESULTS / f"{question}.json").write_text(json.dumps(result, indent=2) + "\n")
    for name, row in rows.items():
        print(f"{question:<12} {name:<36} {row['median']:>12.4g} {unit:<12} {row['ratio']:>8.2f} x")
