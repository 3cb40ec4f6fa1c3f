"""Progress reports of a long call, and how the caller stops it."""

from __future__ import annotations

from threading import Event

import numpy as np
import pytest

from bsmamba2 import Cancelled
from bsmamba2.pipeline.progress import require_not_cancelled
from bsmamba2.pipeline.song_pipeline import SongPipeline
from support.engines import Stubs
from support.fixtures import Noise


def test_only_an_event_that_is_set_stops_the_work() -> None:
    cancel = Event()
    require_not_cancelled(None)
    require_not_cancelled(cancel)
    cancel.set()
    with pytest.raises(Cancelled, match="stopped by the caller"):
        require_not_cancelled(cancel)


@pytest.mark.parametrize("stated", [0, 3000, 9000])
def test_progress_never_decreases_and_ends_at_the_length_of_the_song(
    stub: Stubs, noise: Noise, stated: int
) -> None:
    """The header of a file may state another length than the file has."""
    reports: list[tuple[float, float]] = []
    pipeline = SongPipeline.by_chunks(stub.half(), 8000, 2, 0.25)
    blocks = np.split(noise(2, 3000), [1000, 2000], axis=1)
    list(pipeline.run(blocks, stated, lambda *report: reports.append(report)))
    done = [done for done, _ in reports]
    assert len(reports) == 4
    assert done == sorted(done)
    assert all(done <= total for done, total in reports)
    assert reports[-1] == (3000 / 8000, 3000 / 8000)
