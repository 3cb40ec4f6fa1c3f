"""The models that the server offers: loaded when a plugin chooses them, with a stable latency."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bsmamba2 import Error, ModelError, Separator, Stream
from bsmamba2_pedalboard.offers import (
    LOOKAHEADS_MS,
    WHOLE_CHUNKS,
    Offer,
    known_latencies,
    offer_of,
    to_text,
)
from bsmamba2_pedalboard.settings import EffectSettings

log = logging.getLogger("bsmamba2.serve")

RESAMPLING_SAMPLES = 6615
"""The most latency that resampling adds at the rates of DAWs, in samples at the model's rate."""
FADE_SAMPLES = 512
"""How early a response must arrive for the plugin not to fade to its fallback."""
MEASURED_BLOCK = 8192
MAX_KNOWN_LATENCY_MS = 300_000


@dataclass(frozen=True)
class OtherModel:
    """A model that is not loaded yet."""

    offer: Offer
    load: Callable[[], Separator]


@dataclass(frozen=True)
class Served:
    """A model with a lookahead, as one connection uses it."""

    separator: Separator
    settings: EffectSettings
    latency_ms: int

    def open_stream(self, sample_rate: float, channels: int) -> Stream:
        """Opens a stream of stems."""
        return self.settings.open_stream(self.separator, sample_rate, channels)


class OfferedModels:
    """Loads models and knows the latency of each lookahead.

    A latency that was measured once stays, because a host that renders must not be told another.

    Args:
        separator: the default model, which is always loaded.
        lookahead_ms: the default lookahead; None for whole chunks.
        headroom_ms: latency reserved for inference. None: twice the measured time.
        others: models that plugins can choose.
        earlier: offers of earlier servers, whose latencies are kept; later ones count more.
    """

    def __init__(
        self,
        separator: Separator,
        lookahead_ms: float | None = None,
        headroom_ms: float | None = None,
        others: Sequence[OtherModel] = (),
        earlier: Sequence[str] = (),
    ) -> None:
        self._default = separator
        self._headroom_ms = headroom_ms
        self._known: dict[tuple[str, int], int] = {}
        for text in earlier:
            self._known |= known_latencies(text, self.setup)
        self._lock = threading.Lock()
        self._load_lock = threading.Lock()
        default = WHOLE_CHUNKS if lookahead_ms is None else round(lookahead_ms)
        offer = self._loaded_offer(offer_of(separator.manifest), separator, default)
        self._offers = {offer.name: self._with_known(offer)}
        self._others: dict[str, Callable[[], Separator]] = {}
        for other in others:
            if other.offer.name not in self._offers:
                self._offers[other.offer.name] = self._with_known(other.offer)
                self._others[other.offer.name] = other.load
        self._loaded: weakref.WeakValueDictionary[str, Separator] = weakref.WeakValueDictionary()
        self._latest: Separator | None = None  # stays loaded while a host restarts its plugin
        self.default_latency_ms = self.serve("", None).latency_ms

    @property
    def setup(self) -> str:
        """What latencies depend on beside model and lookahead."""
        return f"{self._default.device}, {self._default.products}, headroom {self._headroom_ms}"

    def to_text(self) -> str:
        """Returns the file that plugins read."""
        with self._lock:
            return to_text(list(self._offers.values()), self.setup)

    def offer(self, name: str) -> Offer:
        """Returns what is offered of a model; an empty name is the default model."""
        with self._lock:
            first = next(iter(self._offers))
            if (offer := self._offers.get(name or first)) is None:
                raise ModelError(
                    f"model must be one of {', '.join(self._offers)}; got {name!r}: choose another "
                    "in the plugin, or start the server with it"
                )
            return offer

    def serve(self, name: str, lookahead_ms: int | None) -> Served:
        """Loads a model, and returns it with a lookahead; 0 ms is whole chunks.

        Args:
            name: a name of the offers, or an empty text for the default.
            lookahead_ms: None: the model's default.

        Raises:
            ModelError: there is no such model, or it has no such lookahead.
        """
        offer = self.offer(name)
        with self._load_lock:
            separator = self._load(offer.name)
            offer = self.offer(name)
            ms = offer.default_lookahead_ms if lookahead_ms is None else lookahead_ms
            if ms not in offer.latency_ms:
                allowed = ", ".join(map(str, offer.latency_ms))
                raise ModelError(
                    f"lookahead_ms of {offer.name} must be one of {allowed}; got {ms}: choose "
                    "another in the plugin (0 is whole chunks)"
                )
            settings = EffectSettings(lookahead_ms=None if ms == WHOLE_CHUNKS else float(ms))
            latency = self._latency_ms(separator, settings, offer.latency_ms[ms])
            with self._lock:
                self._offers[offer.name] = offer.with_latency(ms, latency)
        return Served(separator, settings, latency)

    def _load(self, name: str) -> Separator:
        if (load := self._others.get(name)) is None:
            return self._default
        separator = self._loaded.get(name)
        if separator is None:
            log.info("loading %s", name)
            separator = load()
            found = self._loaded_offer(offer_of(separator.manifest, name), separator, WHOLE_CHUNKS)
            with self._lock:
                known = self._offers[name].latency_ms
                latencies = {ms: known.get(ms, 0) for ms in found.latency_ms}
                self._offers[name] = replace(found, latency_ms=latencies)
        self._loaded[name] = self._latest = separator
        return separator

    def _with_known(self, offer: Offer) -> Offer:
        latencies = {ms: self._known.get((offer.name, ms), 0) for ms in offer.latency_ms}
        return replace(offer, latency_ms=latencies)

    @staticmethod
    def _loaded_offer(offer: Offer, separator: Separator, default_ms: int) -> Offer:
        """Adds the lookaheads, if the model has a graph for streams."""
        if default_ms == WHOLE_CHUNKS and not _streams(separator):
            return offer
        lookaheads = sorted({WHOLE_CHUNKS, *LOOKAHEADS_MS, default_ms})
        return replace(
            offer, default_lookahead_ms=default_ms, latency_ms=dict.fromkeys(lookaheads, 0)
        )

    def _latency_ms(self, separator: Separator, settings: EffectSettings, known: int) -> int:
        rate = separator.manifest.sample_rate
        stream = settings.open_stream(separator, rate, 2)
        least = 1000 * (stream.latency_samples + RESAMPLING_SAMPLES) / rate
        if self._headroom_ms is not None:
            return math.ceil(least + self._headroom_ms)
        if least < known <= MAX_KNOWN_LATENCY_MS:
            return known
        return math.ceil(least + _measured_headroom_ms(stream, rate))


def _streams(separator: Separator) -> bool:
    try:
        separator.stream(separator.manifest.sample_rate, 2, lookahead_ms=float(LOOKAHEADS_MS[0]))
    except Error:
        return False
    return True


def _measured_headroom_ms(stream: Stream, rate: int) -> float:
    """Returns twice the longest step of a stream; this also warms the model up."""
    longest = 0.0
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, MEASURED_BLOCK)).astype(np.float32)
    for _ in range(2 * stream.latency_samples // MEASURED_BLOCK + 2):
        start = time.perf_counter()
        stream.push(noise)
        longest = max(longest, time.perf_counter() - start)
    if stream.load > 1:
        log.warning(
            "the model takes %.2f s for a second of audio here, so live playback in a DAW misses "
            "stems; renders wait for them",
            stream.load,
        )
    return 100 * math.ceil(20 * longest) + 50
