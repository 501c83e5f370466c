"""The command line: a lazy group that finds one click command per module of this package, and the error contract.

A module `pktbpf/cli/NAME.py` has one object `command`; underscores of NAME become dashes, modules that begin with an
underscore are helpers. Everything heavy is imported inside the commands. Every error is one line, `pktbpf: ...`, on
standard error; a broken pipe is silent. Exit codes: 0 done, 1 runtime error, 2 usage, 3 a failed check, 130 interrupt.
"""

from __future__ import annotations

import _thread
import errno
import importlib
import io
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from pktbpf.errors import PktbpfError

INTERRUPTED = 130
USAGE = 2
CONTEXT = {"auto_envvar_prefix": "PKTBPF", "help_option_names": ["-h", "--help"], "max_content_width": 100}


def command_names() -> list[str]:
    """Names of all commands, sorted: the modules of this package that are no helpers."""
    modules = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, and reports errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in command_names():
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run and leave with the exit code of the table above; never returns, whatever `standalone_mode` says."""
        extra["standalone_mode"] = False
        sys.unraisablehook = _unraisable
        _open_closed_streams()
        try:
            code = super().main(args=args, prog_name=prog_name or "pktbpf", **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_standard_output()
            code = 1
        except (KeyboardInterrupt, click.Abort):
            code = INTERRUPTED
        except click.ClickException as error:
            code = _usage(error)
        except (PktbpfError, OSError) as error:
            code = fail(error)
            _forget_standard_output()
        raise SystemExit(code if isinstance(code, int) else 0)


def fail(error: BaseException, *, prefix: str = "") -> int:
    """Print an error as one line on standard error and return the exit code that it stands for."""
    if isinstance(error, PktbpfError):
        code, text = error.exit_code, str(error)
    elif isinstance(error, OSError) and error.strerror:
        code, text = 1, f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    else:
        code, text = 1, str(error)
    click.echo(f"pktbpf: {one_line(prefix + text)}", err=True)
    return code


def one_line(text: str) -> str:
    """`text` without line breaks and control characters, so that hostile file names and contents stay one line."""
    joined = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in joined)


def _usage(error: click.ClickException) -> int:
    """One line for a wrong command line, with where help is."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return USAGE
    help_at = f" (see {context.command_path} --help)" if isinstance(context, click.Context) else ""
    text = error.format_message().rstrip(".")
    click.echo(f"pktbpf: {one_line(text[:1].lower() + text[1:])}{help_at}", err=True)
    return error.exit_code


class _Closed(io.FileIO):
    """Holds the number of a stream that the caller closed; the first use is an error that says which one it is."""

    def __init__(self, label: str, mode: str):
        super().__init__(os.devnull, mode)
        self.name = f"<{label}>"
        self._label = label
        self._told = False

    def _refuse(self) -> None:
        if not self._told:
            self._told = True
            raise OSError(errno.EBADF, f"{self._label} is closed")

    def readinto(self, buffer: Any) -> int:
        self._refuse()
        return 0

    def readall(self) -> bytes:
        self._refuse()
        return b""

    def write(self, data: Any) -> int:
        self._refuse()
        return len(data)


def _open_closed_streams() -> None:
    """Where the caller closed a standard stream, open one that refuses: using it is an error of one line then, and no
    file that is opened later gets its number."""
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Closed("standard input", "r")))
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Closed("standard output", "w")))
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _forget_standard_output() -> None:
    """What cannot be written stays unwritten: keep the interpreter from trying once more when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _unraisable(unraisable: Any) -> None:
    """An interrupt that hits a callback of the compiler is printed and forgotten there: deliver it again, outside."""
    if unraisable.exc_type is KeyboardInterrupt:
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pktbpf.cli._version import version_text

        click.echo(version_text())
        ctx.exit()


@click.group("pktbpf", cls=LazyGroup, context_settings=CONTEXT, no_args_is_help=True)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
              help="Print the versions of pktbpf, Python, numba and libpcap.")  # fmt: skip
def cli() -> None:
    """The packet-filter laboratory: BPF socket filters over captures, with the kernel's verdicts.

    \b
    Example:
      pktbpf replay pcaps/web.pcap --filter 'tcp port 80'
    """


def main() -> NoReturn:
    """Entry point of the `pktbpf` script."""
    cli.main()
