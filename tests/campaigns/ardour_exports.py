"""Cold exports in Ardour: python tests/campaigns/ardour_exports.py [--exports 20] [--seconds 120]

A session has three tracks of noise, and the plugin on the first. Before each export the plugin's
server is killed, so the plugin starts it again; before every second one the session is also opened
and saved. Meanwhile --busy processes compute. The plugin's track must be the stem alone, aligned
with the other tracks to the sample. The model is a stub, a quarter of the mixture. Writes
results/ardour_exports.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bsmamba2.audio.array import Audio
from bsmamba2.errors import one_line
from bsmamba2_pedalboard.commands import install_bundle
from bsmamba2_pedalboard.offered_models import OfferedModels
from support import ardour, stub_server

RESULTS = Path(__file__).parent / "results"
TRACKS = 3
SECONDS_PER_CHUNK = 0.05
TIMEOUT_SECONDS = 900
"""On a busy machine an export gets a small part of a core."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exports", type=int, default=20, help="Default: 20.")
    parser.add_argument("--seconds", type=int, default=120, help="The session's. Default: 120.")
    parser.add_argument("--busy", type=int, default=4, help="Default: 4.")
    arguments = parser.parse_args()
    if reason := ardour.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, busy(arguments.busy):
        lines = list(campaign(Path(folder), arguments.exports, arguments.seconds))
    right = sum("right" in line for line in lines)
    page = (
        "# Cold exports in Ardour\n\n"
        f"{right} of {arguments.exports} exports of {arguments.seconds} s had the stem alone on "
        "the plugin's track, aligned with the other two to the sample.\n\n"
        f"{datetime.date.today()}; `python tests/campaigns/ardour_exports.py --exports "
        f"{arguments.exports} --seconds {arguments.seconds} --busy {arguments.busy}` on "
        f"{os.cpu_count()} cores\n\n" + "".join(f"- {line}\n" for line in lines)
    )
    print(page)
    (RESULTS / "ardour_exports.md").write_text(page)
    sys.exit(right < arguments.exports)


def campaign(folder: Path, exports: int, seconds: int) -> Iterator[str]:
    """Yields a line for each export."""
    server = folder / "s"
    server.mkdir(mode=0o700)
    os.environ["BSMAMBA2_SERVE_DIR"] = str(server)
    offers = OfferedModels(stub_server.separator(), headroom_ms=50).to_text()
    command = stub_server.command(2, SECONDS_PER_CHUNK)
    host = ardour.Ardour(folder / "home")
    host.scan(install_bundle(command, offers, folder / "home" / ".vst3"))
    random = np.random.default_rng(0)
    shape = 2, seconds * ardour.RATE
    songs = [random.uniform(-0.2, 0.2, shape).astype(np.float32) for _ in range(TRACKS)]
    session = host.create(folder / "song", songs)
    for number in range(exports):
        if reopened := number % 2 == 1:
            host.change(session, "")
        stub_server.stop(server)
        begin = time.monotonic()
        try:
            result = verdict(host.export(session, folder / "out.wav", TIMEOUT_SECONDS), songs)
        except AssertionError as error:
            result = f"wrong: {one_line(str(error))}"
        took = time.monotonic() - begin
        line = (
            f"{result}{' after save and reopen' if reopened else ''}, in "
            f"{took:.0f} s with a load average of {os.getloadavg()[0]:.0f}"
        )
        print(line, flush=True)
        yield line
    stub_server.stop(server)


def verdict(output: Audio, songs: list[Audio]) -> str:
    """Compares an export with what it should be."""
    if output.shape != songs[0].shape:
        return f"wrong: {output.shape[1]} instead of {songs[0].shape[1]} samples"
    errors = np.abs(output - stub_server.GAIN * songs[0] - sum(songs[1:])).max(axis=0)
    wrong = np.flatnonzero(errors > 1e-6)
    if len(wrong):
        found = "; ".join(found_in(output[0], song[0]) for song in songs)
        return f"wrong: {len(wrong)} samples, the first at {wrong[0]}; tracks: {found}"
    return f"right to {errors.max():.0e}"


def found_in(output: Audio, song: Audio) -> str:
    """Returns the gain and the delay at which an export contains the noise of a track."""
    size = 2 * len(song)
    spectrum = np.fft.rfft(output, size) * np.fft.rfft(song, size).conj()
    correlation = np.fft.irfft(spectrum, size) / np.square(song).sum(dtype=np.float64)
    delay = int(np.abs(correlation).argmax())
    return f"{correlation[delay]:.2f} at {delay if delay < len(song) else delay - size:+d} samples"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keeps the machine busy."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
