"""Pages of Ogg are found and checked, and stems of equal content are equal files."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import Separator
from bsmamba2.files.ogg_pages import find_pages, page_checksum
from support.engines import Stubs
from support.fixtures import WriteSong


def content_of(subtype: str = "VORBIS") -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 30_000)
    soundfile.write(file, noise, 48000, subtype, format="OGG")
    return file.getvalue()


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_page_has_the_checksum_that_libogg_wrote(subtype: str) -> None:
    content = content_of(subtype)
    starts = [at for at, _ in find_pages(io.BytesIO(content))]
    assert starts[0] == 0
    assert len(starts) > 2
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        page = content[start:end]
        assert page_checksum(page) == page[22:26]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_page_are_passed_over(junk: bytes) -> None:
    content = content_of()
    whole = list(find_pages(io.BytesIO(content)))
    found = list(find_pages(io.BytesIO(junk.replace(b"O", b"o") + content)))
    assert [head for _, head in found] == [head for _, head in whole]


@pytest.mark.parametrize("subtype", ["vorbis", "opus"])
def test_equal_ogg_stems_are_equal_files(
    stub: Stubs, song: WriteSong, tmp_path: Path, subtype: str
) -> None:
    path, outputs = song(rate=48000), []
    for folder in ("1", "2"):
        time.sleep(1.1)  # libsndfile draws the serial number from the time
        stems = Separator(stub.half()).separate_file(
            path, tmp_path / folder, format="ogg", subtype=subtype
        )
        outputs.append({stem: out.read_bytes() for stem, out in stems.items()})
    assert outputs[0] == outputs[1]
    assert soundfile.info(io.BytesIO(outputs[0]["vocals"])).frames == 48000
