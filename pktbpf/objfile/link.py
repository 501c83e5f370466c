"""Functions of an object -> programs: relocations applied, called functions appended, debug records moved along.

The order of appended functions, the meaning of every relocation and the fate of weak externs are libbpf's: a callee is
appended when its first call is met, depth first, and calls are rewritten to the place it got in this program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pktbpf.errors import ObjectError
from pktbpf.isa import fields
from pktbpf.isa.extended import Insn, decode_all
from pktbpf.objfile.btf import Btf
from pktbpf.objfile.btf_ext import BtfExt
from pktbpf.objfile.btf_info import FunctionInfo, function_info
from pktbpf.objfile.core_relocate import CoreRelocator
from pktbpf.objfile.elf import SHN_LORESERVE, SHN_UNDEF, STB_LOCAL, STT_FUNC, STT_SECTION, Elf, Reloc, Symbol, printable
from pktbpf.objfile.externs import Externs
from pktbpf.objfile.sections import BTF_MAPS, LEGACY_MAPS, SOCKET_FILTER, TEXT, is_data, kernel_bytes
from pktbpf.objfile.values import MapDefinition, ProgramBtf
from pktbpf.program import KernelVariable, Program

CALL = fields.JMP | fields.CALL
LD_IMM64 = 0x18
MAX_INSNS = 1 << 20  # the kernel's limit is a million


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the object: its section, first slot there, instructions, and whether other files could see it."""

    name: str
    section: int
    section_name: str
    start: int
    insns: tuple[Insn, ...] = field(repr=False, compare=False)
    local: bool

    @property
    def entry(self) -> bool:
        """Whether it is a program of its own: global and outside .text."""
        return self.section_name != TEXT and not self.local

    @property
    def socket_filter(self) -> bool:
        """Whether its section says socket filter."""
        return self.entry and SOCKET_FILTER.fullmatch(self.section_name) is not None


@dataclass(slots=True)
class Placed:
    """A program while its functions are put together."""

    insns: list[Insn]
    at: dict[Function, int]
    maps: dict[int, MapDefinition] = field(default_factory=dict)
    kfuncs: dict[int, str] = field(default_factory=dict)
    kvars: dict[int, KernelVariable] = field(default_factory=dict)


def functions(elf: Elf) -> list[Function]:
    """All functions in executable sections, in the order in which they lie in the file."""
    found = []
    for symbol in elf.symbols:
        section = elf.sections.get(symbol.section)
        if symbol.type != STT_FUNC or section is None or not section.executable:
            continue
        end = symbol.value + (symbol.size or len(section.data) - symbol.value)
        if symbol.value % 8 or end % 8 or end > len(section.data) or end <= symbol.value:
            raise ObjectError(
                f"function {symbol.name!r} does not lie inside its section", path=elf.path, section=section.name
            )
        insns = decode_all(section.data[symbol.value : end])
        found.append(
            Function(symbol.name, section.index, section.name, symbol.value // 8, insns, symbol.bind == STB_LOCAL)
        )
    return sorted(found, key=lambda function: (function.section, function.start))


class Linker:
    """Puts the programs of one object together."""

    def __init__(
        self,
        elf: Elf,
        maps: Mapping[str, MapDefinition],
        externs: Externs,
        core: CoreRelocator | None,
        btf: Btf | None,
        debug: BtfExt,
    ):
        self.elf = elf
        self.functions = functions(elf)
        self._maps = maps
        self._externs = externs
        self._core = core
        self._btf = btf
        self._debug = debug
        self._kernel_btf = kernel_bytes(btf) if btf is not None else b""
        self._by_place = {(f.section, f.start): f for f in self.functions}
        self._map_at = self._map_places()
        self._relocs = {
            section: {reloc.offset // 8: reloc for reloc in relocs if reloc.offset % 8 == 0}
            for section, relocs in elf.relocs.items()
        }
        self._refuse_odd_relocs()

    def _refuse_odd_relocs(self) -> None:
        for section, relocs in self.elf.relocs.items():
            home = self.elf.sections.get(section)
            for reloc in relocs:
                if home is not None and home.executable and (reloc.offset % 8 or reloc.offset >= len(home.data)):
                    raise ObjectError(
                        f"relocation at offset {reloc.offset} is at no instruction",
                        path=self.elf.path,
                        section=home.name,
                    )

    def _map_places(self) -> dict[tuple[int, int], MapDefinition]:
        places = {}
        for symbol in self.elf.symbols:
            section = self.elf.sections.get(symbol.section)
            if section and section.name in (BTF_MAPS, LEGACY_MAPS) and symbol.name in self._maps:
                places[section.index, symbol.value] = self._maps[symbol.name]
        return places

    def link(self, main: Function, license: str) -> Program:
        """The program that starts with `main`. Raises ObjectError."""
        placed = Placed([], {})
        self._append(placed, main)
        # Depth first with an explicit stack: a chain of calls may be longer than Python's.
        stack = [(main, iter(range(len(main.insns))))]
        while stack:
            function, slots = stack[-1]
            callee = next((c for slot in slots if (c := self._callee(function, slot)) is not None), None)
            if callee is None:
                stack.pop()
            elif callee not in placed.at:
                self._append(placed, callee)
                stack.append((callee, iter(range(len(callee.insns)))))
        self._connect(placed)
        return Program(
            tuple(placed.insns),
            name=main.name,
            license=license,
            maps=dict(sorted(placed.maps.items())),
            origin=self.elf.path,
            lines=self._source_lines(placed),
            btf=self._program_btf(placed),
            kfuncs=placed.kfuncs,
            kvars=placed.kvars,
        )

    def _append(self, placed: Placed, function: Function) -> None:
        base = len(placed.insns)
        if base + len(function.insns) > MAX_INSNS:
            raise self._wrong(function, f"program of more than {MAX_INSNS} instructions")
        placed.at[function] = base
        insns = list(function.insns)
        if self._core is not None:
            self._core.apply(function.section_name, function.start, insns)
        relocs = self._relocs.get(function.section, {})
        for slot in range(len(insns)):
            reloc = relocs.get(function.start + slot)
            if reloc is not None:
                self._relocate(placed, function, insns, slot, base, reloc)
        placed.insns.extend(insns)

    def _wrong(self, function: Function, reason: str, slot: int | None = None) -> ObjectError:
        where = f"{function.name}+{slot}" if slot is not None else function.name
        return ObjectError(f"{where}: {reason}", path=self.elf.path, section=function.section_name)

    def _relocate(
        self, placed: Placed, function: Function, insns: list[Insn], slot: int, base: int, reloc: Reloc
    ) -> None:
        """Everything but calls, which wait until all functions have their place."""
        insn, symbol = insns[slot], reloc.symbol
        name = symbol.name or "a section"
        if insn.code == CALL and symbol.section == SHN_UNDEF:
            insns[slot], kfunc = self._externs.call(symbol, insn)
            if kfunc is not None:
                placed.kfuncs[base + slot] = kfunc
        elif insn.code == CALL and insn.src == fields.PSEUDO_CALL:
            return
        elif insn.code != LD_IMM64 or slot + 1 >= len(insns):
            raise self._wrong(function, f"relocation against {name} at an instruction that takes none", slot)
        elif symbol.section == SHN_UNDEF:
            insns[slot : slot + 2], used = self._externs.load(symbol, insn)
            if isinstance(used, KernelVariable):
                placed.kvars[base + slot] = used
            elif used is not None:
                placed.maps[base + slot] = used
        elif not self._is_code(symbol):
            source, offset, used = self._data(function, slot, insn, symbol)
            insns[slot] = insn._replace(src=source, imm=0)
            insns[slot + 1] = insns[slot + 1]._replace(imm=_signed(offset))
            placed.maps[base + slot] = used

    def _is_code(self, symbol: Symbol) -> bool:
        section = self.elf.sections.get(symbol.section)
        return section is not None and section.executable

    def _data(self, function: Function, slot: int, insn: Insn, symbol: Symbol) -> tuple[int, int, MapDefinition]:
        section = self.elf.sections.get(symbol.section) if symbol.section < SHN_LORESERVE else None
        if section is None:
            hint = "a common symbol; give the variable a value or build with -fno-common"
            raise self._wrong(function, f"relocation against {symbol.name or 'an absolute value'}: {hint}", slot)
        if section.name in (BTF_MAPS, LEGACY_MAPS):
            place = symbol.value + (insn.imm if symbol.type == STT_SECTION else 0)
            found = self._map_at.get((section.index, place))
            if found is None:
                raise self._wrong(function, f"no map at offset {place} of {section.name}", slot)
            return fields.PSEUDO_MAP_FD, 0, found
        if not is_data(section):
            raise self._wrong(function, f"relocation against section {section.name or section.index}", slot)
        offset = symbol.value + insn.imm
        if not 0 <= offset <= len(section.data):
            raise self._wrong(function, f"offset {offset} is outside {section.name}", slot)
        return fields.PSEUDO_MAP_VALUE, offset, self._maps[section.name]

    def _callee(self, function: Function, slot: int) -> Function | None:
        """The function that the instruction at a slot calls or takes the address of, None for other instructions."""
        insn = function.insns[slot]
        call = insn.code == CALL and insn.src == fields.PSEUDO_CALL
        reloc = self._relocs.get(function.section, {}).get(function.start + slot)
        address = insn.code == LD_IMM64 and (
            self._is_code(reloc.symbol) if reloc is not None else insn.src == fields.PSEUDO_FUNC
        )
        if not call and not address:
            return None
        if reloc is None:
            if address:
                raise self._wrong(function, "address of a function without a relocation", slot)
            place = (function.section, function.start + slot + insn.imm + 1)
        else:
            if reloc.symbol.section == SHN_UNDEF:
                return None
            if reloc.symbol.value % 8 or (address and insn.imm % 8):
                raise self._wrong(function, "a call into the middle of an instruction", slot)
            offset = insn.imm + 1 if call else insn.imm // 8
            place = (reloc.symbol.section, reloc.symbol.value // 8 + offset)
        found = self._by_place.get(place)
        if found is None:
            section = self.elf.sections.get(place[0])
            raise self._wrong(
                function, f"calls slot {place[1]} of {section.name if section else '?'}, no function", slot
            )
        if found.entry and found.section_name != function.section_name:
            raise self._wrong(function, f"calls {found.name!r}, a program of its own", slot)
        return found

    def _connect(self, placed: Placed) -> None:
        """Write the distance of every call and function address."""
        for function, base in placed.at.items():
            for slot in range(len(function.insns)):
                callee = self._callee(function, slot)
                if callee is not None:
                    insn = placed.insns[base + slot]
                    source = fields.PSEUDO_FUNC if insn.code == LD_IMM64 else insn.src
                    distance = placed.at[callee] - (base + slot) - 1
                    placed.insns[base + slot] = insn._replace(src=source, imm=distance)

    def _program_btf(self, placed: Placed) -> ProgramBtf | None:
        """Debug records in slots of the program; no functions or lines unless every function has its record."""
        if self._btf is None:
            return None
        found: dict[int, FunctionInfo] = {}
        lines: list[tuple[int, int, int, int]] = []
        for function, base in placed.at.items():
            own = self._records(self._debug.functions, function, base)
            if not own:
                return ProgramBtf(self._kernel_btf)
            found[base] = function_info(self._btf, own[0][1])
            lines += [(r[0], r[1], r[2], r[3]) for r in self._records(self._debug.lines, function, base)]
        return ProgramBtf(self._kernel_btf, found, tuple(lines), self._btf)

    def _records(
        self, table: Mapping[str, tuple[tuple[int, ...], ...]], function: Function, base: int
    ) -> list[tuple[int, ...]]:
        start, end = function.start * 8, (function.start + len(function.insns)) * 8
        records = table.get(function.section_name, ())
        return [(base + r[0] // 8 - function.start, *r[1:]) for r in records if start <= r[0] < end]

    def _source_lines(self, placed: Placed) -> dict[int, str]:
        """Slot -> `file:line: text`, each line for all slots up to the next record."""
        out: dict[int, str] = {}
        if self._btf is None:
            return out
        for function, base in placed.at.items():
            # The compiler's own instructions have line 0: they belong to the line before them.
            records = [r for r in self._records(self._debug.lines, function, base) if r[3] >> 10]
            ends = [record[0] for record in records[1:]] + [base + len(function.insns)]
            for record, end in zip(records, ends, strict=False):
                text = printable(" ".join(self._btf.string(record[2]).split()))
                line = f"{self._btf.name(record[1])}:{record[3] >> 10}:{' ' + text if text else ''}"
                out.update(dict.fromkeys(range(record[0], end), line))
        return out


def _signed(value: int) -> int:
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value


def entries(found: Iterable[Function]) -> tuple[list[Function], dict[str, str]]:
    """(socket filters, name -> section of the entry functions that are none)."""
    ours, others = [], {}
    for function in found:
        if function.socket_filter:
            ours.append(function)
        elif not function.local:
            others[function.name] = function.section_name
    return ours, {name: section for name, section in others.items() if section != TEXT} or others
