"""Counters and histograms under TensorFlow Serving's names, and the Prometheus page of them."""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Sequence

LATENCY_BOUNDS = tuple(10.0 * 1.8**power for power in range(33))  # microseconds, to beyond 40 minutes
SIZE_BOUNDS = tuple(2.0**power for power in range(15))  # rows of a batch, examples of a request
PATH = "/monitoring/prometheus/metrics"


class _Metric:
    kind = ""

    def __init__(self, name: str, labels: Sequence[str]):
        self.name = name
        self._labels = tuple(labels)
        self._lock = threading.Lock()

    def _key(self, values: Sequence[str]) -> tuple[str, ...]:
        if len(values) != len(self._labels):
            raise ValueError(f"{self.name} has the labels {self._labels}, got {values}")
        return tuple(values)

    def _text(self, values: Sequence[str], *more: str) -> str:
        pairs = [f'{label}="{_escaped(value)}"' for label, value in zip(self._labels, values)]
        return "{" + ",".join([*pairs, *more]) + "}"

    def lines(self) -> list[str]:
        """The metric in the text exposition format."""
        raise NotImplementedError


class Counter(_Metric):
    """Sums that only grow, one per combination of label values."""

    kind = "counter"

    def __init__(self, name: str, *labels: str):
        super().__init__(name, labels)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *values: str, amount: float = 1) -> None:
        """Adds `amount` for these label values."""
        key = self._key(values)
        with self._lock:
            self._values[key] = self._values.get(key, 0) + amount

    def lines(self) -> list[str]:
        """A line per combination of label values."""
        with self._lock:
            found = sorted(self._values.items())
        return [f"{self.name}{self._text(values)} {value:.15g}" for values, value in found]


class Histogram(_Metric):
    """Distributions over fixed buckets, one per combination of label values."""

    kind = "histogram"

    def __init__(self, name: str, bounds: Sequence[float], *labels: str):
        super().__init__(name, labels)
        self._bounds = bounds
        self._values: dict[tuple[str, ...], tuple[list[int], float]] = {}

    def observe(self, value: float, *values: str) -> None:
        """Counts `value` for these label values."""
        key = self._key(values)
        with self._lock:
            counts, total = self._values.get(key) or ([0] * (len(self._bounds) + 1), 0.0)
            counts[bisect.bisect_left(self._bounds, value)] += 1
            self._values[key] = counts, total + value

    def lines(self) -> list[str]:
        """Buckets (cumulated), sum and count per combination of label values."""
        with self._lock:
            found = sorted((values, list(counts), total) for values, (counts, total) in self._values.items())
        text = []
        for values, counts, total in found:
            cumulated = 0
            for bound, count in zip([*(f"{bound:.15g}" for bound in self._bounds), "+Inf"], counts):
                cumulated += count
                le = f'le="{bound}"'
                text.append(f"{self.name}_bucket{self._text(values, le)} {cumulated}")
            text.append(f"{self.name}_sum{self._text(values)} {total:.15g}")
            text.append(f"{self.name}_count{self._text(values)} {cumulated}")
        return text


class Metrics:
    """What one server counts. Latencies are in microseconds, as TensorFlow Serving's."""

    def __init__(self) -> None:
        self.request_count = Counter(":tensorflow:serving:request_count", "model_name", "status")
        self.request_latency = Histogram(
            ":tensorflow:serving:request_latency", LATENCY_BOUNDS, "model_name", "API", "entrypoint"
        )
        self.runtime_latency = Histogram(":tensorflow:serving:runtime_latency", LATENCY_BOUNDS, "model_name", "API", "runtime")
        self.example_counts = Histogram(":tensorflow:serving:request_example_counts", SIZE_BOUNDS, "model")
        self.example_count_total = Counter(":tensorflow:serving:request_example_count_total", "model")
        self.warmup_latency = Histogram(":tensorflow:serving:model_warmup_latency", LATENCY_BOUNDS, "model_path", "status")
        self.batch_size = Histogram(":tensorflow:serving:batching_session:processed_batch_size", SIZE_BOUNDS)
        self.queuing_latency = Histogram(":tensorflow:serving:batching_session:queuing_latency", LATENCY_BOUNDS)
        self.load_attempts = Counter(":tensorflow:cc:saved_model:load_attempt_count", "model_path", "status")
        self.load_latency = Counter(":tensorflow:cc:saved_model:load_latency", "model_path")
        self.graph_runs = Counter(":tensorflow:core:graph_runs")
        self.graph_run_time = Counter(":tensorflow:core:graph_run_time_usecs")

    def page(self) -> str:
        """All that was counted, in Prometheus's text format."""
        text: list[str] = []
        for metric in vars(self).values():
            lines = metric.lines()
            if lines:
                text += [f"# TYPE {metric.name} {metric.kind}", *lines]
        return "\n".join(text) + "\n" if text else ""


def _escaped(value: str) -> str:
    return re.sub(r'[\\"\n]', lambda match: {"\\": r"\\", '"': r"\"", "\n": r"\n"}[match[0]], value)
