"""The network: its size, its shapes, and the symmetries of its parts."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from bsmamba2_network import BSMamba2, spectrum


def test_the_paper_has_48_098_188_parameters_in_675_tensors(paper: BSMamba2) -> None:
    tensors = paper.state_dict().values()
    assert (sum(value.numel() for value in tensors), len(tensors)) == (48_098_188, 675)


def test_the_same_seed_gives_the_same_weights_and_keeps_torchs_random_state() -> None:
    before = torch.get_rng_state()
    one, two = (BSMamba2.untrained("tiny", seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("samples", [0, 1, 16, 17, 400, 401])
@torch.inference_mode()
def test_stems_have_the_mixtures_length(micro: BSMamba2, samples: int) -> None:
    stems = micro(torch.randn(2, 2, samples))
    assert stems.shape == (2, 1, 2, samples)
    assert torch.isfinite(stems).all()


@torch.inference_mode()
def test_silence_stays_silence(micro: BSMamba2) -> None:
    assert not micro(torch.zeros(1, 2, 500)).any()


@torch.inference_mode()
def test_items_of_a_batch_do_not_affect_each_other(micro: BSMamba2) -> None:
    pair = torch.randn(2, 2, 300)
    alone = torch.cat([micro(item[None]) for item in pair])
    torch.testing.assert_close(micro(pair), alone)


@torch.inference_mode()
def test_scaling_the_mixture_scales_the_stems(micro: BSMamba2) -> None:
    """The band split's norm removes levels, so the masks do not depend on them."""
    mixture = torch.randn(1, 2, 400)
    torch.testing.assert_close(micro(0.01 * mixture), 0.01 * micro(mixture), rtol=1e-4, atol=1e-7)


@torch.inference_mode()
def test_a_block_with_equal_directions_commutes_with_time_reversal(micro: BSMamba2) -> None:
    block = cast("Any", micro.layers[0])[0]
    block.backward_blocks[0].mixer.load_state_dict(block.forward_blocks[0].mixer.state_dict())
    half = block.linear.weight[:16].clone()
    block.linear.weight[16:] = half
    start = (torch.zeros(1, 80, 3), torch.zeros(1, 8, 8, 8))
    x = torch.randn(2, 30, 16)
    torch.testing.assert_close(block(x.flip(1), start)[0].flip(1), block(x, start)[0])


@pytest.mark.parametrize("samples", [1, 1024, 1025, 1026, 5000])
def test_the_inverse_transform_restores_the_signal(samples: int) -> None:
    audio = torch.randn(2, samples, dtype=torch.float64)
    frames = spectrum.stft(audio, 2048, 441)
    torch.testing.assert_close(spectrum.istft(frames, 2048, 441, samples), audio)


def test_frames_start_at_0_and_end_at_the_last_multiple_of_hop() -> None:
    counts = [spectrum.stft(torch.zeros(1, n), 2048, 441).shape[1] for n in (1, 44100, 44101)]
    assert counts == [1025 // 441 + 1, 101, 101]


def test_a_gradient_passes_from_one_step_of_a_stream_to_the_previous(micro: BSMamba2) -> None:
    first = torch.randn(1, 2, 3, 17, 2, requires_grad=True)
    second, lookahead = torch.randn(1, 2, 3, 17, 2), torch.randn(1, 2, 2, 17, 2)
    *_, states = micro.step(first, second[:, :, :1], micro.start())
    stems, *_ = micro.step(second, lookahead, states)
    stems.square().sum().backward()
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
