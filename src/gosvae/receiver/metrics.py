"""Metrics of a receiver for Prometheus, in a registry of their own. `docs/service.md` lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from gosvae.errors import MissingDependencyError
from gosvae.protocol.frames import Answer, Frame, Outcome, Perceived
from gosvae.receiver.engine import Engine
from gosvae.receiver.service import LinkService
from gosvae.receiver.udp import UdpReceiver

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the text that `Metrics.render` returns."""
STAGES = ("queue", "entropy", "reconstruct", "expert", "answer", "total")
"""Stages of the receiver that have a histogram of times."""
_STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the histogram buckets for times, in seconds."""
_STREAM_BUCKETS_BYTES = (256, 512, 1024, 1536, 2048, 3072, 4096, 8192, 16384, 65536, 262144)
"""Upper bounds of the histogram buckets for the sizes of streams, in bytes."""


def import_prometheus() -> Any:
    """Return the module `prometheus_client`.

    Raises:
        MissingDependencyError: prometheus-client is not installed.
    """
    try:
        import prometheus_client
        import prometheus_client.core
    except ImportError as error:
        raise MissingDependencyError(f"metrics need prometheus-client ({error}): pip install 'gosvae[serve]'") from None
    return prometheus_client


class Metrics:
    """Metrics of an engine, and of its gRPC service and UDP receiver if it has them.

    Attributes:
        registry: collector registry of these metrics alone.

    Raises:
        MissingDependencyError: prometheus-client is not installed.
    """

    def __init__(self, engine: Engine, service: LinkService | None = None, udp: UdpReceiver | None = None) -> None:
        prometheus = self._prometheus = import_prometheus()
        self.registry = prometheus.CollectorRegistry()
        self._engine, self._service, self._udp = engine, service, udp
        self._stages = prometheus.Histogram(
            "gosvae_stage_seconds",
            "Time that an answered frame spent in a stage of the receiver",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self._bytes = prometheus.Histogram(
            "gosvae_stream_bytes",
            "Bytes of the streams of answered frames",
            buckets=_STREAM_BUCKETS_BYTES,
            registry=self.registry,
        )
        self.registry.register(_Counters(self))
        engine.observers.append(self._observe)

    def render(self) -> bytes:
        """Return the text that Prometheus reads; its media type is `CONTENT_TYPE`."""
        data: bytes = self._prometheus.generate_latest(self.registry)
        return data

    def _observe(self, frame: Frame, outcome: Outcome, _: Perceived | None) -> None:
        if isinstance(outcome, Answer):
            for stage in STAGES:
                self._stages.labels(stage).observe(getattr(outcome.stages, f"{stage}_ms") / 1000.0)
            self._bytes.observe(frame.stream_bytes)

    def families(self) -> Iterator[Any]:
        """Yield the counters and gauges with their current values, as metric families of `prometheus_client`."""
        core = self._prometheus.core
        engine = self._engine.counters
        frames = core.CounterMetricFamily(
            "gosvae_frames",
            "Frames by outcome: answered, or the reason for which they were dropped",
            labels=["outcome"],
        )
        frames.add_metric(["answered"], engine.answered)
        for reason, count in engine.dropped.items():
            frames.add_metric([reason.value], count)
        yield frames
        yield core.CounterMetricFamily("gosvae_frames_received", "Frames that arrived", value=engine.received)
        yield core.CounterMetricFamily("gosvae_batches", "Batches that the networks processed", value=engine.batches)
        yield core.GaugeMetricFamily("gosvae_queue_frames", "Frames in the queue", value=engine.waiting)
        yield core.GaugeMetricFamily(
            "gosvae_queue_bytes", "Bytes of the frames in the queue", value=engine.waiting_bytes
        )
        if self._service is not None:
            yield from self._of_service(core, self._service)
        if self._udp is not None:
            yield from self._of_udp(core, self._udp)

    def _of_service(self, core: Any, service: LinkService) -> Iterator[Any]:
        counters = service.counters
        yield core.GaugeMetricFamily("gosvae_streams_open", "Open streams of senders", value=counters.open_streams)
        yield core.CounterMetricFamily("gosvae_streams", "Streams that were opened", value=counters.streams)
        refused = core.CounterMetricFamily("gosvae_calls_refused", "Calls that were refused, by reason", labels=["why"])
        for why, count in sorted(counters.refused.items()):
            refused.add_metric([why], count)
        yield refused
        yield core.CounterMetricFamily(
            "gosvae_messages_malformed", "Messages that could not be read", value=counters.malformed
        )
        yield core.CounterMetricFamily("gosvae_answers_sent", "Answers and refusals sent", value=counters.sent)
        yield core.CounterMetricFamily(
            "gosvae_answers_undelivered", "Answers and refusals that were not delivered", value=counters.undelivered
        )

    def _of_udp(self, core: Any, udp: UdpReceiver) -> Iterator[Any]:
        groups = {
            "udp": asdict(udp.counters),
            "packets": asdict(udp.inlet.reassembler.counters),
            "repair": asdict(udp.inlet.recovery.counters),
        }
        if udp.opener is not None:
            groups["seal"] = asdict(udp.opener.counters)
        family = core.CounterMetricFamily(
            "gosvae_udp_events", "Events of UDP, of the reassembly and of the repair", labels=["layer", "event"]
        )
        for layer, counters in groups.items():
            for event, count in counters.items():
                family.add_metric([layer, event], count)
        yield family


class _Counters:
    """Collector that prometheus-client asks for the metric families."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        """Return the families; prometheus-client calls this at every scrape."""
        return self._metrics.families()
