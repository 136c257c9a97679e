"""Quality gates: conditions on metrics, written as a person would, that must hold before anything is pushed."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.names import suggestion

_GATE = re.compile(r"^\s*([\w.]+)\s*(>=|<=|>|<)\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*(\*\s*baseline)?\s*$")
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclasses.dataclass(frozen=True)
class Gate:
    """One condition: `label_agreement.ratio >= 0.8`, or `fid <= 1.1 * baseline`.

    Attributes:
        metric: dotted name among the metrics.
        comparison: `>=`, `<=`, `>` or `<`.
        limit: the number on the right.
        relative: whether the limit is a multiple of the last blessed model's value.
    """

    metric: str
    comparison: str
    limit: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Reads a gate.

        Raises:
            ConfigError: it is not of the form above.
        """
        match = _GATE.match(text)
        if match is None:
            raise ConfigError(f"gate '{text}': expected 'metric >= number' or 'metric >= number * baseline' (>=, <=, >, <)")
        metric, comparison, limit, relative = match.groups()
        return cls(metric, comparison, float(limit), relative is not None)

    @property
    def rule(self) -> str:
        """The condition without the metric's name."""
        return f"{self.comparison} {self.limit:g}{' × baseline' if self.relative else ''}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A gate's outcome.

    Attributes:
        gate: the condition.
        value: of the metric; None where it is undefined, which does not pass.
        limit: what the value was held against; None for a relative gate while there is no blessed model, which passes.
    """

    gate: Gate
    value: float | None
    limit: float | None

    @property
    def passed(self) -> bool:
        """Whether the condition holds; it does not for NaN."""
        if self.value is None or not math.isfinite(self.value):
            return False
        return self.limit is None or _COMPARISONS[self.gate.comparison](self.value, self.limit)

    def __str__(self) -> str:
        value = "not computed" if self.value is None else f"{self.value:.4g}"
        against = (
            " (no blessed model yet)" if self.limit is None else f" (limit {self.limit:.4g})" if self.gate.relative else ""
        )
        return f"{'passes' if self.passed else 'FAILS'}: {self.gate.metric} = {value}, must be {self.gate.rule}{against}"


def check_gates(metrics: Mapping[str, Any], gates: Sequence[str], baseline: Mapping[str, Any] | None = None) -> list[Verdict]:
    """The verdict of each gate.

    Args:
        metrics: nested, such as `evaluate_generation` returns.
        gates: conditions as `Gate.parse` reads them.
        baseline: the last blessed model's metrics on the same data, if there is one.

    Raises:
        ConfigError: a gate cannot be read, or names a metric that does not exist; the nearest is named.
    """
    verdicts = []
    for gate in map(Gate.parse, gates):
        limit: float | None = gate.limit
        if gate.relative:
            before = _number(baseline, gate.metric) if baseline is not None else None
            limit = None if before is None else gate.limit * before
        verdicts.append(Verdict(gate, _number(metrics, gate.metric), limit))
    return verdicts


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat


def _number(metrics: Mapping[str, Any], dotted: str) -> float | None:
    flat = flattened(metrics)
    numbers = [name for name, value in flat.items() if value is None or isinstance(value, (int, float))]
    if dotted not in numbers:
        raise ConfigError(f"gate on '{dotted}': no such metric" + suggestion(dotted, numbers))
    value = flat[dotted]
    return None if value is None else float(value)
