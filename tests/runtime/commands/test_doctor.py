"""``bsmamba2 doctor``: prints the diagnosis, and exits with 2 if something is broken."""

from __future__ import annotations

import json

import pytest

from bsmamba2.commands import doctor
from bsmamba2.commands.diagnosis import ABSENT, BROKEN, WORKS, Finding
from support.commands import run_command

FINDINGS = (
    Finding("cpu", WORKS, "[red] processor"),
    Finding("av", ABSENT, "not installed", 'pip install ".[av]"'),
)


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """The findings that the command prints; a test may change them."""
    found = list(FINDINGS)
    monkeypatch.setattr(doctor, "examine", lambda: iter(found))
    return found


@pytest.mark.usefixtures("findings")
def test_the_table_shows_every_part_with_its_fix() -> None:
    result = run_command("doctor")
    words = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert words == 'cpu works [red] processor av absent not installed → pip install ".[av]"'


@pytest.mark.usefixtures("findings")
def test_json_is_one_object_with_every_part() -> None:
    report = json.loads(run_command("doctor", "--json").stdout)
    assert report["works"] is True
    assert report["parts"][1] == {
        "part": "av",
        "state": "absent",
        "found": "not installed",
        "fix": 'pip install ".[av]"',
    }


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_broken_part_gives_status_2(findings: list[Finding], options: tuple[str, ...]) -> None:
    findings.append(Finding("cache", BROKEN, "read-only", "set BSMAMBA2_CACHE"))
    result = run_command("doctor", *options)
    assert result.exit_code == 2
    assert not options or json.loads(result.stdout)["works"] is False


def test_this_machine_works() -> None:
    result = run_command("doctor", "--json")
    assert (result.exit_code, json.loads(result.stdout)["works"]) == (0, True)
