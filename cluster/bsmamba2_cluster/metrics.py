"""What workers count, for Prometheus through Ray's own exporter on every machine."""

from __future__ import annotations

from ray.util.metrics import Counter, Histogram

BOUNDS_S = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]


class Meters:
    """The counters of one worker. Outside of Ray they count nothing."""

    def __init__(self, device: str) -> None:
        tags = ("status", "device")
        self._device = device
        self._songs = Counter("bsmamba2_songs", "Songs by status.", tags)
        self._audio = Counter("bsmamba2_audio_seconds", "Seconds of audio separated.", tags)
        self._time = Histogram("bsmamba2_song_seconds", "Time per song.", BOUNDS_S, tags)

    def count(self, status: str, audio_s: float, seconds: float) -> None:
        """Counts a song that a worker is finished with."""
        tags = {"status": status, "device": self._device}
        self._songs.inc(1, tags)
        self._time.observe(seconds, tags)
        if status == "done" and audio_s > 0:
            self._audio.inc(audio_s, tags)
