"""The layer contract as an executable check; the picture is in README.md, section ARCHITECTURE.

A module imports only from layers below its own and from itself; names on one line are siblings and do not import each
other. Imports inside functions and under TYPE_CHECKING count as well, except upward ones for types alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pktbpf

PACKAGE = Path(pktbpf.__file__).parent

# From top to bottom. Inside one line, `|` separates siblings.
LAYERS = (
    ("__main__",),
    ("cli", "pytest_plugin"),
    ("testing",),
    ("report",),
    ("explain", "parity"),
    ("replayer", "kernel"),
    ("filter", "bpf"),
    ("instance",),
    ("engine",),
    ("loader",),
    ("asm", "expression", "objfile", "translator", "verifier", "maps", "capture"),
    ("program",),
    ("abi",),
    ("isa",),
    ("errors", "hot"),
)
LEVEL = {name: level for level, line in enumerate(LAYERS) for name in line}

# What may import a third-party package: exactly these modules.
DOORS = {
    "numba": {"hot"},
    "llvmlite": {"hot", "engine.native"},
    "scapy": {"report.scapy_summary"},
    "rich": {"cli._progress"},
    "elftools": {"objfile"},
    "pyarrow": set(),
    "click": {"cli"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def type_checking_lines(tree: ast.AST) -> set[int]:
    """Lines under `if TYPE_CHECKING:`."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for inner in node.body:
                lines.update(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
    return lines


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(dotted name, line, for types only) of everything that a module imports; names from packages are resolved."""
    tree = ast.parse(path.read_text())
    typing_only = type_checking_lines(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, node.lineno in typing_only
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if node.module == "pktbpf" else str(node.module), node.lineno, node.lineno in typing_only


def layer_of(dotted: str) -> str | None:
    """The layer of `pktbpf.x.y`; None for the package itself and for other packages."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "pktbpf" and len(parts) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_only_from_below(path: Path) -> None:
    own = module_name(path).split(".")[0]
    assert own in LEVEL, f"{path}: `{own}` is in no layer; add it to the picture"
    for dotted, line, typing_only in imports(path):
        other = layer_of(dotted)
        if other is None or other == own or (other == "__version__" and own == "cli"):
            continue
        assert other in LEVEL, f"{path}:{line}: {dotted} is in no layer"
        if typing_only:
            continue
        assert LEVEL[other] > LEVEL[own], f"{path}:{line}: {own} must not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_third_party_packages_have_one_door(path: Path) -> None:
    own = module_name(path)
    for dotted, line, typing_only in imports(path):
        allowed = DOORS.get(dotted.split(".")[0])
        if allowed is None or typing_only:
            continue
        inside = any(own == door or own.startswith(f"{door}.") for door in allowed)
        assert inside, f"{path}:{line}: {dotted} is imported by {', '.join(sorted(allowed)) or 'nobody'} only"


def test_every_layer_exists() -> None:
    """A name in the picture that nobody builds any more would make the contract say less than it seems to."""
    there = {module_name(path).split(".")[0] for path in MODULES}
    assert {name for line in LAYERS for name in line} == there


def test_no_import_of_the_public_facade() -> None:
    """Inside the package nobody goes through `import pktbpf`, whose names are loaded lazily for users."""
    for path in MODULES:
        for dotted, line, _ in imports(path):
            assert dotted != "pktbpf" or module_name(path) == "cli._version", f"{path}:{line}"
