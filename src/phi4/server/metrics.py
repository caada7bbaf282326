"""What is measured, in Prometheus's terms."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from phi4.engine.engine import Engine
from phi4.server.admission import Admission

FIRST_TOKEN_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
GAP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one server, and the engine's own numbers as they are when somebody asks."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine, admission))
        self.responses = Counter(
            "phi4_http_responses", "Responses by path and status.", ["path", "status"], registry=self._registry
        )
        self.prompt_tokens = Counter("phi4_prompt_tokens", "Tokens of prompts.", registry=self._registry)
        self.generated_tokens = Counter("phi4_generated_tokens", "Tokens generated.", registry=self._registry)
        self.first_token_seconds = Histogram(
            "phi4_first_token_seconds",
            "From the arrival of a request to its first token.",
            buckets=FIRST_TOKEN_BUCKETS_S,
            registry=self._registry,
        )
        self.token_gap_seconds = Histogram(
            "phi4_token_gap_seconds",
            "Between two tokens of an answer.",
            buckets=GAP_BUCKETS_S,
            registry=self._registry,
        )

    def expose(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Reads the engine and the queue when they are asked for."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        """Yields the numbers of this moment."""
        engine, counts = self._engine, self._engine.counts
        gauges = {
            "phi4_requests": ("Requests on their way.", self._admission.num_requests),
            "phi4_requests_waiting": ("Requests without a first token.", self._admission.num_waiting),
            "phi4_rows_waiting": ("Answers that the engine has queued.", engine.num_waiting),
            "phi4_rows_running": ("Answers that hold blocks of the cache.", engine.num_running),
            "phi4_cache_use_ratio": ("Share of the cache's blocks that running answers hold.", engine.cache_use),
        }
        counters = {
            "phi4_preemptions": ("Answers that gave up their blocks and were computed again.", counts.preempted),
            "phi4_rotary_switches": ("Answers that outgrew the short rotary table.", counts.switched),
            "phi4_reused_tokens": ("Tokens found in the cache instead of being computed.", counts.reused_tokens),
        }
        for name, (meaning, value) in gauges.items():
            yield GaugeMetricFamily(name, meaning, value=value)
        for name, (meaning, count) in counters.items():
            yield CounterMetricFamily(name, meaning, value=count)
