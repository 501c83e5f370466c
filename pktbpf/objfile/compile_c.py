"""C source -> BPF object with clang, where clang is: the command line, and running it.

The command is what people type by hand, `clang -target bpf -O2 -g`, plus the directory that a multiarch system keeps
asm/types.h in, and a debug directory of `.` so that the same source gives the same object anywhere.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pktbpf.errors import ObjectError

CPUS = ("v1", "v2", "v3", "v4", "probe")
DEFAULT_CPU = "v3"
TIMEOUT = 120  # seconds


def find_clang(clang: str | None = None) -> str:
    """The compiler's path: the one asked for, else `clang`, else the newest `clang-N`. ObjectError without any."""
    names = [clang] if clang else ["clang", *(f"clang-{version}" for version in range(30, 9, -1))]
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    if clang and Path(clang).exists():
        raise ObjectError(f"{clang} is no program that can be run; --clang takes the path of a compiler")
    raise ObjectError(f"{clang or 'clang'} is not installed; install the package clang (10 or newer), or name one with "
                      "--clang PATH")  # fmt: skip


def system_includes(root: Path = Path("/usr/include")) -> list[str]:
    """Directories that hold asm/types.h on multiarch systems, the machine's own first; empty where none is needed."""
    if (root / "asm" / "types.h").exists():
        return []
    own = root / f"{platform.machine()}-linux-gnu"
    if (own / "asm" / "types.h").exists():
        return [str(own)]
    return [str(path.parent.parent) for path in sorted(root.glob("*/asm/types.h"))[:1]]


def clang_command(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    includes: Sequence[str] = (),
    defines: Sequence[str] = (),
    cpu: str = DEFAULT_CPU,
    clang: str = "clang",
    extra: Sequence[str] = (),
) -> list[str]:
    """The command that compiles `source` to `output`. extra: further arguments of clang, put before the file."""
    return [
        clang,
        *("-target", "bpf", f"-mcpu={cpu}", "-O2", "-g", "-Wall"),
        "-fdebug-compilation-dir=.",
        "-fno-crash-diagnostics",
        *(f"-I{path}" for path in includes),
        *(f"-D{define}" for define in defines),
        *(f"-isystem{path}" for path in system_includes()),
        *extra,
        *("-c", os.fspath(source), "-o", os.fspath(output)),
    ]


def compile_c(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    includes: Sequence[str] = (),
    defines: Sequence[str] = (),
    cpu: str = DEFAULT_CPU,
    clang: str | None = None,
    extra: Sequence[str] = (),
) -> str:
    """Compile; returns clang's warnings. Raises ObjectError with clang's first error, or when there is no clang."""
    if not Path(source).is_file():
        raise ObjectError("no such C file", path=os.fspath(source))
    command = clang_command(
        source, output, includes=includes, defines=defines, cpu=cpu, clang=find_clang(clang), extra=extra
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise ObjectError(f"clang did not finish within {TIMEOUT} seconds", path=os.fspath(source)) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error:" in line]
        reason = lines[0] if lines else f"{command[0]} ended with {done.returncode} and no error for {source}"
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise CompileError(reason + more + _advice(reason, cpu), done.stderr)
    if not Path(output).is_file():
        raise CompileError(f"{command[0]} wrote no {output}; is it clang?", done.stderr)
    return done.stderr


def _advice(reason: str, cpu: str) -> str:
    """What to do about errors that are not of the source."""
    if "unknown target CPU" in reason:
        other = f"take --cpu {DEFAULT_CPU}, or" if cpu != DEFAULT_CPU else "take"
        return f"; this clang is too old for --cpu {cpu}: {other} a newer clang"
    if "file not found" in reason:
        return "; name the directory of the header with -I DIR"
    if "unable to create target" in reason or "No available targets" in reason:
        return "; this clang was built without BPF: name another with --clang PATH"
    return ""


class CompileError(ObjectError):
    """clang refused the source. diagnostics: all it said."""

    def __init__(self, reason: str, diagnostics: str):
        super().__init__(reason)
        self.diagnostics = diagnostics
