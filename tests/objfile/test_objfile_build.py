"""Sources and objects belong together: a fresh build has the committed instructions; compile-c and its errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pktbpf.errors import ObjectError
from pktbpf.objfile import Object, load_object
from pktbpf.objfile.compile_c import CompileError, clang_command, compile_c, find_clang, system_includes
from pktbpf.objfile.elf import read_elf

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "filters" / "ebpf").rglob("*.c")) + sorted((Path(__file__).parent / "src").glob("*.c"))
HEADERS = Path("/usr/include/bpf/bpf_helpers.h")


def code_of(path: Path) -> dict[str, bytes]:
    """The bytes of every code and data section of an object."""
    elf = read_elf(path.read_bytes(), str(path))
    return {s.name: s.data for s in elf.sections.values() if s.flags & 2 and not s.name.startswith(".debug")}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_source_has_its_object(source: Path) -> None:
    assert source.with_suffix(".o").exists()
    first = source.read_text().splitlines()[0]
    assert first.startswith("// "), "the first line says what it is"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_fresh_build_has_the_committed_instructions(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("clang") is None or not HEADERS.exists():
        pytest.skip("clang or libbpf's headers are not installed")
    version = compile_version(tmp_path)
    if version != 14:
        pytest.skip(f"the committed objects are clang 14's, this is clang {version}")
    monkeypatch.chdir(ROOT if source.is_relative_to(ROOT / "filters") else source.parent)
    fresh = tmp_path / "fresh.o"
    compile_c(source.relative_to(Path.cwd()), fresh)
    assert code_of(fresh) == code_of(source.with_suffix(".o"))


def compile_version(tmp_path: Path) -> int:
    """Major version of the compiler, by its own macro."""
    probe = tmp_path / "version.c"
    probe.write_text("int version = __clang_major__;\n")
    compile_c(probe, tmp_path / "version.o")
    found = load_object(tmp_path / "version.o")
    assert isinstance(found, Object)
    return int(found.value("version"))


def test_command() -> None:
    command = clang_command("a.c", "b.o", includes=["inc"], defines=["X=1"], cpu="v2")
    text = " ".join(command)
    assert text.startswith("clang -target bpf -mcpu=v2 -O2 -g")
    assert "-Iinc -DX=1" in text
    assert text.endswith("-c a.c -o b.o")


def test_multiarch_directory(tmp_path: Path) -> None:
    assert system_includes(tmp_path) == []
    (tmp_path / "riscv64-linux-gnu" / "asm").mkdir(parents=True)
    (tmp_path / "riscv64-linux-gnu" / "asm" / "types.h").touch()
    assert system_includes(tmp_path) == [str(tmp_path / "riscv64-linux-gnu")]
    (tmp_path / "asm").mkdir()
    (tmp_path / "asm" / "types.h").touch()
    assert system_includes(tmp_path) == []


def test_no_clang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ObjectError, match="clang is not installed"):
        find_clang()
    with pytest.raises(ObjectError, match="my-clang is not installed"):
        find_clang("my-clang")


def test_refused_source(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    source = tmp_path / "bad.c"
    source.write_text("int f(void) { return x; }\nint g(void) { return y; }\n")
    with pytest.raises(
        CompileError, match=r"bad.c:1:22: error: use of undeclared identifier 'x' \(and 1 more\)"
    ) as caught:
        compile_c(source, tmp_path / "bad.o")
    assert "'y'" in caught.value.diagnostics
    with pytest.raises(ObjectError, match="no such C file"):
        compile_c(tmp_path / "none.c", tmp_path / "none.o")


def test_cli(tmp_path: Path) -> None:
    from pktbpf.cli.compile_c import command

    source = tmp_path / "tiny.c"
    source.write_text('__attribute__((section("socket"))) int tiny(void *skb) { return N; }\n')
    shown = CliRunner().invoke(command, [str(source), "-o", "x.o", "-D", "N=3", "--cpu", "v1", "--show-command"])
    assert shown.exit_code == 0
    assert shown.output.startswith("clang -target bpf -mcpu=v1")
    assert shown.output.rstrip().endswith("-o x.o")
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    output = tmp_path / "tiny.o"
    done = CliRunner().invoke(command, [str(source), "-o", str(output), "-D", "N=3"])
    assert done.exit_code == 0, done.output
    assert "programs tiny; maps none" in done.stderr
    assert not done.stdout
    assert load_object(output, program="tiny").insns[0].imm == 3
    failed = CliRunner().invoke(command, [str(source), "-o", str(output)])
    assert isinstance(failed.exception, CompileError)
    assert "undeclared identifier 'N'" in failed.stderr
