"""The HTML of a job: the right words, and no name becomes a tag."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bsmamba2.ui import markup
from bsmamba2.ui.job import Phase, Result, Status

HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>.wav",
    "<iframe srcdoc='<p>'>",
    "a&lt;b&gt;\x00\x1b[31m\u202e",
    "caf\udce9.wav",
]
FAILED = (Result("a"), Result("b", error="x"))


class Reader(HTMLParser):
    """Collects the tags, attributes and text of a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def separating(**changes: Any) -> Status:
    return Status(Phase.SEPARATING, "a.wav", 1, 0.25, 61.0, **changes)


def test_progress_states_the_song_the_fraction_and_the_time_left() -> None:
    text = Reader(markup.progress(separating(), 1)).text
    assert text == "Separating: a.wav25%, about 1:01 left"
    assert "song 1 of 3: a.wav" in markup.progress(separating(), 3)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status(), "Waiting for another separation to finish …"),
        (Status(Phase.LOADING), "Loading the model …"),
        (Status(Phase.CANCELLED), "Cancelled."),
        (Status(Phase.FAILED, error="no such model"), "no such model"),
        (Status(Phase.DONE, results=(Result("a"),)), "Done: 1 song."),
        (Status(Phase.DONE, results=FAILED), "Done: 1 song, 1 failed."),
    ],
)
def test_every_phase_has_its_words(status: Status, expected: str) -> None:
    assert Reader(markup.progress(status, 2)).text == expected


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_a_tag_or_an_attribute(name: str, tmp_path: Path) -> None:
    file = tmp_path / "stem.wav"
    file.write_bytes(b"")
    result = Result(name, (file,), Path("report.html"), 3)
    failed = Status(Phase.FAILED, error=name, results=(result, Result(name, error=name)))
    fragments = {
        markup.message(name): {"div", "p"},
        markup.progress(failed, 1): {"div", "p"},
        markup.progress(Status(Phase.SEPARATING, name), 1): {"div", "p", "progress"},
        markup.files("token", failed): {"div", "h3", "p", "ul", "li", "a"},
        markup.report("token", 0, result): {"iframe"},
    }
    for fragment, tags in fragments.items():
        found = Reader(fragment)
        assert set(found.tags) == tags
        assert not found.attributes & {"onerror", "srcdoc"}
        fragment.encode()


def test_paths_of_files_are_numbers_not_names(tmp_path: Path) -> None:
    file = tmp_path / "a_vocals.wav"
    file.write_bytes(bytes(2_500_000))
    html = markup.files("token", Status(results=(Result("../a", (file,), Path("r.html")),)))
    assert 'href="/results/token/0/0"' in html
    assert 'href="/results/token/0/report?download=1"' in html
    assert "(2.5 MB)" in html


def test_a_song_that_failed_has_no_report() -> None:
    assert markup.report("token", 0, Result("a", error="broken")) == ""
    assert markup.files("token", Status()) == ""


@pytest.mark.parametrize(("row", "file"), [(0, 1), (0, -1), (1, 0), (-1, 0), (10**9, 0)])
def test_only_files_of_the_job_are_found(row: int, file: int) -> None:
    job: Any = SimpleNamespace(status=Status(results=(Result("a", (Path("a.wav"),)),)))
    assert markup.found(job, 0, 0) == Path("a.wav")
    assert markup.found(job, row, file) is None
    assert markup.found(None, 0, 0) is None
