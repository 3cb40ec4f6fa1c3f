"""The command ``bsmamba2``: finds its subcommands, and reports each error in one line.

Subcommands are entry points of the group ``bsmamba2.commands``: other layers add theirs, and the
runtime never imports from those layers. A subcommand is imported when it is called. Exit status:
0 success, 1 a bug, 2 an error that the user can fix, 130 stopped.
"""

from __future__ import annotations

from bsmamba2 import interruption

interruption.during_imports()

# ruff: noqa: E402 - the imports below take long enough to be interrupted
# isort: split
import logging
import os
import sys
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from bsmamba2.commands.printing import lenient_streams, printing_failure
from bsmamba2.errors import Cancelled, Error, MissingExtra, for_command_line, one_line
from bsmamba2.installation import install_command, report

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "bsmamba2.commands"

LOGS = ("bsmamba2", "bsmamba2.cluster", "bsmamba2.serve")
"""The loggers of every layer: a filter sees only what its own logger records."""

OWN = ("bench", "completion", "doctor", "info", "man", "models", "report", "separate", "ui")
"""The runtime's own subcommands, which also work in a checkout that is not installed."""

EXTRAS = {
    "bsmamba2_export": "export",
    "bsmamba2_training": "training",
    "bsmamba2_pedalboard": "pedalboard",
    "bsmamba2.commands.ui": "ui",
    "bsmamba2_cluster": "cluster",
}
"""The extra that installs the dependencies of a package or of a module."""

LATE = {"bsmamba2.commands.ui": "gradio"}
"""What a module imports only when its command runs, because that takes seconds."""


def entry_points() -> dict[str, metadata.EntryPoint]:
    """Returns the subcommands by name: the runtime's own and those of the installed layers."""
    found = {name: metadata.EntryPoint(name, f"{GROUP}.{name}:{name}", GROUP) for name in OWN}
    return found | {point.name: point for point in metadata.entry_points(group=GROUP)}


def _extra(point: metadata.EntryPoint) -> str | None:
    """Returns the extra that a subcommand needs; None if it needs none."""
    return EXTRAS.get(point.module) or EXTRAS.get(point.module.partition(".")[0])


class Commands(click.Group):
    """A group whose subcommands are entry points and whose errors are printed in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        point = entry_points().get(cmd_name)
        if point is None:
            return None
        late = LATE.get(point.module)
        try:
            if late and find_spec(late) is None:
                raise ModuleNotFoundError(name=late)
            command: click.Command = point.load()
        except (ModuleNotFoundError, MissingExtra) as error:
            extra = _extra(point)
            if extra is None:
                raise
            return _unavailable(cmd_name, extra, error)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:  # a command may import what it needs when it runs
            name = ctx.invoked_subcommand or ""
            point = entry_points().get(name)
            extra = _extra(point) if point else None
            if extra is None or (error.name or "").startswith("bsmamba2"):
                raise
            raise _missing(name, extra, error) from None

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        interruption.during_work()
        for log in LOGS:
            logging.getLogger(log).addFilter(_make_printable)
        with lenient_streams():
            try:
                status = self._status(args, *more, **extra)
            finally:
                interruption.after_work()
            sys.stdout.flush()
            if failure := printing_failure():
                _print_error(
                    f"the results could not be printed ({failure}): everything else was done; "
                    "redirect the output to another file"
                )
                status = status or 2
        sys.exit(status)

    def _status(self, args: Sequence[str] | None, *more: Any, **extra: Any) -> int:
        """Runs the command and returns the exit status."""
        try:
            status = super().main(args, *more, **(extra | {"standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return 2
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "bsmamba2"
            message = " ".join(error.format_message().split())
            _print_error(f"{message} ({command} --help)")
            return 2
        except (click.Abort, KeyboardInterrupt, Cancelled):
            click.echo("stopped", err=True)
            return interruption.STATUS
        except Error as error:
            _print_error(for_command_line(str(error)))
            return 2
        except Exception as error:
            if os.environ.get("BSMAMBA2_DEBUG"):
                raise
            _print_error(
                f"{type(error).__name__}: {error}: this is a bug in bsmamba2, please report it "
                "with the output of bsmamba2 --version; set BSMAMBA2_DEBUG=1 for the traceback"
            )
            return 1
        return status if isinstance(status, int) else 0


def _print_error(message: str) -> None:
    click.echo(f"bsmamba2: {one_line(message)}", err=True)


def _make_printable(record: logging.LogRecord) -> bool:
    """Replaces what cannot be printed in a line of the log, such as the name of a song."""
    record.msg, record.args = one_line(record.getMessage()), ()
    return True


def _unavailable(name: str, extra: str, error: ImportError | MissingExtra) -> click.Command:
    """Returns a stand-in for a subcommand whose extra is missing; it prints the install command."""

    def refuse() -> None:
        raise _missing(name, extra, error)

    return click.Command(
        name,
        callback=refuse,
        short_help=f"Not installed: {install_command(extra)}",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


def _missing(name: str, extra: str, error: ImportError | MissingExtra) -> MissingExtra:
    missing = getattr(error, "name", None) or f"the extra [{extra}]"
    return MissingExtra(f"{name} needs {missing}, which is not installed: {install_command(extra)}")


def _print_report(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(report())
        context.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_report,
    help="Show the versions of everything that a bug report needs, and exit.",
)
def main() -> None:
    """Separate vocals from music with BSMamba2."""


interruption.after_imports()
