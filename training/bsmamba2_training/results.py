"""Writes the results of an evaluation: JSON, CSV, a Markdown table and a plot."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bsmamba2.files.part_file import write_atomically
from bsmamba2_training.evaluation import LEAKAGE, LEVEL, METRICS, Score, Summary, summarise
from bsmamba2_training.metrics import LENGTHS

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Table = dict[str, dict[str, Summary]]
ROWS = (
    {"usdr vocals": METRICS["usdr vocals"], LEVEL: "level of the voice in the vocals, dB"}
    | METRICS
    | {LEAKAGE: "vocals where no voice sounds, dB relative to the mixture"}
)
"""The rows of the table. The level comes second, because it shows what the first row hides."""


def write(scores: list[Score], protocol: dict[str, Any], folder: Path) -> str:
    """Writes scores.json, songs.csv, table.md and two plots; returns the text of table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    table = summarise(scores)
    write_atomically(folder / "scores.json", to_json(scores, protocol).encode())
    _write_csv(scores, folder / "songs.csv")
    text = page(scores, protocol)
    write_atomically(folder / "table.md", text.encode())
    for name, figure in (("plot.png", plot(table)), ("activity.png", activity_plot(table))):
        figure.savefig(folder / name)
        plt.close(figure)
    return text


def to_json(scores: list[Score], protocol: dict[str, Any]) -> str:
    """Returns the protocol, the summary and all scores as JSON text."""
    document = {
        "protocol": protocol,
        "summary": {
            system: {metric: dataclasses.asdict(summary) for metric, summary in metrics.items()}
            for system, metrics in summarise(scores).items()
        },
        "songs": [dataclasses.asdict(item) for item in scores],
    }
    return json.dumps(document, indent=1) + "\n"


def page(scores: list[Score], protocol: dict[str, Any]) -> str:
    """Returns the table as Markdown, followed by its explanation and protocol."""
    return f"{markdown(summarise(scores))}\n\n{_explanation(protocol)}\n"


def markdown(table: Table) -> str:
    """Returns one row per metric with median, mean and interval of each system."""
    systems = list(table)
    lines = [
        f"| median (mean) [interval] | {' | '.join(systems)} |",
        f"|---{'|---' * len(systems)}|",
    ]
    for metric, name in ROWS.items():
        if any(metric in table[system] for system in systems):
            cells = [_cell(table[system].get(metric)) for system in systems]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    interval = f"[{summary.low:.2f}, {summary.high:.2f}]"
    return f"{summary.median:.2f} ({summary.mean:.2f}) {interval}"


def _explanation(protocol: dict[str, Any]) -> str:
    systems = protocol.get("systems", {})
    parts = [_condition(name, value) for name, value in protocol.items() if name != "systems"]
    parts += [_condition(f"{name}:", value) for name, value in systems.items()]
    return (
        "Each cell: median over songs (mean) [95% confidence interval of the median, bootstrap "
        "over songs]. Silence scores 0 dB of uSDR, so read it beside the level of the voice. Rows "
        "for vocals of one length are over all stretches of that length; there the bootstrap draws "
        f"songs with all their stretches. Protocol: {'; '.join(parts)}."
    )


def _condition(name: str, value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(_condition(key, item) for key, item in value.items())
    return f"{name.replace('_', ' ')} {value}"


def _write_csv(scores: list[Score], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = (*[name for name in METRICS if not name.startswith("voice")], LEVEL, LEAKAGE)
        voices = [name for name in METRICS if name.startswith("voice")]
        writer.writerow(("song", "system", *columns, *voices))
        for item in scores:
            cells = [item.values.get(name) for name in columns]
            cells += [_mean(item.voices.get(name.removeprefix("voice "), [])) for name in voices]
            texts = ["" if cell is None else f"{cell:.3f}" for cell in cells]
            writer.writerow((item.song, item.system, *texts))


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def plot(table: Table) -> Figure:
    """Plots medians and intervals, one group of bars per metric; leakage has its own axis."""
    metrics = [name for name in METRICS if any(name in row for row in table.values())]
    return _figure(table, metrics, metrics, "leakage")


def activity_plot(table: Table) -> Figure:
    """Plots how well vocals are separated by how long they sound, and their level where absent."""
    lengths = [name for name in LENGTHS if any(f"voice {name}" in row for row in table.values())]
    figure = _figure(table, [f"voice {length}" for length in lengths], lengths, "absent")
    figure.axes[0].set_xlabel("how long the vocals sound without a pause")
    figure.axes[0].set_ylabel("uSDR of the vocals, dB, median")
    return figure


def _figure(
    table: Table, metrics: Sequence[str], labels: Sequence[str], leakage_label: str
) -> Figure:
    figure, (wide, narrow) = plt.subplots(
        1, 2, figsize=(13, 5), layout="constrained", width_ratios=(max(4, len(metrics)), 1.5)
    )
    _bars(wide, table, metrics, labels)
    wide.set_ylabel("dB, median")
    _bars(narrow, table, [LEAKAGE], [leakage_label])
    narrow.set_ylabel("dB relative to the mixture, median; lower is better")
    handles, names = wide.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(table), 6))
    return figure


def _bars(axis: Axes, table: Table, metrics: Sequence[str], labels: Sequence[str]) -> None:
    width = 0.8 / len(table)
    for number, (system, row) in enumerate(table.items()):
        at = [i + (number + 0.5) * width for i, name in enumerate(metrics) if name in row]
        present = [row[name] for name in metrics if name in row]
        medians = [summary.median for summary in present]
        errors = [(s.median - s.low, s.high - s.median) for s in present]
        axis.bar(
            at,
            medians,
            width,
            yerr=np.array(errors).reshape(-1, 2).T,
            label=system,
            color=f"C{number}",  # the same on both axes, even if a system has no bar on one
            error_kw={"linewidth": 0.8},
        )
    axis.set_xticks([i + 0.4 for i in range(len(metrics))], labels, rotation=25, ha="right")
    axis.axhline(0, color="black", linewidth=0.8)
