"""Classic filter text -> ClassicProgram: the kernel's bpf_asm language and `tcpdump -d` listings, in one grammar.

Mnemonics and operands come from the rows of `isa.classic`, extensions from `abi.ancillary`. Jumps are written with
labels (`jeq #0x800, ip, drop`), with one label (`jeq #6, tcp`, else the next instruction; `jneq`, `jlt`, `jle` are the
inverted ones), or as tcpdump prints them (`jt 2 jf 5`, instruction numbers from 0, as in `ja 7`). Instructions need no
line of their own; `(000)` numbers, ` / ` between instructions and, in a text of one line, `;` are accepted. `.insn
code, jt, jf, k` states any eight bytes. Wording after the kernel's Documentation/networking/filter.rst.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pktbpf.abi import ancillary
from pktbpf.asm.classic_scan import Scanner, Token
from pktbpf.errors import FilterSyntaxError
from pktbpf.isa import classic
from pktbpf.isa.classic import ClassicInsn, ClassicRow
from pktbpf.program import ClassicProgram

RET_X = 0x0E  # bpf_asm writes `ret x`; the kernel refuses it at attach time

_SHAPES: dict[tuple[str, str], ClassicRow] = {
    (row.mnemonic, row.operand.replace("{m}", "{k}")): row for row in classic.ROWS
}
# Other names: the mnemonic they stand for, and whether the branch is taken the other way round.
ALIASES: dict[str, tuple[str, bool]] = {
    "ldi": ("ld", False),
    "ldxi": ("ldx", False),
    "jmp": ("ja", False),
    "jne": ("jeq", True),
    "jneq": ("jeq", True),
    "jlt": ("jge", True),
    "jle": ("jgt", True),
}
RAW_WORD = ".insn"
MNEMONICS: frozenset[str] = frozenset({row.mnemonic for row in classic.ROWS} | set(ALIASES) | {RAW_WORD, "unimp"})
_MASK32 = 0xFFFFFFFF

# Names of extensions: bpf_asm's words, and those that libpcap's listings have for them.
EXTENSIONS: dict[str, int] = {row.word: row.k for row in ancillary.ROWS if row.word.isidentifier()}
EXTENSIONS["vlan_pr"] = ancillary.BY_NAME["VLAN_TAG_PRESENT"].k
_LISTING_NAMES: dict[str, int] = {
    **EXTENSIONS,
    "vlanp": ancillary.BY_NAME["VLAN_TAG_PRESENT"].k,
    "random": ancillary.BY_NAME["RANDOM"].k,
    "xor_x": ancillary.BY_NAME["ALU_XOR_X"].k,
}


@dataclass(slots=True)
class _Target:
    """Where a jump goes: a label, or an instruction number."""

    token: Token
    number: int | None


@dataclass(slots=True)
class _Pending:
    """An instruction whose jumps are not yet distances."""

    code: int
    k: int
    offset: int
    jt: _Target | int = 0
    jf: _Target | int = 0
    always: _Target | None = None


@dataclass
class _Parser:
    scanner: Scanner
    insns: list[_Pending] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    waiting: list[Token] = field(default_factory=list)
    numbered: bool = False

    def run(self) -> None:
        scan = self.scanner
        while True:
            token = scan.peek()
            if token.kind == "end":
                break
            if scan.at("#"):
                scan.skip_line()
            elif scan.at("/"):
                scan.take()
            elif scan.at("(") or token.kind == "number":
                self._take_number()
            elif token.kind == "word":
                self._label_or_instruction(scan.take())
            else:
                scan.expected("an instruction")
        if self.waiting:
            scan.fail(f"label {self.waiting[0].text!r} stands before no instruction", self.waiting[0].offset)
        if not self.insns:
            scan.fail("no instructions in this text", 0)

    def _take_number(self) -> None:
        """`(003)` or `3:` before an instruction: it must be the number the instruction has anyhow."""
        scan = self.scanner
        closing = ")" if scan.accept("(") else ":"
        token = scan.peek()
        if token.kind != "number":
            scan.expected("an instruction number")
        scan.take()
        scan.expect(closing)
        digits = token.text.lstrip("0") or "0"  # listings pad with zeros: (012) is twelve, not octal
        if digits != str(len(self.insns)):
            scan.fail(f"instruction {len(self.insns)} is numbered {token.text}", token.offset)
        self.numbered = True

    def _label_or_instruction(self, token: Token) -> None:
        scan = self.scanner
        name = token.text.lower()
        if scan.at(":"):
            if name in MNEMONICS or name in ("x", "a", "m"):
                scan.fail(f"{token.text!r} is a word of the language and cannot be a label", token.offset)
            if token.text in self.labels:
                scan.fail(f"label {token.text!r} is defined twice", token.offset)
            scan.take()
            self.labels[token.text] = len(self.insns)
            self.waiting.append(token)
            return
        if name not in MNEMONICS:
            scan.fail(f"expected an instruction or a label, found {token}", token.offset)
        self.insns.append(self._instruction(name, token))
        self.waiting.clear()
        self.numbered = False

    def _instruction(self, name: str, token: Token) -> _Pending:
        if name == RAW_WORD:
            return self._raw(token)
        if name == "unimp":
            # libpcap's listing of an opcode that it does not know; the opcode is all that it keeps
            return self._branch(_Pending(self._number("an opcode") & 0xFFFF, 0, token.offset), False, optional=True)
        mnemonic, inverted = ALIASES.get(name, (name, False))
        if mnemonic == "ja":
            return _Pending(classic.BY_NAME["JA"].code, 0, token.offset, always=self._target())
        if name == "ret" and self.numbered and not self._operand_follows():
            return _Pending(classic.BY_NAME["RET_A"].code, 0, token.offset)
        place = self.scanner.peek()
        shape, k = ("", 0) if (mnemonic, "") in _SHAPES else self._operand(name)
        if (mnemonic, shape) == ("ret", "x"):
            return _Pending(RET_X, 0, token.offset)
        row = _SHAPES.get((mnemonic, shape)) or (_SHAPES.get(("ldxb", shape)) if name == "ldx" else None)
        if row is None or (name in ("ldi", "ldxi") and shape != "#{k}"):
            self.scanner.fail(f"expected {_wants(name)} after {name!r}, found {place}", place.offset)
        pending = _Pending(row.code, k, token.offset)
        return self._branch(pending, inverted) if row.branch else pending

    def _operand_follows(self) -> bool:
        token = self.scanner.peek()
        return token.text in ("#", "%") or (token.kind == "word" and token.text.lower() in ("a", "x"))

    def _operand(self, name: str) -> tuple[str, int]:
        """The operand as the rows write it, with {k} for its number."""
        scan = self.scanner
        token = scan.peek()
        word = token.text.lower()
        if token.kind == "word" and word == "m":
            scan.take()
            return "M[{k}]", self._bracketed()
        if scan.accept("%") or (token.kind == "word" and word in ("x", "a")):
            return self._register(), 0
        if scan.at("["):
            return self._packet_load()
        if scan.accept("#") or token.kind == "word":
            return self._immediate_or_extension(name)
        if name in ("ldi", "ldxi") and (token.kind == "number" or scan.at("-") or scan.at("+")):
            return "#{k}", self._number("a number")
        if token.kind == "number" and name in ("ldx", "ldxb"):
            return self._header_length()
        raise scan.error(f"expected {_wants(name)} after {name!r}, found {token}")

    def _register(self) -> str:
        token = self.scanner.peek()
        if token.kind != "word" or token.text.lower() not in ("x", "a"):
            self.scanner.expected("register x or a")
        return self.scanner.take().text.lower()

    def _immediate_or_extension(self, name: str) -> tuple[str, int]:
        scan = self.scanner
        token = scan.peek()
        if token.kind != "word":
            return "#{k}", self._number("a number or the name of an extension")
        word = token.text.lower()
        if word in ("len", "pktlen"):
            scan.take()
            return "#pktlen", 0
        if word in EXTENSIONS and name in ("ld", "ldh", "ldb"):
            scan.take()
            return "[{k}]", EXTENSIONS[word]
        if word in EXTENSIONS:
            scan.fail(f"extension {token.text!r} can be loaded by ld, ldh and ldb only, not by {name}")
        raise scan.error(f"expected {_wants(name)} after {name!r}, found {token}")

    def _bracketed(self) -> int:
        self.scanner.expect("[")
        value = self._number("a number")
        self.scanner.expect("]")
        return value

    def _packet_load(self) -> tuple[str, int]:
        scan = self.scanner
        scan.expect("[")
        token = scan.peek()
        if scan.accept("%") or (token.kind == "word" and token.text.lower() == "x"):
            if self._register() != "x":
                scan.fail("an indirect load is relative to x", token.offset)
            if not (scan.accept("+") or scan.at("-")):
                scan.expected("'+' and an offset")
            shape, value = "[x + {k}]", self._number("an offset")
        elif token.kind == "word" and token.text.lower() in _LISTING_NAMES:
            scan.take()
            shape, value = "[{k}]", _LISTING_NAMES[token.text.lower()]
        else:
            shape, value = "[{k}]", self._number("an offset or x")
        scan.expect("]")
        return shape, value

    def _header_length(self) -> tuple[str, int]:
        """`4*([k]&0xf)`, the length of an IPv4 header."""
        scan = self.scanner
        start = scan.peek().offset
        factor = self._number("4")
        scan.expect("*")
        scan.expect("(")
        value = self._bracketed()
        scan.expect("&")
        mask = self._number("0xf")
        scan.expect(")")
        if (factor, mask) != (4, 15):
            scan.fail("the only such load there is has the form 4*([k]&0xf)", start)
        return "4*([{k}]&0xf)", value

    def _number(self, what: str) -> int:
        """A number with an optional sign, as u32."""
        scan = self.scanner
        start = scan.peek().offset
        negative = scan.accept("-")
        if not negative:
            scan.accept("+")
        token = scan.peek()
        if token.kind != "number":
            scan.expected(what)
        scan.take()
        if negative and token.value > 1 << 31:
            scan.fail(f"number -{token.text} does not fit into 32 bits", start)
        return -token.value & _MASK32 if negative else token.value

    def _raw(self, token: Token) -> _Pending:
        scan = self.scanner
        values: list[int] = []
        for name, limit in (("opcode", 0xFFFF), ("jt", 0xFF), ("jf", 0xFF), ("k", _MASK32)):
            if values:
                scan.expect(",")
            start = scan.peek().offset
            values.append(self._number(f"a number for {name}"))
            if values[-1] > limit:
                scan.fail(f"{name} {values[-1]} is more than {limit}", start)
        return _Pending(values[0], values[3], token.offset, values[1], values[2])

    def _word_is(self, word: str) -> bool:
        token = self.scanner.peek()
        return token.kind == "word" and token.text.lower() == word

    def _branch(self, pending: _Pending, inverted: bool, optional: bool = False) -> _Pending:
        """The targets of a conditional jump: `jt N jf N`, `, L1, L2` or `, L1`."""
        scan = self.scanner
        taken: _Target | int = 0
        other: _Target | int = 0
        comma = scan.accept(",")
        if self._word_is("jt"):
            scan.take()
            taken = self._target()
            scan.accept(",")
            if not self._word_is("jf"):
                scan.expected("jf and an instruction number")
            scan.take()
            other = self._target()
        elif comma:
            taken = self._label()
            if scan.accept(","):
                other = self._label()
        elif not optional:
            scan.expected("', label' or 'jt N jf N'")
        pending.jt, pending.jf = (other, taken) if inverted else (taken, other)
        return pending

    def _target(self) -> _Target:
        scan = self.scanner
        token = scan.peek()
        if token.kind == "word":
            return self._label()
        negative = scan.accept("-")
        number = scan.peek()
        if number.kind != "number":
            scan.expected("a label or an instruction number")
        scan.take()
        value = int(number.text) if number.text.isdecimal() else number.value
        return _Target(token, -value if negative else value)

    def _label(self) -> _Target:
        scan = self.scanner
        token = scan.peek()
        if token.kind == "number":
            scan.fail("a target given by its number is written 'jt N jf N', counting instructions from 0")
        if token.kind != "word":
            scan.expected("a label")
        if token.text.lower() in MNEMONICS:
            scan.fail(f"expected a label, found instruction {token}")
        return _Target(scan.take(), None)

    def resolve(self, target: _Target) -> int:
        if target.number is not None:
            return target.number
        number = self.labels.get(target.token.text)
        if number is None:
            self.scanner.fail(f"no such label {target.token.text!r}", target.token.offset)
        return number

    def distance(self, index: int, target: _Target | int) -> int:
        """jt or jf: how many instructions are skipped, 0..255."""
        if isinstance(target, int):
            return target
        number = self.resolve(target)
        if not 0 <= number - index - 1 <= 255:
            direction = "backward" if number <= index else "further than 255 instructions"
            self.scanner.fail(
                f"instruction {index} cannot jump to instruction {number}: conditional jumps do not go {direction}",
                target.token.offset,
            )
        return number - index - 1

    def finish(self, index: int, pending: _Pending) -> ClassicInsn:
        k = pending.k
        if pending.always is not None:
            k = (self.resolve(pending.always) - index - 1) & _MASK32
        return ClassicInsn(pending.code, self.distance(index, pending.jt), self.distance(index, pending.jf), k)


def _wants(name: str) -> str:
    """The operands that a mnemonic takes, for messages."""
    if name in ("ldi", "ldxi"):
        return "#number or a number"
    mnemonic = ALIASES.get(name, (name, False))[0]
    words = [shape.replace("{k}", "k") for (of, shape) in _SHAPES if of == mnemonic and shape]
    if name in ("ld", "ldh", "ldb"):
        words.append("an extension (proto, mark, ...)")
    if name == "ldx":
        words.append("4*([k]&0xf)")
    return " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _one_line_of_several(text: str) -> str | None:
    """A text of one line whose instructions stand between semicolons, one to a line; None if it is no such text."""
    if "\n" in text.strip() or ";" not in text:
        return None
    parts = text.strip().rstrip(";").split(";")
    if any(not part.split() for part in parts):
        return None
    return "".join(part + "\n" for part in parts)


def _assemble(text: str, source: str | None, origin: str) -> ClassicProgram:
    parser = _Parser(Scanner(text, source))
    parser.run()
    insns = tuple(parser.finish(index, pending) for index, pending in enumerate(parser.insns))
    names: dict[int, str] = {}
    for name, index in parser.labels.items():
        names.setdefault(index, name)
    lines = {index: parser.scanner.place(pending.offset)[0] for index, pending in enumerate(parser.insns)}
    return ClassicProgram(insns, origin=origin, labels=names, lines=lines)


def assemble(text: str, *, source: str | None = None, origin: str = "") -> ClassicProgram:
    """The program a text states. `source` names it in errors.

    A semicolon opens a comment, as in bpf_asm; only in a text of a single line that reads as instructions on both sides
    of every semicolon does it separate them. Raises FilterSyntaxError with line and column, both counted from 1.
    """
    if (several := _one_line_of_several(text)) is not None:
        try:
            return _assemble(several, source, origin)
        except FilterSyntaxError:
            pass  # not instructions: the rest of the line is a comment
    return _assemble(text, source, origin)
