"""What a server counts, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from .decoding import Answered
from .encoding import Rows
from .engine import Started

if TYPE_CHECKING:
    from .engine import Engine

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counters and histograms of one server, in a registry of its own."""

    def __init__(self, engine: Engine, facts: dict[str, str]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("edgesdk_model", "What is served.", registry=registry).info(facts)
        waiting = Gauge("edgesdk_waiting_requests", "Requests in the queue.", registry=registry)
        waiting.set_function(lambda: engine.waiting)
        running = Gauge("edgesdk_running_requests", "Answers being made: 0 or 1.", registry=registry)
        running.set_function(lambda: engine.running)
        self._responses = Counter(
            "edgesdk_responses", "Responses by path and status.", ["path", "status"], registry=registry
        )
        self._gone = Counter("edgesdk_gone_clients", "Clients that did not wait for their answer.", registry=registry)
        self._prompt = Counter("edgesdk_prompt_tokens", "Tokens of answered prompts.", registry=registry)
        self._reused = Counter(
            "edgesdk_reused_prompt_tokens", "Those of them that the cache held already.", registry=registry
        )
        self._embedded = Counter("edgesdk_embedded_tokens", "Tokens of texts that were embedded.", registry=registry)
        self._answer = Counter("edgesdk_answer_tokens", "Tokens of answers.", registry=registry)
        self._waited = Histogram("edgesdk_queue_seconds", "Time in the queue.", buckets=_SECONDS, registry=registry)
        self._prefill = Histogram(
            "edgesdk_prefill_seconds",
            "Time from the start of an answer to its first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._token = Histogram(
            "edgesdk_token_seconds", "Mean time of an answer's later tokens.", buckets=_TOKEN_SECONDS, registry=registry
        )

    def responded(self, path: str, status: int) -> None:
        """Count a response; ``path`` as the server knows it, never as a client wrote it."""
        self._responses.labels(path, str(status)).inc()

    def gone(self) -> None:
        """Count a client that went away."""
        self._gone.inc()

    def started(self, event: Started) -> None:
        """Count an answer's start."""
        self._waited.observe(event.waited)

    def count(self, event: object) -> None:
        """Count what a job gave."""
        if isinstance(event, Rows):
            self._embedded.inc(event.tokens)
        elif isinstance(event, Answered):
            self._answered(event)

    def _answered(self, event: Answered) -> None:
        found = event.statistics
        self._prompt.inc(found.prompt_tokens + event.reused)
        self._reused.inc(event.reused)
        self._answer.inc(len(found.tokens))
        self._prefill.observe(found.prefill_seconds)
        if len(found.tokens) > 1:
            self._token.observe(found.decode_seconds / (len(found.tokens) - 1))

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
