"""BSMamba2 in few operations: the form of graphs for GPUs in fp16 and bf16.

There a small operation takes as long as its launch, and a large elementwise one as long as memory
takes to read and write its operands. :func:`separate_spectrum` computes what the network does, up
to rounding, with these changes:

- All bands run as one or two products over bands of equal width. Narrower bands are padded.
- Matrices that follow each other are multiplied when the model is loaded. A norm's weight is a
  factor of in_proj. With the join W = [V ; U], f = x + p·O and g = x + q·R, a block is
  x + [f ; g]·W + b = x + p·(O·V) + q·(R·U) + x·(V + U) + b.
- The norm's output serves the last product too, because x = r(x) · norm(x).
- One operator adds these products to x, exchanges the axes and applies the next norm:
  :mod:`bsmamba2_network.residual_norm`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, pad

from bsmamba2_network.bands import (
    BandSplit,
    MaskEstimator,
    apply_masks,
    groups,
    root_mean_square_norm,
)
from bsmamba2_network.residual_norm import residual_norm

if TYPE_CHECKING:
    from bsmamba2_network.model import Block, BSMamba2, Direction, State

NORM_EPSILON = 1e-5
BAND_EPSILON = 1e-24
"""Of the sum of squares; see :func:`bsmamba2_network.bands.normalised`."""


def separate_spectrum(net: BSMamba2, mixture: Tensor) -> Tensor:
    """Separates a spectrum; arguments and result as
    :meth:`bsmamba2_network.BSMamba2.separate_spectrum`."""
    config = net.config
    channels, bins = mixture.shape[1], mixture.shape[3]
    spectrum = mixture.transpose(1, 2)  # (b, t, c, F, 2)
    x = _split_bands(net.band_split, spectrum.flatten(2), channels)
    unit = _unit(x, NORM_EPSILON)
    zero = net.start()[0]
    blocks = [
        cast("Block", block) for layer in net.layers for block in cast("nn.ModuleList", layer)
    ]
    for block in blocks:
        last = block is blocks[-1]
        epsilon = BAND_EPSILON / config.dim if last else NORM_EPSILON
        x, unit = _run_block(block, x, unit, zero, epsilon)
    # Every layer exchanges the axes twice, so `unit` is (b, K, t, D) again.
    gamma = net.final_norm.gamma
    masks = [
        _estimate_masks(cast("MaskEstimator", estimator), unit, gamma, channels)
        for estimator in net.mask_estimators
    ]
    stems = apply_masks(torch.stack(masks, 1).unflatten(-1, (channels, bins, 2)), spectrum)
    return stems.transpose(2, 3)


def _run_block(
    block: Block, x: Tensor, unit: Tensor, zero: State, next_epsilon: float
) -> tuple[Tensor, Tensor]:
    """Runs a block along the third axis of (b, m, n, D); see :func:`residual_norm`."""
    bias, joins = block.linear.bias, block.linear.weight[:, :, 0].chunk(2)
    assert bias is not None
    added = []
    for blocks, join in zip((block.forward_blocks, block.backward_blocks), joins, strict=True):
        direction = cast("Direction", blocks[0])
        mixer = direction.mixer
        weight = mixer.in_proj.weight * direction.norm.weight
        if weight.shape[0] % 8:  # rows of whole 16 bytes, which the scan reads at once
            weight = pad(weight, (0, 0, 0, -weight.shape[0] % 8))
        projected = unit @ weight.T
        y, _ = mixer.scan(projected.flatten(0, 1), zero, direction.reverse)
        added.append((y @ (mixer.out_proj.weight.T @ join)).unflatten(0, x.shape[:2]))
    scaled = unit @ (joins[0] + joins[1])
    forwards, backwards = added
    result: tuple[Tensor, Tensor] = residual_norm(
        x, forwards, backwards, scaled, bias, NORM_EPSILON, next_epsilon
    )
    return result


@dataclass(frozen=True)
class _Run:
    """Neighbouring bands that run as one product, each padded to the widest of them."""

    bands: slice
    widths: list[int]
    widest: int
    numbers: list[int]
    """For each number of the padded bands, its index in (c, F, 2); c·F·2 for padding."""


def _runs(widths: Sequence[int], channels: int) -> list[_Run]:
    """Returns one or two runs of bands, cut where padding adds least."""
    count, total = len(widths), sum(widths)
    of_bins = [  # in the layout of checkpoints, (F, c, 2), band after band
        (channel * (total // channels)) + 2 * k + part
        for k in range(total // channels // 2)
        for channel in range(channels)
        for part in range(2)
    ]
    starts = list(itertools.accumulate(widths, initial=0))

    def padded(cut: int) -> int:
        return sum(len(run) * max(run, default=0) for run in (widths[:cut], widths[cut:]))

    cut = min(range(count), key=padded)
    runs = []
    for bands in [slice(0, cut), slice(cut, count)] if cut else [slice(0, count)]:
        widest = max(widths[bands])
        numbers = [
            number
            for start, width in zip(starts[bands], widths[bands], strict=False)
            for number in of_bins[start : start + width] + [total] * (widest - width)
        ]
        runs.append(_Run(bands, list(widths[bands]), widest, numbers))
    return runs


def _split_bands(split: BandSplit, x: Tensor, channels: int) -> Tensor:
    """Maps (b, t, c·F·2) to the features of each band, (b, K, t, D)."""
    zeros = pad(x, (0, 1))  # the last number fills up narrow bands
    features = []
    for run in _runs(split.widths, channels):
        nets = list(split.to_features)[run.bands]
        rows = zeros.index_select(-1, torch.tensor(run.numbers))
        rows = rows.unflatten(-1, (len(nets), run.widest))
        # The mean square of a padded row is w / widest times that of the band's w numbers.
        unit = _unit(rows, BAND_EPSILON / run.widest).flatten(0, 1)
        weight = _stack(
            nets,
            run,
            lambda net: net[1].weight * net[0].gamma,
            lambda part, more: pad(
                part * math.sqrt(part.shape[-1] / (part.shape[-1] + more)), (0, more)
            ),
        )
        bias = torch.stack([cast("Any", net)[1].bias for net in nets])
        features.append(unit.transpose(0, 1) @ weight.mT + bias[:, None])
    joined = torch.cat(features) if len(features) > 1 else features[0]
    result: Tensor = joined.unflatten(1, x.shape[:2]).transpose(0, 1)
    return result


def _estimate_masks(estimator: MaskEstimator, unit: Tensor, gamma: Tensor, channels: int) -> Tensor:
    """Maps (b, K, t, D) to one stem's mask, (b, t, c·F·2)."""
    rows, numbers = [], []
    for run in _runs(estimator.widths, channels):
        nets = [cast("Any", net)[0] for net in list(estimator.to_freqs)[run.bands]]
        hidden = unit[:, run.bands].transpose(0, 1).flatten(1, 2)  # (n, b·t, D)
        # Every second part of a perceptron is a linear map, and tanh follows all but the last.
        for layer in range(0, len(nets[0]) - 1, 2):
            weight = torch.stack([net[layer].weight for net in nets])
            weight = weight if layer else weight * gamma
            bias = torch.stack([net[layer].bias for net in nets])
            hidden = torch.tanh(hidden @ weight.mT + bias[:, None])
        weight = _stack(nets, run, lambda net: net[-1].weight, _pad_halves)
        bias = _stack(nets, run, lambda net: net[-1].bias[:, None], _pad_halves)
        gated = glu(hidden @ weight.mT + bias.mT)  # (n, b·t, widest)
        rows.append(gated.transpose(0, 1).flatten(1))
        numbers += run.numbers
    joined = torch.cat(rows, -1) if len(rows) > 1 else rows[0]
    places = dict(zip(numbers, range(len(numbers)), strict=True))
    order = torch.tensor([places[number] for number in range(sum(estimator.widths))])
    masks: Tensor = joined.index_select(-1, order).unflatten(0, (unit.shape[0], unit.shape[2]))
    return masks


def _pad_halves(part: Tensor, more: int) -> Tensor:
    """Pads the values and the gates of a band on their own: (n, 2·w, …) to (n, 2·(w + more), …)."""
    halves = part.unflatten(1, (2, part.shape[1] // 2))
    return pad(halves, (0, 0, 0, more)).flatten(1, 2)


def _unit(x: Tensor, epsilon: float) -> Tensor:
    """Returns x / √(mean(x²) + ε). ONNX Runtime's fused norm needs a weight, here 1."""
    return root_mean_square_norm(x, epsilon) * x.new_ones(x.shape[-1])


def _stack(
    nets: Sequence[Any],
    run: _Run,
    value: Callable[[Any], Tensor],
    padded: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Returns one tensor of each network of a run, padded, stacked along the first axis."""
    parts = [
        padded(torch.stack([value(net) for net in same]), run.widest - width)
        for same, width in groups(nets, run.widths)
    ]
    return torch.cat(parts) if len(parts) > 1 else parts[0]
