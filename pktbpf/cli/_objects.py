"""What commands that run object files share: which programs are meant, variables set, maps loaded, preset and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from pktbpf.errors import UsageError

if TYPE_CHECKING:
    from pktbpf.maps.face import Map
    from pktbpf.objfile import Object
    from pktbpf.program import MapSpec


F = TypeVar("F", bound=Callable[..., Any])


def object_options(function: F) -> F:
    """--set, --btf, --maps and --map, which every command that runs objects over a capture takes, as `values`, `btf`,
    `maps` and `contents`."""
    for option in reversed((
        click.option("--set", "values", multiple=True, metavar="NAME=VALUE",
                     help="Set a global variable of an object, or a part: cfg.limit=7; or one of the kernel, for all "
                          "processors or for one: runqueues[0].cpu=3."),
        click.option("--btf", metavar="FILE", help="The kernel's own types, raw BTF or ELF [the running kernel's]."),
        click.option("--maps", metavar="DIR",
                     help="Begin with the programs' maps of this directory; replay also keeps them there from run to "
                          "run, and what they handed out; variables of OBJECT.o as OBJECT.bss and OBJECT.data."),
        click.option("--map", "contents", multiple=True, metavar="NAME=FILE.json",
                     help="First contents of a map, as JSON."),
    )):  # fmt: skip
        function = option(function)
    return function


class Chosen(NamedTuple):
    """A filter of a command line: what to run, the name to show, and the file that it is from where it has maps."""

    source: Any
    name: str
    file: str = ""


class Kept(NamedTuple):
    """Maps of a run before: those that all programs share, by name, and data sections, which are one object's alone, by
    file and section and by id() of their definitions."""

    shared: dict[str, Map]
    sections: dict[tuple[str, str], Map]
    own: dict[int, Map]


class Choice(NamedTuple):
    """What a command line runs: filters in order, the objects among them, and values of the kernel's variables."""

    filters: list[Chosen]
    objects: list[Object]
    variables: dict[str, str]


def choose(
    filters: Sequence[str], programs: Sequence[str], values: Mapping[str, str], btf: str | None = None
) -> Choice:
    """The filters with objects opened.

    programs: names given with --program; each must be in one of the objects, and an object with several programs needs
    one. values: --set. btf: --btf. Raises UsageError, ObjectError with the list of what there is.
    """
    from pktbpf.objfile import Object
    from pktbpf.replayer.selection import blaming

    opened: dict[str, Any] = {}
    for one in dict.fromkeys(filters):
        with blaming(one, len(filters) > 1):
            opened[one] = _opened(one, btf)
    objects = {one: found for one, found in opened.items() if isinstance(found, Object)}
    variables = {path: value for path, value in values.items() if _of_kernel(opened.values(), path)}
    values = {path: value for path, value in values.items() if path not in variables}
    if programs and not objects:
        raise UsageError(f"--program {programs[0]}: none of the filters is an object")
    objects = _with_values(objects, values)
    for name in programs:
        if not any(name in found.programs for found in objects.values()):
            next(iter(objects.values())).program(name)  # raises with the names that there are
            raise UsageError(f"no program {name!r} in any of the objects")
    chosen: list[Chosen] = []
    for one in filters:
        if one not in objects:
            chosen.append(Chosen(one, one))
            continue
        wanted = [name for name in programs if name in objects[one].programs]
        several = len(wanted) > 1
        found = [objects[one].program(name) for name in wanted] or [objects[one].program()]
        chosen += [Chosen(program, f"{one}: {program.name}" if several else one, one) for program in found]
    return Choice(chosen, list(objects.values()), variables)


def _opened(argument: str, btf: str | None) -> Any:
    """The object or program that a filter argument is; None for an expression."""
    from pktbpf import loader

    return None if loader.is_expression(argument) else loader.load_argument(argument, btf=btf)


def _of_kernel(opened: Iterable[Any], path: str) -> bool:
    """Whether a name, or the part before a dot or bracket, is a variable of the kernel that some program uses."""
    programs = [one for found in opened for one in getattr(found, "programs", {"": found}).values()]
    used = {variable.name for program in programs for variable in getattr(program, "kvars", {}).values()}
    return any(_names(path, name) for name in used)


def _with_values(objects: Mapping[str, Object], values: Mapping[str, str]) -> dict[str, Object]:
    """The objects with those variables set that they have; a name that none of them has is an error."""
    for name, value in values.items():
        if not objects:
            raise UsageError(f"--set {name}: none of the filters is an object or names such a variable of the kernel")
        if not any(_has(found, name) for found in objects.values()):
            next(iter(objects.values())).with_values({name: value})  # raises with the names that there are
    return {
        one: found.with_values({name: value for name, value in values.items() if _has(found, name)})
        for one, found in objects.items()
    }


def _has(found: Object, name: str) -> bool:
    """Whether an object has the variable that `name`, or the part before a dot or bracket, names."""
    return any(_names(name, known) for known in found.variables)


def _names(path: str, variable: str) -> bool:
    return path == variable or path.startswith((f"{variable}.", f"{variable}["))


def assignments(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """NAME=VALUE words of a repeated option as a dict, in order. Raises click.UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"{option} {text!r} is not {form}")
        found[name.strip()] = value
    return found


def load_maps(directory: str | None, chosen: Sequence[Chosen], cpus: int) -> Kept:
    """The maps that a directory keeps and the programs name; nothing where there is no directory (yet).

    cpus: processors that per-CPU maps must have values for. Raises UsageError for a map that does not fit, or that two
    objects define differently.
    """
    found = Kept({}, {}, {})
    if directory is None:
        return found
    if Path(directory).exists() and not Path(directory).is_dir():
        raise UsageError(f"--maps {directory}: not a directory")
    from pktbpf.maps import store
    from pktbpf.objfile.btf import Btf
    from pktbpf.objfile.btf_data import DataType
    from pktbpf.replayer.livemaps import HANDED_OUT

    wanted = _wanted(chosen)
    there = store.load(directory, make_type=lambda raw, number: DataType.of(Btf.parse(raw), number))
    for one, name, spec in wanted:
        kept_as = _kept_name(one.file, name)
        have = there.get(kept_as)
        if have is None or have.kind in HANDED_OUT:
            continue
        difference = _difference(have, spec, section=kept_as != name)
        if difference:
            raise UsageError(
                f"--maps: {store.path_of(directory, kept_as)} has {difference[0]}, {one.file or one.name} wants"
                f" {difference[1]}; remove that file to begin anew, or give another directory"
            )
        if have.percpu and have.possible_cpus < cpus:
            raise UsageError(f"--maps: {name} has values for {have.possible_cpus} processors, this run needs {cpus}")
        have.key_type, have.value_type = getattr(spec, "key_type", None), getattr(spec, "value_type", None)
        if kept_as == name:
            found.shared[name] = have
        else:
            found.sections[one.file, name] = found.own[id(spec)] = have
    return found


def _wanted(chosen: Sequence[Chosen]) -> list[tuple[Chosen, str, MapSpec]]:
    """Definitions of maps to keep, each with its filter and name. Raises UsageError where two objects would keep
    different things under one name."""
    from pktbpf.program import Program
    from pktbpf.replayer.livemaps import definitions, kept

    wanted = [
        (one, name, spec)
        for one in chosen
        if isinstance(one.source, Program)
        for name, spec in definitions(one.source).items()
        if kept(spec)
    ]
    first: dict[str, tuple[Chosen, str, MapSpec]] = {}
    for one, name, spec in wanted:
        kept_as = _kept_name(one.file, name)
        other, _, before = first.setdefault(kept_as, (one, name, spec))
        if (other.file or other.name) == (one.file or one.name):
            continue
        both = f"{other.file or other.name} and {one.file or one.name}"
        if kept_as != name:
            raise UsageError(f"--maps: {both} would both keep their variables as {kept_as}; rename one of the files")
        for what in SHAPE:
            if getattr(before, what) != getattr(spec, what):
                raise UsageError(
                    f"--maps: {both} both have a map {name!r}, with {what} {getattr(before, what)} and"
                    f" {getattr(spec, what)}; run them apart, each with a directory of its own"
                )
    return wanted


SHAPE = ("kind", "key_size", "value_size", "max_entries")


def _kept_name(file: str, name: str) -> str:
    """What a directory calls a map: its name, of a data section OBJECT.bss as libbpf does (which cuts OBJECT short)."""
    from pktbpf.replayer.livemaps import is_section

    return f"{Path(file).name.partition('.')[0]}{name}" if is_section(name) else name


def _difference(have: Map, want: MapSpec, *, section: bool) -> tuple[str, str] | None:
    """How a kept map is not what a program wants: what it has and what is wanted; of variables also their names."""
    for what in SHAPE:
        pair = (getattr(have.spec, what), getattr(want, what))
        if pair[0] != pair[1]:
            return f"{what} {pair[0]}", str(pair[1])
    kinds = (have.value_type, getattr(want, "value_type", None))
    if not section or None in kinds:
        return None
    # Zeros decoded show names and nesting of all variables: what two layouts of one size differ in.
    layouts = [kind.decode(bytes(want.value_size)) for kind in kinds if kind is not None]
    if layouts[0] != layouts[1]:
        names = [", ".join(layout) for layout in layouts]
        return f"variables {names[0]}", names[1] if names[0] != names[1] else "other types of them"
    return None


def save_maps(directory: str, chosen: Sequence[Chosen], maps: Sequence[Mapping[str, Map]]) -> None:
    """Keep the maps of a run for the next one. maps: of each filter in order, by name."""
    from pktbpf.maps import store
    from pktbpf.replayer.livemaps import kept

    found: dict[str, Map] = {}
    for one, named in zip(chosen, maps, strict=True):
        for name, each in named.items():
            if kept(each.spec) and not each.frozen:
                found.setdefault(_kept_name(one.file, name), each)
    store.save(found, directory)


def first_contents(
    objects: Sequence[Object], maps: Mapping[str, Map], sections: Mapping[tuple[str, str], Map],
    values: Mapping[str, str], files: Mapping[str, str],
) -> None:  # fmt: skip
    """What live maps hold before the first packet: `values` (--set) in data sections that were kept, which `sections`
    has as Kept does, then `files` (--map)."""
    apply_values(objects, sections, values)
    preset(maps, files)


def preset(maps: Mapping[str, Map], files: Mapping[str, str]) -> None:
    """Contents of maps from JSON files, by name. Raises UsageError for a map that no program names."""
    from pktbpf.maps.fill import fill_from

    for name, path in files.items():
        if name not in maps:
            have = ", ".join(sorted(maps)) or "none"
            raise UsageError(f"--map {name}: no program names such a map; there are {have}")
        fill_from(maps[name], path)


def apply_values(
    objects: Sequence[Object], sections: Mapping[tuple[str, str], Map], values: Mapping[str, str]
) -> None:
    """Variables set in data maps that were kept from a run before: they begin with what --set says, too.

    sections: those maps, by file of the object and name of the section.
    """
    for found in objects:
        for name in values:
            named = [one for known, one in found.variables.items() if _names(name, known)]
            variable = max(named, key=lambda one: len(one.name), default=None)
            one = sections.get((found.path, variable.map)) if variable is not None else None
            if one is None or variable is None or one.frozen:
                continue
            one.update(bytes(4), variable.replace(one.lookup(bytes(4)), name[len(variable.name) :], values[name]))
