"""The command ``bsmamba2``: its subcommands and its one-line errors."""

from __future__ import annotations

import logging
import re
from importlib import metadata
from types import SimpleNamespace

import click
import pytest

import bsmamba2
from bsmamba2 import ModelError, cli
from bsmamba2.engines.protocols import Engine
from bsmamba2.installation import install_command
from support.commands import StubCommand, run_command, run_python
from support.engines import Stubs
from support.fixtures import WriteSong


@pytest.fixture
def run(stub: Stubs, monkeypatch: pytest.MonkeyPatch) -> StubCommand:
    return StubCommand(monkeypatch, stub.half())


def fail_to_open(run: StubCommand, error: Exception) -> None:
    """Makes every model raise this error when it is opened."""

    def open_engine(model: str | None) -> Engine:
        raise error

    run.open_engine = open_engine


@pytest.mark.parametrize(
    "arguments",
    [["separate"], ["separate", "x", "--clip", "no"], ["separate", "--no"], ["sing"], []],
)
def test_wrong_usage_gives_status_2(arguments: list[str]) -> None:
    assert run_command(*arguments).exit_code == 2


def test_an_error_with_a_fix_is_printed_in_one_line_with_status_2(
    run: StubCommand, song: WriteSong
) -> None:
    fail_to_open(run, ModelError("there is no model: get one"))
    result = run("separate", song())
    assert (result.exit_code, result.stderr) == (2, "bsmamba2: there is no model: get one\n")


def test_a_bug_is_printed_in_one_line_with_status_1(run: StubCommand, song: WriteSong) -> None:
    fail_to_open(run, ZeroDivisionError("by zero"))
    result = run("separate", song())
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("bsmamba2: ZeroDivisionError: by zero: this is a bug")
    assert "set BSMAMBA2_DEBUG=1" in result.stderr


def test_a_bug_has_a_traceback_with_bsmamba2_debug(
    run: StubCommand, song: WriteSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSMAMBA2_DEBUG", "1")
    fail_to_open(run, ZeroDivisionError("by zero"))
    assert isinstance(run("separate", song()).exception, ZeroDivisionError)


def test_a_command_that_imports_its_extra_late_is_listed_as_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    command = install_command("ui")
    assert f"ui needs gradio, which is not installed: {command}" in run_command("ui").stderr
    listed = "".join(run_command("--help").stdout.split())
    assert "".join(f"Not installed: {command}".split()) in listed


@pytest.mark.parametrize("log", cli.LOGS)
def test_a_name_with_escape_codes_is_logged_without_them(
    caplog: pytest.LogCaptureFixture, log: str
) -> None:
    run_command("--version")
    logging.getLogger(log).warning("loading %s", "a\x1b[31m\nb")
    assert caplog.messages == ["loading a�[31m�b"]


def test_a_missing_extra_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point = metadata.EntryPoint("export", "bsmamba2_export.none.at.all:export", cli.GROUP)
    points = {cli.GROUP: [point]}  # torch, if it is imported, reads another group
    monkeypatch.setattr(metadata, "entry_points", lambda group: points.get(group, []))
    result = run_command("export", "model.ckpt", "--any", "thing")
    assert result.exit_code == 2
    command = install_command("export")
    message = rf"bsmamba2: export needs [\w.]+, which is not installed: {re.escape(command)}\n"
    assert re.fullmatch(message, result.stderr)
    listed = "".join(run_command("--help").stdout.split())  # lines break in long paths too
    assert "".join(f"Not installed: {command}".split()) in listed


@pytest.mark.parametrize(
    ("package", "absent", "status"),
    [("bsmamba2_training", "pyworld", 2), ("bsmamba2_training", "bsmamba2.none", 1)],
)
def test_what_a_command_imports_only_when_it_runs_is_reported_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, package: str, absent: str, status: int
) -> None:
    def run() -> None:
        raise ModuleNotFoundError(f"No module named {absent!r}", name=absent)

    command = click.Command("train", callback=run)
    point = SimpleNamespace(module=f"{package}.commands", load=lambda: command)
    monkeypatch.setattr(cli, "entry_points", lambda: {"train": point})
    result = run_command("train")
    assert result.exit_code == status
    if status == 2:
        message = f"train needs {absent}, which is not installed: {install_command('training')}"
        assert result.stderr == f"bsmamba2: {message}\n"


def test_a_checkout_that_is_not_installed_has_the_commands_of_the_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    assert tuple(sorted(cli.entry_points())) == cli.OWN
    assert run_command("separate", "--help").exit_code == 0


def test_the_version_is_that_of_the_package() -> None:
    first = run_command("--version").stdout.splitlines()[0]
    assert first == f"bsmamba2 {bsmamba2.__version__}"


def test_the_module_runs_the_command() -> None:
    result = run_python("-m", "bsmamba2", "--help")
    assert (result.returncode, "separate" in result.stdout) == (0, True)


def test_importing_bsmamba2_imports_no_large_package() -> None:
    large = "{'torch', 'onnx', 'onnxruntime', 'rich', 'click'}"
    code = f"import bsmamba2, sys; print({large} & set(sys.modules))"
    assert run_python("-c", code).stdout == "set()\n"
