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
                          "run, and what they handed out."),
        click.option("--map", "contents", multiple=True, metavar="NAME=FILE.json",
                     help="First contents of a map, as JSON."),
    )):  # fmt: skip
        function = option(function)
    return function


class Chosen(NamedTuple):
    """A filter of a command line: what to run, and the name to show."""

    source: Any
    name: str


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
        chosen += [Chosen(program, f"{one}: {program.name}" if several else one) for program in found]
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


def load_maps(directory: str, chosen: Sequence[Chosen], cpus: int) -> dict[str, Map]:
    """The maps that a directory keeps and the programs name, by name; nothing where there is no directory yet.

    cpus: processors that per-CPU maps must have values for.
    """
    if Path(directory).exists() and not Path(directory).is_dir():
        raise UsageError(f"--maps {directory}: not a directory")
    from pktbpf.maps import store
    from pktbpf.program import Program
    from pktbpf.replayer.livemaps import HANDED_OUT, definitions, kept

    programs = [one.source for one in chosen if isinstance(one.source, Program)]
    wanted = {name: spec for program in programs for name, spec in definitions(program).items() if kept(spec)}
    kinds = {name: one for name, one in store.load(directory).items() if name in wanted}
    found = {name: one for name, one in kinds.items() if one.kind not in HANDED_OUT}
    for name, one in found.items():
        if one.percpu and one.possible_cpus < cpus:
            raise UsageError(f"--maps: {name} has values for {one.possible_cpus} processors, this run needs {cpus}")
        for kind in ("key_type", "value_type"):
            setattr(one, kind, getattr(wanted[name], kind, None))
    return found


def save_maps(directory: str, maps: Mapping[str, Map]) -> None:
    """Keep the maps of a run for the next one."""
    from pktbpf.maps import store
    from pktbpf.replayer.livemaps import kept

    store.save({name: one for name, one in maps.items() if kept(one.spec) and not one.frozen}, directory)


def first_contents(
    objects: Sequence[Object], maps: Mapping[str, Map], kept: Iterable[str], values: Mapping[str, str],
    files: Mapping[str, str],
) -> None:  # fmt: skip
    """What live maps hold before the first packet: `values` (--set) in those that were kept, then `files` (--map)."""
    apply_values(objects, {name: one for name, one in maps.items() if name in kept}, values)
    preset(maps, files)


def preset(maps: Mapping[str, Map], files: Mapping[str, str]) -> None:
    """Contents of maps from JSON files, by name. Raises UsageError for a map that no program names."""
    from pktbpf.maps.fill import fill_from

    for name, path in files.items():
        if name not in maps:
            have = ", ".join(sorted(maps)) or "none"
            raise UsageError(f"--map {name}: no program names such a map; there are {have}")
        fill_from(maps[name], path)


def apply_values(objects: Sequence[Object], maps: Mapping[str, Map], values: Mapping[str, str]) -> None:
    """Variables set in data maps that were kept from a run before: they begin with what --set says, too."""
    for found in objects:
        for name in values:
            named = [one for known, one in found.variables.items() if _names(name, known)]
            variable = max(named, key=lambda one: len(one.name), default=None)
            one = maps.get(variable.map) if variable is not None else None
            if one is None or variable is None or one.frozen:
                continue
            one.update(bytes(4), variable.replace(one.lookup(bytes(4)), name[len(variable.name) :], values[name]))
