"""One `load()` for a filter in any form: path, text or bytes -> ClassicProgram or Program.

Bytes: the ELF magic is an object; what is not text (a NUL, not UTF-8) is raw instructions, of the extended set when
the last one is its `exit` (0x95, no classic opcode), else of the classic set. Raw filters always have NULs (the high
byte of every classic opcode), texts never. Text: the first row of `TEXT_FORMS` that matches once comments are removed;
what none of them knows is a pcap-filter expression. `form=` skips the guessing. A str that names a file is that file.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pktbpf.asm.classic_text import MNEMONICS
from pktbpf.errors import ExpressionError, FilterSyntaxError, ObjectError, UsageError
from pktbpf.program import ClassicProgram, Program

if TYPE_CHECKING:
    from typing import TypeAlias

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview"

DEFAULT_LINKTYPE = "EN10MB"
MAX_FILE_SIZE = 64 << 20  # no filter is near this; a device or a capture given by mistake is not read to its end

# A repeat ends where the next part cannot begin, which keeps the time linear in the length of hostile text. Possessive
# repeats would say so, but Python before 3.11.5 forgets where a group of them began when it fails half-way.
_MNEMONIC = "|".join(sorted(map(re.escape, MNEMONICS), key=len, reverse=True))
_COMMENTS = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*|^[ \t]*#[^\n]*|;[^\n]*", re.DOTALL | re.MULTILINE)
_CLASSIC_LEAD = r"[\s/]*(?:(?:\(\d+\)|\d+:|[A-Za-z_]\w*:)[\s/]*)*"
_CLASSIC = re.compile(rf"{_CLASSIC_LEAD}(?:{_MNEMONIC})(?![\w.])(?!\s*:)", re.IGNORECASE)
# Any line like `ldh [12]` or `ret #0`: a listing whose first line is misspelt is still no expression.
_CLASSIC_LINE = re.compile(
    rf"^[ \t]*(?:(?:\(\d+\)|\d+:|[A-Za-z_]\w*:)[ \t]*)?(?:{_MNEMONIC})[ \t]+[#\[]", re.IGNORECASE | re.MULTILINE
)
_C_ARRAY = re.compile(r"\bsock_filter\b|\bsock_fprog\b|\bBPF_(?:STMT|JUMP)\s*\(|\A\s*\{")
_HEX = re.compile(r"\s*(?:(?:[0-9a-fA-F]{2}[ \t]+){7}[0-9a-fA-F]{2}\s+|[0-9a-fA-F]{16}\s+)+")
_DECIMAL = re.compile(r"[\s'\"]*\d+[\d\s,'\"]*")
_EXTENDED = re.compile(
    r"""^[ \t]*(?:\w+:[ \t]*)*(?:\([0-9a-f]{2}\)[ \t]*)?   # label or number, bpftool's opcode
    (?:[rw]\d+[ \t]*(?:[-+*/%&|^]|<<|>>|s>>|s/|s%)?=      # r0 = ..., w1 += ...
      |\*[ \t]*\([ \t]*[us](?:8|16|32|64)[ \t]*\*         # *(u32 *)(r1 + 0) = ...
      |lock[ \t]+\*|if[ \t]+[rw]\d+[ \t]|gotol?[ \t]|exit[ \t]*$|call[ \t]+\S
      |\.(?:map|license|name)[ \t]|\.insn(?:[^,\n]*,){4})  # five values; the classic .insn has four""",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)


class TextForm(NamedTuple):
    """A row of the sniff table: `matches` sees the text without comments."""

    name: str
    matches: Callable[[str], bool]


TEXT_FORMS: tuple[TextForm, ...] = (
    TextForm("hex", lambda text: _HEX.fullmatch(text + "\n") is not None),
    TextForm("decimal", lambda text: _DECIMAL.fullmatch(text) is not None),
    TextForm("c", lambda text: _C_ARRAY.search(text) is not None),
    TextForm("extended", lambda text: _EXTENDED.search(text) is not None),
    TextForm("asm", lambda text: bool(_CLASSIC.match(text) or _CLASSIC_LINE.search(text))),
)
FORMS: tuple[str, ...] = ("asm", "c", "decimal", "hex", "raw", "raw-extended", "elf", "extended", "expression")

# A name with one of these endings, or with a slash, is meant as a file even where there is none.
_PATH_SUFFIXES = (
    ".bpf", ".o", ".bin", ".txt", ".asm", ".s", ".c", ".h", ".elf", ".pcap-filter", ".filter", ".dd", ".ddd",
)  # fmt: skip
_PREFIX_LENGTH = re.compile(r"[0-9a-fA-F.:]+/\d+")
_EXPRESSION_MARKS = re.compile(r"[\s\[\](){}=<>!&|*\"']")


# What pipes and standard input gave: they can be read once, and a filter is asked for its form before it is loaded.
_pipes: dict[tuple[str, int, int], bytes] = {}
_standard_input: list[Any] = []


def sniff_text(text: str) -> str:
    """The form of a text: a name of `TEXT_FORMS`, or `expression`."""
    bare = _COMMENTS.sub(" ", text.lstrip("\ufeff"))
    return next((form.name for form in TEXT_FORMS if form.matches(bare)), "expression")


def sniff_bytes(data: bytes) -> str:
    """The form of a file's content or of bytes, one of `FORMS`."""
    if data[:4] == b"\x7fELF":
        return "elf"
    text = decode_text(data)
    if text is not None:
        return sniff_text(text)
    return _raw_form(data)


def decode_text(data: bytes) -> str | None:
    """The text in bytes (UTF-8, or UTF-16 with its mark), or None where they are none."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            return None
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def load(
    source: Source,
    *,
    linktype: str | int | None = None,
    optimize: bool = True,
    program: str | None = None,
    form: str | None = None,
    savefile: bool = False,
    live: bool = False,
    btf: str | bytes | None = None,
) -> ClassicProgram | Program | Any:
    """The filter that `source` states.

    source: a path object; a str (an existing file's name, else a filter's text, else a pcap-filter expression); bytes.
    linktype: DLT name or number that an expression is compiled for (default EN10MB). optimize: as tcpdump without -O.
    program: which program of an object, or which array of a C source. form: one of `FORMS`, instead of guessing.
    savefile: compile an expression as `tcpdump -r` does. live: as `tcpdump -i` does (`vlan` tests metadata, too).
    btf: types of the kernel that an object is fitted to (bytes, or a file; default: the running kernel's).
    Raises FilterSyntaxError, ExpressionError, ObjectError; UsageError for an unknown form.
    """
    if form is not None and form not in FORMS:
        raise UsageError(f"unknown filter form {form!r}; there are {', '.join(FORMS)}")
    wanted = _Wanted(linktype, optimize, program, form, savefile, live, btf)
    if isinstance(source, bytes | bytearray | memoryview):
        return wanted.from_bytes(bytes(source), None)
    if not isinstance(source, str):
        return wanted.from_file(Path(source))
    if _names_a_file(source):
        return wanted.from_file(Path(source))
    if form is None and looks_like_path(source):
        raise FilterSyntaxError("is a directory" if _is_directory(source) else "no such file", source=source)
    return wanted.from_text(source, None)


def load_argument(argument: str, linktype: str | int | None = None, **options: Any) -> Any:
    """What PROG of a command line means: a file in any form, or an expression; `-` is standard input. As `load`."""
    source: Source = _read_standard_input() if argument == "-" else argument
    return load(source, linktype=linktype, **options)


def load_filter_argument(argument: str, linktype: str | int | None = None, **options: Any) -> ClassicProgram | Program:
    """The same for `--filter ARGUMENT`: an object stands for its only program; ObjectError names them where it has
    several."""
    loaded = load_argument(argument, linktype, **options)
    if isinstance(loaded, ClassicProgram | Program):
        return loaded
    only: Program = loaded.program()
    return only


def read_text(file: str) -> str:
    """The text of a file, `-` being standard input. Raises FilterSyntaxError where it is none."""
    text = decode_text(_read_standard_input() if file == "-" else _read(Path(file)))
    if text is None:
        raise FilterSyntaxError("not text (neither UTF-8 nor UTF-16 with its mark)", source=file)
    return text


def is_expression(argument: str) -> bool:
    """Whether `--filter ARGUMENT` is an expression (given itself or in a file), which each link type compiles anew."""
    if argument == "-":
        return sniff_bytes(_read_standard_input()) == "expression"
    if _names_a_file(argument):
        return sniff_bytes(_read(Path(argument))) == "expression"
    return not looks_like_path(argument) and sniff_text(argument) == "expression"


def looks_like_path(argument: str) -> bool:
    """Whether a str can only be meant as a file's name: its ending or a slash, and nothing that expressions have."""
    if argument.startswith(("/", "./", "../", "~/")) and "\n" not in argument and not argument.startswith(("//", "/*")):
        return True
    if _EXPRESSION_MARKS.search(argument) or _PREFIX_LENGTH.fullmatch(argument):
        return False
    return "/" in argument or argument.lower().endswith(_PATH_SUFFIXES)


def _names_a_file(text: str) -> bool:
    if "\n" in text or "\0" in text or not text:
        return False
    try:
        path = Path(text)
        return path.exists() and not path.is_dir()
    except OSError:  # longer than any file name
        return False


def _is_directory(text: str) -> bool:
    try:
        return text != "" and Path(text).is_dir()
    except (OSError, ValueError):  # longer than any file name, or a NUL in it
        return False


def _name(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        key = (str(path), status.st_dev, status.st_ino)
        if key in _pipes:
            return _pipes[key]
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_SIZE + 1)
        if not stat.S_ISREG(status.st_mode):
            _pipes[key] = data
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise FilterSyntaxError(reason[0].lower() + reason[1:], source=str(path)) from None
    except ValueError as error:  # a NUL in the name
        raise FilterSyntaxError(str(error), source=str(path)) from None
    if len(data) > MAX_FILE_SIZE:
        raise FilterSyntaxError(f"more than {MAX_FILE_SIZE >> 20} MiB, this is no filter", source=str(path))
    return data


def _read_standard_input() -> bytes:
    if sys.stdin is None:
        raise FilterSyntaxError("standard input is closed", source="-")
    stream = sys.stdin.buffer
    if not _standard_input or _standard_input[0] is not stream:
        _standard_input[:] = [stream, stream.read(MAX_FILE_SIZE + 1)]
    data: bytes = _standard_input[1]
    if len(data) > MAX_FILE_SIZE:
        raise FilterSyntaxError(f"more than {MAX_FILE_SIZE >> 20} MiB, this is no filter", source="-")
    return data


class _Wanted(NamedTuple):
    """The options of one `load`."""

    linktype: str | int | None
    optimize: bool
    program: str | None
    form: str | None
    savefile: bool = False
    live: bool = False
    btf: str | bytes | None = None

    def from_file(self, path: Path) -> Any:
        return self.from_bytes(_read(path), path)

    def from_bytes(self, data: bytes, path: Path | None) -> Any:
        if not data and path is not None and path.suffix == ".o":
            raise ObjectError("an empty file is no object", path=str(path))
        if not data and path is None and self.form is None:  # an empty file is the expression that accepts everything
            raise FilterSyntaxError("no bytes, no instructions", source="filter")
        form = self.form or sniff_bytes(data)
        if form == "elf":
            from pktbpf.objfile import load_object

            return load_object(data, program=self.program, path=_name(path), btf=self.btf)
        if form in ("raw", "raw-extended"):
            return _from_raw(data, form, path)
        text = decode_text(data)
        if text is None:
            raise FilterSyntaxError("not text (neither UTF-8 nor UTF-16 with its mark)", source=_name(path))
        if form == "expression":
            from pktbpf.expression import strip_comments

            text = strip_comments(text.lstrip("\ufeff"))
        return self.from_text(text, path, form)

    def from_text(self, text: str, path: Path | None, form: str | None = None) -> Any:
        text = text.lstrip("\ufeff")  # the mark that some editors leave
        form = form or self.form or sniff_text(text)
        source, origin = _name(path), str(path or "")
        if form == "asm":
            from pktbpf.asm import classic_text

            return classic_text.assemble(text, source=source, origin=origin)
        if form == "decimal":
            from pktbpf.asm import decimal

            return decimal.parse(text, source=source, origin=origin)
        if form == "c":
            from pktbpf.asm import carray

            return carray.parse(text, name=self.program, source=source, origin=origin)
        if form == "extended":
            from pktbpf.asm import extended_text

            return dataclasses.replace(extended_text.assemble(text, source=source), origin=origin)
        if form == "hex":
            return _from_hex(text, path)
        if form == "expression":
            return self._from_expression(text, path)
        raise UsageError(f"form {form!r} is of bytes; give bytes or a file")

    def _from_expression(self, text: str, path: Path | None) -> ClassicProgram:
        from pktbpf import expression

        linktype = DEFAULT_LINKTYPE if self.linktype is None else self.linktype
        try:
            return expression.compile(
                text, linktype=linktype, optimize=self.optimize, savefile=self.savefile, live=self.live
            )
        except ExpressionError as error:
            if path is not None:
                raise ExpressionError(f"{path}: {error}") from None
            if _is_directory(text):  # `tcp` may be one and means the protocol all the same
                raise FilterSyntaxError("is a directory", source=text) from None
            raise


def _from_hex(text: str, path: Path | None) -> ClassicProgram | Program:
    try:
        data = bytes.fromhex(_COMMENTS.sub(" ", text))
    except ValueError:
        raise FilterSyntaxError("not pairs of hexadecimal digits", source=_name(path)) from None
    return _from_raw(data, _raw_form(data), path)


def _raw_form(data: bytes) -> str:
    return "raw-extended" if data[-8:] == b"\x95" + bytes(7) else "raw"


def _from_raw(data: bytes, form: str, path: Path | None) -> ClassicProgram | Program:
    source = _name(path)
    if not data:
        raise FilterSyntaxError("empty, no instructions", source=source)
    if len(data) % 8:
        raise FilterSyntaxError(
            f"{len(data)} bytes are not a whole number of 8-byte instructions, nor text in UTF-8", source=source
        )
    cls: type[ClassicProgram] | type[Program] = Program if form == "raw-extended" else ClassicProgram
    return cls.from_bytes(data, origin=str(path or ""))
