"""The speed of candidate sizes for a small model, before anything is trained.

    python -m benchmarks.training.sizes [--only NAME] [--repeat 3]

Measures the share of real time that a chunk takes, with and without the kernel, and the share that
a step of a stream takes. The stream's block, lookahead and transform window add up to half a second
of latency. Weights are random, and two threads are used. Each output is compared with the network
before it is timed. A size qualifies as `small` if a chunk takes at most 0.35 of real time, a step
at most 0.8, and its weights in float16 at most 12 MB. Writes benchmarks/results/sizes.md. Needs the
extras cpu and export; about 20 s per size on an idle machine.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.arguments import argument_parser
from benchmarks.machine import Watch, background_load, conditions
from benchmarks.pages import RESULTS
from benchmarks.streaming import check_step, median_s, require_snr
from bsmamba2.devices import kernel
from bsmamba2.devices.device import CPU
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2_export import artifact
from bsmamba2_export.exporter import describe
from bsmamba2_export.trace import trace
from bsmamba2_network import PRESETS, BSMamba2, Config

THREADS = 2
STEPS_PER_CHUNK = 4
LATENCY_S = 0.5
MAX_CHUNK_SHARE, MAX_STEP_SHARE, MAX_MB = 0.35, 0.8, 12.0

# 2049 bins in 38 bands: 86 Hz wide up to 1 kHz, then wider. The preset small has 26 bands.
BANDS_4096 = (8,) * 12 + (16,) * 10 + (32,) * 6 + (64,) * 4 + (128,) * 3 + (256,) * 2 + (449,)
LONG = Config(
    n_fft=4096, hop=1024, bands=BANDS_4096, expand=2, state_size=64, mask_expand=1, chunk=8 * 44100
)  # fmt: skip
MEDIUM = PRESETS["medium"]
SIZES = {
    "medium": MEDIUM,
    "96 x 4, mask 2": replace(MEDIUM, mask_expand=2),
    "96 x 4, hop 512, mask 2": replace(MEDIUM, hop=512, mask_expand=2),
    "128 x 4, hop 512, mask 1": replace(MEDIUM, dim=128, hop=512, mask_expand=1),
    "128 x 6, hop 512, mask 1": replace(MEDIUM, dim=128, depth=6, hop=512, mask_expand=1),
    "128 x 6, mask 1": replace(MEDIUM, dim=128, depth=6, mask_expand=1),
    "small": PRESETS["small"],
    "long 96 x 4, mask 2": replace(LONG, dim=96, depth=4, mask_expand=2),
    "long 128 x 4": replace(LONG, dim=128, depth=4),
    "long 128 x 4, hop 512": replace(LONG, dim=128, depth=4, hop=512),
}


def main() -> None:
    parser = argument_parser("training.sizes", __doc__)
    parser.add_argument(
        "--only", action="append", help="A size to measure; may be repeated. Default: all."
    )
    parser.add_argument("--repeat", type=int, default=3, help="Runs per figure. Default: 3.")
    arguments = parser.parse_args()
    watch = Watch()
    rows = []
    only = "".join(f" --only '{name}'" for name in arguments.only or ())
    for name in arguments.only or SIZES:
        rows.append(row(name, SIZES[name], arguments.repeat))
        print(rows[-1], flush=True)
    page = [
        "# Sizes for a small model",
        "",
        "| size | n_fft / hop | bands | D | layers | N | parameters | float16 | chunk, kernel | "
        "chunk, plain | step at 0.5 s | fits |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Shares of real time, lower is faster: the median of {arguments.repeat} runs of a chunk, "
        f"transforms included, and of {arguments.repeat * STEPS_PER_CHUNK} steps; random weights; "
        f"a size fits if chunk ≤ {MAX_CHUNK_SHARE}, step ≤ {MAX_STEP_SHARE} and float16 ≤ "
        f"{MAX_MB:g} MB. Kernel: {'yes' if kernel.library() else 'not installed'}; "
        f"{conditions(f'{THREADS} threads', 'onnxruntime', 'torch')}; "
        f"{background_load(watch.background_cores())}; "
        f"`python -m benchmarks.training.sizes --repeat {arguments.repeat}{only}`.",
        "",
    ]
    (RESULTS / "sizes.md").write_text("\n".join(page))
    print("\n".join(page))


def row(name: str, config: Config, repeat: int) -> str:
    torch.manual_seed(0)
    net = BSMamba2(config).eval()
    parameters = sum(value.numel() for value in net.state_dict().values())
    megabytes = 2 * parameters / 1e6
    with tempfile.TemporaryDirectory() as folder:
        whole, step = Path(folder, "whole.onnx"), Path(folder, "step.onnx")
        write(net, whole, streaming=False)
        write(net, step, streaming=True)
        fast, plain = (chunk_share(net, whole, on, repeat) for on in (True, False))
        streamed = step_share(net, step, repeat)
    fits = fast <= MAX_CHUNK_SHARE and streamed <= MAX_STEP_SHARE and megabytes <= MAX_MB
    return (
        f"| {name} | {config.n_fft} / {config.hop} | {len(config.bands)} | {config.dim} | "
        f"{config.depth} | {config.state_size} | {parameters / 1e6:.1f} M | {megabytes:.1f} MB | "
        f"{fast:.3f} | {plain:.3f} | {streamed:.3f} | {'yes' if fits else 'no'} |"
    )


def write(net: BSMamba2, path: Path, *, streaming: bool) -> None:
    model = trace(net, streaming=streaming)
    artifact.set_manifest(model, describe(net, "size", streaming=streaming))
    artifact.write(model, path)


def chunk_share(net: BSMamba2, path: Path, with_kernel: bool, repeat: int) -> float:
    """Returns a chunk's time over its length, after comparing its first second with the network."""
    engine = OrtEngine(read_onnx(path), CPU, threads=THREADS, kernel=with_kernel)
    audio = np.random.default_rng(0).standard_normal((2, net.config.chunk)).astype(np.float32)
    second = audio[:, : net.config.sample_rate]
    with torch.inference_mode():
        expected = net(torch.from_numpy(second)[None])[0].numpy()
    require_snr(expected, engine.run(second))
    return median_s(lambda: engine.run(audio), repeat) / (net.config.chunk / net.config.sample_rate)


def step_share(net: BSMamba2, path: Path, repeat: int) -> float:
    """Returns a step's time over its block's length; the lookahead is as long as the block."""
    config = net.config
    frames = int((LATENCY_S * config.sample_rate - config.n_fft) / config.hop)
    shape = (1, config.channels, frames, config.bins, 2)
    spectra = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    block, lookahead = np.split(spectra, [frames // 2], axis=2)
    engine = StepEngine(read_onnx(path), CPU, threads=THREADS)
    check_step(net, engine, block, lookahead)
    elapsed_s = median_s(lambda: engine.step(block, lookahead), STEPS_PER_CHUNK * repeat)
    return elapsed_s / (frames // 2 * config.hop / config.sample_rate)


if __name__ == "__main__":
    main()
