"""``bsmamba2 completion``: the scripts, and what they complete."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from support.commands import ENVIRONMENT, run_command

VARIABLE = "_BSMAMBA2_COMPLETE"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_runs_the_command_with_its_completion_variable(shell: str) -> None:
    result = run_command("completion", shell)
    assert result.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_script_for_bash_is_valid() -> None:
    script = run_command("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, env=ENVIRONMENT)


def test_another_shell_is_refused() -> None:
    result = run_command("completion", "csh")
    assert (result.exit_code, "bash" in result.stderr) == (2, True)
