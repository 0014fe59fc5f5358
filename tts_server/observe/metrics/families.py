"""Every metric of the server: its name, its labels and what it says. No label holds what a client wrote."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
WAITS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics of one name."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    says: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def counter(self, registry: CollectorRegistry) -> Counter:
        return Counter(self.name, self.says, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        return Histogram(self.name, self.says, self.labels, buckets=self.buckets, registry=registry)

    def read(self, values: Iterable[tuple[Sequence[str], float]]) -> Metric:
        """The family with values that are counted elsewhere, each with those of its labels."""
        made = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family: CounterMetricFamily | GaugeMetricFamily = made(self.name, self.says, labels=self.labels)
        for labels, value in values:
            family.add_metric(labels, value)
        return family


_BY_STRATEGY = ("strategy",)

REQUESTS = Family(
    "tts_requests_total",
    "counter",
    "Requests that have ended. `status` is the answer's, that of the error where a stream broke off, and 499 where "
    "the client left; `strategy` is `none` where no search was begun.",
    ("endpoint", "strategy", "status"),
)
RUNNING = Family("tts_requests_running", "gauge", "Requests under way.", _BY_STRATEGY)
DURATION = Family(
    "tts_request_duration_seconds",
    "histogram",
    "From a request's arrival to its end, where it ran a search.",
    _BY_STRATEGY,
    SECONDS,
)
FIRST_TOKEN = Family(
    "tts_time_to_first_token_seconds",
    "histogram",
    "From a request's arrival to the first token of its answer, thoughts included: where a search has to end before "
    "its answer is known, that is its end. Streamed or not.",
    _BY_STRATEGY,
    SECONDS,
)
LIVE = Family("tts_live_samples", "gauge", "Samples (branches) that were asked for and have not ended.", _BY_STRATEGY)
SAMPLES = Family("tts_samples_total", "counter", "Solutions that were begun, not their steps.", _BY_STRATEGY)
GENERATED = Family(
    "tts_generated_tokens_total", "counter", "Generated tokens, over all samples of a search.", _BY_STRATEGY
)
DISCARDED = Family(
    "tts_discarded_tokens_total",
    "counter",
    "Those of the generated tokens that are no part of a returned answer: of branches that were thrown away, and of "
    "requests that failed or whose client left.",
    _BY_STRATEGY,
)
PROMPT = Family("tts_prompt_tokens_total", "counter", "Tokens of the clients' prompts, each once.", _BY_STRATEGY)
ENGINE_PROMPT = Family(
    "tts_engine_prompt_tokens_total", "counter", "Prompt tokens of every sample, cached ones included.", _BY_STRATEGY
)
CACHED = Family(
    "tts_cached_prompt_tokens_total",
    "counter",
    "Those of the engine's prompt tokens that came from its prefix cache.",
    _BY_STRATEGY,
)
PRM_TOKENS = Family("tts_prm_tokens_total", "counter", "Tokens that a reward model has computed.", _BY_STRATEGY)
PRM_CALLS = Family("tts_prm_calls_total", "counter", "Calls of a reward model.", _BY_STRATEGY)
OWNER_REQUESTS = Family(
    "tts_owner_requests_total",
    "counter",
    "Requests of each API key's owner that may compute something, by the status with which they ended.",
    ("owner", "status"),
)
OWNER_TOKENS = Family(
    "tts_owner_tokens_total",
    "counter",
    "Tokens of each API key's owner: `prompt` are those of the owner's prompts, each once, `generated` those of all "
    "samples, `prm` those that a reward model has computed.",
    ("owner", "kind"),
)
STOPS = Family(
    "tts_budget_stops_total",
    "counter",
    "Searches that a limit of their budget has ended, by the limit that was reached first; `deadline` is one of them.",
    ("strategy", "reason"),
)
QUEUE = Family("tts_queue_depth", "gauge", "Samples of the engine's calls that wait for their turn.")
QUEUE_WAIT = Family(
    "tts_queue_wait_seconds",
    "histogram",
    "How long a call waited for its turn, of those that had to wait.",
    (),
    WAITS,
)
SAMPLE_LIMIT = Family("tts_sample_limit", "gauge", "Samples that may grow at once before calls have to wait.")
PRM_BATCH = Family(
    "tts_prm_batch_size",
    "histogram",
    "Solutions that a reward model in this process read at once.",
    ("prm",),
    SIZES,
)
PRM_WAIT = Family(
    "tts_prm_batch_wait_seconds", "histogram", "How long a solution waited for its batch to begin.", ("prm",), WAITS
)
ENGINE_UP = Family("tts_engine_up", "gauge", "1 while the engine can answer.")
RESTARTS = Family("tts_engine_restarts_total", "counter", "How often the engine in this process was started again.")
UPSTREAM_UP = Family("tts_upstream_up", "gauge", "1 while the upstream answers.", ("upstream",))
UPSTREAM_ERRORS = Family(
    "tts_upstream_errors_total",
    "counter",
    "Failed calls of an upstream: `connect` where none was possible, else the HTTP status, `timeout`, or `broken` "
    "where it closed too early or sent nonsense.",
    ("upstream", "kind"),
)
UPSTREAM_RETRIES = Family(
    "tts_upstream_retries_total", "counter", "Calls of an upstream that were sent again.", ("upstream",)
)
UPSTREAM_FAILOVERS = Family(
    "tts_upstream_failovers_total",
    "counter",
    "Samples and questions that another upstream took over from this one.",
    ("upstream",),
)
UPSTREAM_SCRAPED = Family(
    "tts_upstream_metrics_up",
    "gauge",
    "1 where the upstream's own metrics stand below, 0 where it has told none just now.",
    ("upstream",),
)
DECISIONS = Family(
    "tts_decisions_total",
    "counter",
    "Searches that `compute_optimal` has chosen; `explored` are those that it chose to learn.",
    ("explored",),
)
TRACES_DROPPED = Family("tts_traces_dropped_total", "counter", "Records of searches that could not be written down.")
BUILD = Family("tts_build_info", "gauge", "Always 1; what is running.", ("version", "model", "prm"))

FAMILIES: tuple[Family, ...] = tuple(each for each in list(globals().values()) if isinstance(each, Family))
"""In the order in which they are shown."""
