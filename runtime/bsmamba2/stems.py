"""The result of a separation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.audio.array import Audio, Exact, Layout
from bsmamba2.errors import AudioError
from bsmamba2.files.encoding import Clip, choose, require_clip, require_support
from bsmamba2.files.song_file import BLOCK
from bsmamba2.files.stem_files import StemFiles
from bsmamba2.formats.stem_names import find_stem
from bsmamba2.pipeline.mix import Mix
from bsmamba2.pipeline.residual import compute_residual, on_grid
from bsmamba2.report.notebook import frame

if TYPE_CHECKING:
    import os


class Stems(Mapping[str, Audio]):
    """The stems of one song by name; their sum is the song.

    ``stems["vocals"]`` is float32 in the layout of the input. ``instrumental`` is also available as
    ``other``, ``accompaniment`` and ``no_vocals``. If a model separates several stems, it is the
    sum of all but the vocals, and not listed among them.

    Args:
        outputs: (outputs, channels, samples).
        names: names of the outputs; the residual, if there is one, is last.
        sample_rate: Hz.
        layout: layout of the returned arrays.
        residual: name of the output that is the mixture minus the others; None if there is none.
        song: name of the song, for files; None for an array.
    """

    def __init__(
        self,
        outputs: Audio,
        names: Sequence[str],
        sample_rate: float,
        *,
        layout: Layout = Layout.CHANNELS_FIRST,
        residual: str | None = None,
        song: str | None = None,
    ) -> None:
        self._outputs = outputs
        self._names = tuple(names)
        self._layout = layout
        self._residual = residual
        self._song = song
        self.sample_rate = sample_rate

    def __getitem__(self, name: str) -> Audio:
        found = find_stem(name, (*self._names, *self._derived))
        if found in self._names:
            return self._layout.restore(self._outputs[self._names.index(found)])
        others = [row for row, stem in enumerate(self._names) if stem != "vocals"]
        return self._layout.restore(self._outputs[others].sum(axis=0))

    @property
    def _derived(self) -> tuple[str, ...]:
        """``instrumental``, if everything that it consists of is here."""
        complete = self._residual is not None and "vocals" in self._names
        return ("instrumental",) if complete and "instrumental" not in self._names else ()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        _, channels, samples = self._outputs.shape
        seconds = samples / self.sample_rate
        return (
            f"Stems({', '.join(self._names)}: {seconds:.3f} s, {channels} channel"
            f"{'s' * (channels > 1)}, {self.sample_rate:g} Hz)"
        )

    def mix(self, gains_db: Mapping[str, float] | None = None, /, **more_db: float) -> Audio:
        """Returns one signal from the stems at gains, in the layout of the input.

        ``stems.mix(vocals=-14, instrumental=0)`` lowers the vocals by 14 dB.

        Args:
            gains_db: the gain of each stem in dB, by name or alias; −inf is silence, and so are
                stems that are not listed.
            **more_db: the same, for names that are identifiers.

        Returns:
            Float32; it may exceed ±1.

        Raises:
            ModelError: there is no such stem.
            AudioError: a stem has two gains, a gain is out of range, or all stems are silent.
        """
        both = set(gains_db or ()) & set(more_db)
        if both:
            raise AudioError(f"a mix must give each stem one gain; got {', '.join(both)} twice")
        mixed = Mix({**(gains_db or {}), **more_db}).resolve((*self._names, *self._derived))
        parts = (self[stem] * np.float32(10 ** (gain / 20)) for stem, gain in mixed.items())
        total: Audio = sum(parts, start=np.zeros((), np.float32))
        return total

    def _repr_html_(self) -> str:
        """Returns players and spectrograms for a notebook."""
        if self._outputs.shape[2] == 0:
            return f"<pre>{escape(repr(self))}</pre>"
        has_sum = self._residual is not None
        title = self._song or "Stems"
        return frame(self._outputs, self._names, self.sample_rate, title, has_sum)

    def save(
        self,
        directory: str | os.PathLike[str],
        name: str | None = None,
        format: str = "flac",
        subtype: str | None = None,
        *,
        clip: Clip = "float",
        bitrate: float | None = None,
        overwrite: bool = False,
    ) -> dict[str, Path]:
        """Writes ``directory/name_stem.format`` for each stem: all files or none.

        Args:
            directory: created if it does not exist.
            name: name of the song. Default: the name of its file; for an array the files have the
                names of the stems alone.
            format: a container of libsndfile, e.g. ``flac``, ``wav``.
            subtype: a sample format of it, e.g. ``PCM_16``, ``float``. Default: 24 bits.
            clip: what to do with a stem that exceeds ±1 in an integer format: ``float`` writes
                that file as 32-bit float, ``clip`` clips it, ``error`` raises.
            bitrate: kbit/s of MP3, Vorbis or Opus. Default: libsndfile's.
            overwrite: whether existing files may be replaced.

        Returns:
            The path of each stem.

        Raises:
            AudioError: the format is unknown, there are no samples, or a file exists or cannot be
                written.
        """
        require_clip(clip)
        encoding = choose(None, format, subtype, bitrate)
        prefix = self._song if name is None else name
        files = [f"{prefix}_{stem}" if prefix else stem for stem in self._names]
        _, channels, samples = self._outputs.shape
        if samples == 0:
            raise AudioError(
                "stems without samples cannot be saved: separate audio that is not empty"
            )
        require_support(encoding, round(self.sample_rate), channels)
        with StemFiles(
            Path(directory),
            files,
            encoding,
            round(self.sample_rate),
            channels,
            clip=clip,
            overwrite=overwrite,
        ) as writer:
            for start in range(0, samples, BLOCK):
                writer.write(self._quantise(start, start + BLOCK, encoding.step))
            writer.finish()
            return {self._names[row]: path for row, path in writer.publish().items()}

    def _quantise(self, start: int, stop: int, step: float) -> Exact:
        """Returns a block of the outputs, quantised to an integer format with the sum kept."""
        outputs = self._outputs[..., start:stop].astype(np.float64)
        if not step or self._residual is None:
            return on_grid(outputs, step)
        stems = on_grid(outputs[:-1], step)
        residual = compute_residual(outputs.sum(axis=0), stems, step)
        return np.concatenate([stems, residual[np.newaxis]])
