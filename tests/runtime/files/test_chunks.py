"""Chunks are found in every container, and a size that was never written is recognised."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.files.chunks import LAYOUTS, MAX_CHUNKS, ChunkFile


def written(format: str, samples: int = 100) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((samples, 2)), 8000, "PCM_16", format=format)
    return file.getvalue()


def chunks_of(content: bytes) -> ChunkFile:
    return ChunkFile(io.BytesIO(content), len(content))


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64", "AIFF", "W64", "CAF"])
def test_the_chunk_of_the_samples_ends_with_the_file(format: str) -> None:
    content = written(format)
    file = chunks_of(content)
    assert file.samples is not None
    before = {"AIFF": 8, "CAF": 4}.get(format, 0)  # these have a field before the samples
    assert file.samples.size - before == 400
    assert file.samples.start + file.samples.size == len(content)
    assert not file.states_no_size
    assert chunks_of(content[:-50]).samples == file.samples


@pytest.mark.parametrize("size", [0, 2**31, 2**31 - 1, 2**32 - 1, 0x7FFFF000, 0xFFFFFFFF - 36])
def test_a_size_that_was_never_written_is_recognised(size: int) -> None:
    content = bytearray(written("WAV"))
    content[40:44] = size.to_bytes(4, "little")
    assert chunks_of(bytes(content)).states_no_size


def test_an_empty_chunk_before_other_chunks_is_empty() -> None:
    content = written("WAV", samples=0) + b"LIST\x04\0\0\0INFO"
    assert not chunks_of(content).states_no_size


@given(st.sampled_from(sorted(LAYOUTS)), st.binary(max_size=200))
def test_any_bytes_are_walked_forward(kind: bytes, content: bytes) -> None:
    file = chunks_of(kind + content)
    starts = [chunk.start for chunk in file.chunks]
    assert starts == sorted(set(starts))
    assert len(starts) <= MAX_CHUNKS
    assert all(len(file.read(chunk, 9)) <= 9 for chunk in file.chunks)


def test_other_files_have_no_chunks() -> None:
    with pytest.raises(ValueError, match="not a file of chunks"):
        chunks_of(b"fLaC")
