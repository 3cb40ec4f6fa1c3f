"""Any number of channels runs through mono and stereo engines."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2 import AudioError
from bsmamba2.audio.channels import ChannelGroups, OneSided
from bsmamba2.pipeline.song_pipeline import SongPipeline
from support.engines import Stubs
from support.fixtures import Noise

PAIRS = {
    1: [[0, 0]],
    2: [[0, 1]],
    3: [[0, 1], [2, 2]],
    4: [[0, 1], [2, 3]],
    5: [[0, 1], [2, 2], [3, 4]],
    6: [[0, 1], [2, 2], [3, 3], [4, 5]],
    7: [[0, 1], [2, 3], [4, 5], [6, 6]],
    8: [[0, 1], [2, 2], [3, 3], [4, 5], [6, 7]],
}


@pytest.mark.parametrize(("channels", "pairs"), PAIRS.items())
def test_a_stereo_engine_takes_the_documented_pairs(channels: int, pairs: list[list[int]]) -> None:
    names = np.arange(channels, dtype=np.float32)[:, np.newaxis]
    assert ChannelGroups(channels, 2).split(names)[..., 0].tolist() == pairs


@pytest.mark.parametrize("channels", range(1, 65))
@pytest.mark.parametrize("engine_channels", [1, 2])
def test_joining_undoes_splitting(noise: Noise, channels: int, engine_channels: int) -> None:
    groups, audio = ChannelGroups(channels, engine_channels), noise(channels, 9)
    joined = groups.join(groups.split(audio)[:, np.newaxis])
    np.testing.assert_array_equal(joined[0], audio)


@pytest.mark.parametrize("channels", [0, 65])
def test_an_unsupported_number_of_channels_is_refused(channels: int) -> None:
    with pytest.raises(AudioError, match=f"audio must have 1 to 64 channels; got {channels}: "):
        ChannelGroups(channels, 2)


def test_the_front_pair_of_a_surround_song_is_separated_like_a_stereo_song(
    stub: Stubs, noise: Noise
) -> None:
    engine, audio = stub.restless(), noise(6, 500)
    surround, stereo = (SongPipeline.by_chunks(engine, 48000, n, 0.25) for n in (6, 2))
    all_six = np.concatenate([surround.push(audio), surround.flush()], axis=-1)
    front = np.concatenate([stereo.push(audio[:2]), stereo.flush()], axis=-1)
    np.testing.assert_array_equal(all_six[:, :2], front)
    np.testing.assert_allclose(all_six.sum(axis=0), audio, rtol=0, atol=1e-6)


def test_the_engine_does_not_run_on_silent_pairs(stub: Stubs, noise: Noise) -> None:
    engine, audio = stub.identity(), noise(6, 60)
    audio[2:] = 0
    separation = SongPipeline.by_chunks(engine, 44100, 6, 0.25)
    separation.push(audio)
    separation.flush()
    assert len(engine.lengths) == 1


def test_a_pair_with_one_silent_channel_is_known_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pairs, sides = OneSided(10), np.eye(2, dtype=np.float32)[:, :, np.newaxis]
    assert [pairs.silent_channel(pair, 25) for pair in sides] == [1, 0]
    assert pairs.silent_channel(np.ones((2, 1)), 0) is None
    assert pairs.silent_channel(np.zeros((2, 1)), 0) is None
    assert pairs.silent_channel(np.ones((1, 1)), 0) is None
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "one channel is silent from 2.5 s on"
    ]


@pytest.mark.parametrize("silent", [0, 1])
def test_a_doubled_pair_comes_back_on_one_side(silent: int) -> None:
    pair = np.zeros((2, 5), np.float32)
    pair[1 - silent] = np.arange(5)
    doubled = OneSided.doubled(pair, silent)
    np.testing.assert_array_equal(doubled, np.stack([np.arange(5)] * 2))
    np.testing.assert_array_equal(OneSided.undoubled(doubled[np.newaxis], silent)[0], pair)
