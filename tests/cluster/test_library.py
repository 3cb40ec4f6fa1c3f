"""The command on a local Ray with workers that die: what its users see. One run of Ray for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bsmamba2 import Separator
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.commands import library
from bsmamba2_cluster.recipe import FOLDER
from support.commands import ENVIRONMENT
from support.s3_server import KEY, SECRET, S3Server

PROGRAM = """
import json, os, sys
from contextlib import redirect_stdout
from bsmamba2_cluster import SeparateSongs, separate_library
from bsmamba2_cluster import ray_run

class Deadly(SeparateSongs):
    def _separate_file(self, work, path, stems):
        if "deadly" in work.song.key:
            os.kill(os.getpid(), 9)
        return super()._separate_file(work, path, stems)

source, destination, model = sys.argv[1:]
ray_run.connect(None)
ray_run.SeparateSongs = Deadly
settings = {"cpus_per_worker": 1, "workers": 1, "device": "cpu", "claim_s": 2}
seen = []
with redirect_stdout(sys.stderr):  # Ray prints deaths, as the command knows
    summary = separate_library(
        source, destination, model, watch=lambda s: seen.append((s.done, s.failed)), **settings
    )
    ray_run.disconnect()
print(json.dumps(summary.to_json()))
print(json.dumps(seen))
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(library, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def ran(
    server: S3Server, model: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], list[object], Path, str]:
    """A finished run from a folder into a bucket: summary, progress, songs and destination."""
    import numpy as np
    import soundfile

    songs, noise = tmp_path_factory.mktemp("songs"), np.random.default_rng(0)
    for number, name in enumerate(("a.flac", "cd/b.wav", "deadly.flac")):
        (songs / name).parent.mkdir(exist_ok=True)
        audio = noise.uniform(-0.1, 0.1, (9000 * (number + 1), 2))
        soundfile.write(songs / name, audio, 44100, "PCM_16")
    (songs / "damaged.flac").write_bytes(b"no audio")
    destination = f"s3://music/library-{os.getpid()}"
    # A short name, because Ray's sockets are below it.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as logs:
        settings = {"RAY_TMPDIR": logs, "RAY_AUTH_MODE": "disabled"}
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(songs), destination, model],
            env=ENVIRONMENT | server.environment | settings,
            capture_output=True,
            text=True,
            timeout=600,
        )
        texts = {path: path.read_bytes() for path in Path(logs).rglob("*.*") if path.is_file()}
    assert result.returncode == 0, result.stderr[-3000:]
    assert any(b"a.flac: done [worker " in text for text in texts.values())
    texts[Path("output")] = (result.stdout + result.stderr).encode()
    assert [path for path, text in texts.items() if SECRET.encode() in text] == []
    *_, summary, seen = result.stdout.splitlines()
    return json.loads(summary), json.loads(seen), songs, destination


def test_songs_are_separated_as_by_separate_and_failures_and_deaths_counted(
    ran: tuple[dict[str, object], list[object], Path, str], model: str, tmp_path: Path
) -> None:
    summary, seen, songs, address = ran
    counts = {name: summary[name] for name in ("songs", "done", "failed", "set_aside")}
    assert counts == {"songs": 4, "done": 2, "failed": 1, "set_aside": 1}
    assert seen[-1] == [2, 1]
    destination, separator = open_storage(address), Separator(model, "cpu")
    for name in ("a.flac", "cd/b.wav"):
        for path in separator.separate_file(songs / name, tmp_path / Path(name).parent).values():
            key = path.relative_to(tmp_path).as_posix()
            assert destination.read(key, 1 << 30) == path.read_bytes()
    stems = [e.key for page in destination.pages() for e in page if FOLDER not in e.key]
    assert len(stems) == 4


def test_no_record_report_or_summary_holds_a_credential(
    ran: tuple[dict[str, object], list[object], Path, str],
) -> None:
    destination = open_storage(ran[3])
    keys = [entry.key for page in destination.pages(FOLDER) for entry in page]
    assert len(keys) >= 5
    for key in keys:
        text = destination.read(key) or b""
        assert SECRET.encode() not in text
        assert KEY.encode() not in text


def test_the_report_names_the_failed_song_and_the_one_that_killed_its_workers(
    ran: tuple[dict[str, object], list[object], Path, str],
) -> None:
    summary, _, songs, _ = ran
    text = open_storage(str(summary["failures"])).read("0001.jsonl")
    rows = {row["song"]: row for row in map(json.loads, (text or b"").splitlines())}
    assert rows[f"{songs}/damaged.flac"]["status"] == "failed"
    deadly = rows[f"{songs}/deadly.flac"]
    assert deadly["status"] == "set aside"
    assert "3 times" in deadly["error"]
    assert "/" in deadly["worker"]


def test_the_plan_of_the_next_run_knows_what_is_done_and_the_rate(
    ran: tuple[dict[str, object], list[object], Path, str], model: str, server: S3Server
) -> None:
    _, _, songs, destination = ran
    arguments = [songs, "-o", destination, "-m", model, "--plan", "--workers", 2, "--price", 1]
    result = run(*arguments, "--json")
    plan = json.loads(result.stdout)
    assert (plan["songs"], plan["already"], plan["measured_on"]) == (2, 2, 2)
    assert plan["times_real_time"] > 0
    assert plan["cost"] is not None
    assert "real time per worker, measured on 2 songs" in run(*arguments).output


def test_a_finished_library_needs_no_cluster(
    ran: tuple[dict[str, object], list[object], Path, str], model: str, server: S3Server
) -> None:
    _, _, songs, destination = ran
    for name in ("deadly.flac", "damaged.flac"):
        (songs / name).unlink()
    result = run(songs, "-o", destination, "-m", model, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["already"] == 2
