"""``bsmamba2 separate --report``: what the report costs, its size, and how fast it opens.

    python -m benchmarks.report          # 4 minutes of a song; writes benchmarks/results/report.md

Each separation is a separate process with the shipped model, on the CPU. Processor time is that of
all its threads, which other programs on the machine change little. The page is opened from its file
in Chromium, without a network. It needs the extra cpu, selenium, and Debian's chromium and
chromium-driver.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.arguments import argument_parser
from benchmarks.machine import Watch, background_load, conditions
from benchmarks.pages import RESULTS, ROOT
from benchmarks.song import real_song

sys.path.insert(0, str(ROOT / "tests"))
from support.browser import browsing

COMMAND = [sys.executable, "-c", "from bsmamba2.cli import main; main(prog_name='bsmamba2')"]
LOADS = 9


def main() -> None:
    parser = argument_parser("report", __doc__)
    parser.add_argument("--seconds", type=float, default=240.0, help="Of the song. Default: 240.")
    parser.add_argument("--runs", type=int, default=2, help="Of each separation. Default: 2.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        audio, rate = soundfile.read(real_song(folder), dtype="float32")
        song = folder / "song.wav"
        samples = int(arguments.seconds * rate)
        soundfile.write(song, np.resize(audio, (samples, audio.shape[1])), rate, "PCM_16")
        separate(song, "--duration", "1")  # checks the device, which happens once
        watch = Watch()
        plain = [separate(song) for _ in range(arguments.runs)]
        reported = [separate(song, "--report") for _ in range(arguments.runs)]
        load = background_load(watch.background_cores())
        report = song.with_name("song_report.html")
        size = report.stat().st_size
        loads_s, plays_s = open_in_browser(report)
    (plain_cpu, plain_wall), (report_cpu, report_wall) = min(plain), min(reported)
    part = (report_cpu - plain_cpu) / plain_cpu
    page = "\n".join(
        [
            "# The report of a song",
            "",
            "| | processor time | wall time |",
            "|---|---|---|",
            f"| `separate` | {plain_cpu:.1f} s | {plain_wall:.1f} s |",
            f"| `separate --report` | {report_cpu:.1f} s | {report_wall:.1f} s |",
            f"| the report | {report_cpu - plain_cpu:.1f} s, {part:.1%} of the separation's | |",
            "",
            f"The page has {size / 1e6:.1f} MB. In Chromium it loads in {loads_s:.2f} s, and plays "
            f"{plays_s:.2f} s after the first click, when the audio is decoded (medians of "
            f"{LOADS}, without a network). The browser logged no error.",
            "",
            f"{arguments.seconds:g} s of a stereo song at {rate} Hz, WAV to two WAVs, `small`, the "
            f"run with the least processor time of {arguments.runs}; "
            f"{conditions('the threads of this process', 'onnxruntime')}; {load}; "
            f"`python -m benchmarks.report --seconds {arguments.seconds:g} --runs "
            f"{arguments.runs}`.",
        ]
    )
    (RESULTS / "report.md").write_text(f"{page}\n")
    print(page)


def separate(song: Path, *options: str) -> tuple[float, float]:
    """Separates the song in another process; returns its processor and wall time in seconds."""
    start, before = time.perf_counter(), children_s()
    command = [*COMMAND, "separate", str(song), "--device", "cpu", "--overwrite", *options]
    subprocess.run(command, capture_output=True, check=True)
    return children_s() - before, time.perf_counter() - start


def children_s() -> float:
    """Returns the processor time of the processes that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def open_in_browser(report: Path) -> tuple[float, float]:
    """Returns the medians of the seconds until the page is loaded, and from a click to the sound.

    Raises:
        RuntimeError: the browser logged an error.
    """
    loads_ms, plays_s = [], []
    with browsing() as browser:
        for _ in range(LOADS):
            browser.open(report)
            loads_ms.append(
                browser.run("return performance.getEntriesByType('navigation')[0].loadEventEnd")
            )
            plays_s.append(browser.play())
        if errors := browser.errors():
            raise RuntimeError(f"the browser logged {errors}")
    return statistics.median(loads_ms) / 1000, statistics.median(plays_s)


if __name__ == "__main__":
    main()
