"""What the server offers to the plugin: models, their stems and lookaheads, and the latencies.

``native/choices.h`` documents the file in which the plugin reads the offers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bsmamba2 import Manifest
from bsmamba2.errors import printable

FIRST_LINE = "bsmamba2 offers 1"
WHOLE_CHUNKS = 0
"""The lookahead, in ms, that stands for whole chunks."""
LOOKAHEADS_MS = (100, 200, 500, 1000, 2000, 5000)
"""The lookaheads that a streaming model is offered with."""
MAX_NAME_BYTES = 120


@dataclass(frozen=True)
class Offer:
    """A model as the plugin lists it.

    Args:
        name: the model's name in the list.
        stems: the names of its stems, those with a bus first.
        buses: how many stems have a bus. These sum to the mixture; the others are sums of them.
        latency_ms: for each lookahead in ms the latency in ms, 0 if it is not known yet.
        default_lookahead_ms: the lookahead that is selected first.
    """

    name: str
    stems: tuple[str, ...]
    buses: int
    latency_ms: Mapping[int, int] = field(default_factory=lambda: {WHOLE_CHUNKS: 0})
    default_lookahead_ms: int = WHOLE_CHUNKS

    def with_latency(self, lookahead_ms: int, latency_ms: int) -> Offer:
        """Returns a copy in which a latency is known."""
        return replace(self, latency_ms={**self.latency_ms, lookahead_ms: latency_ms})


def stems_of(
    name: str, outputs: tuple[str, ...], residual: str | None, available: tuple[str, ...]
) -> Offer:
    """Returns the offer of a model that runs whole chunks.

    A model without a residual gets one, so that its stems sum to the mixture.

    Args:
        name: the name in the list.
        outputs: the stems, then the residual.
        residual: the name of the residual; None if the model has none.
        available: the outputs, then sums of them.
    """
    rest = () if residual else ("residual" if "residual" not in outputs else "rest",)
    buses = (*outputs, *rest)
    return Offer(_listed(name), (*buses, *available[len(outputs) :]), len(buses))


def offer_of(manifest: Manifest, name: str | None = None) -> Offer:
    """Returns the offer of a model that runs whole chunks, under its own or another name."""
    outputs, available = manifest.outputs, manifest.available
    return stems_of(name or manifest.name, outputs, manifest.residual, available)


def _listed(name: str) -> str:
    """Returns a name that fits the file and the protocol."""
    clean = printable(name).replace("\t", " ")
    return clean.encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "model"


def to_text(offers: Sequence[Offer], setup: str) -> str:
    """Returns the file's content; ``setup`` names what the latencies depend on."""
    lines = [FIRST_LINE, f"setup\t{_listed(setup)}"]
    for offer in offers:
        stems = map(_listed, offer.stems)
        head = ("model", offer.name, str(offer.default_lookahead_ms), str(offer.buses), *stems)
        lines.append("\t".join(head))
        lines += [f"lookahead\t{ms}\t{latency}" for ms, latency in sorted(offer.latency_ms.items())]
    return "\n".join(lines) + "\n"


def known_latencies(text: str, setup: str) -> dict[tuple[str, int], int]:
    """Returns the latencies in a file by model and lookahead; none if its setup was another."""
    known: dict[tuple[str, int], int] = {}
    lines = [line.split("\t") for line in text.split("\n")]
    if lines[:2] != [[FIRST_LINE], ["setup", _listed(setup)]]:
        return known
    model = ""
    for words in lines:
        if words[0] == "model" and len(words) > 1:
            model = words[1]
        elif words[0] == "lookahead" and len(words) == 3 and all(map(str.isdecimal, words[1:])):
            known[model, int(words[1])] = int(words[2])
    return {key: latency for key, latency in known.items() if latency}
