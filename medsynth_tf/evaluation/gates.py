"""Quality gates: conditions on metrics, written as a person would, and the verdict on them."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.names import suggestion

_GATE = re.compile(r"^\s*(\w+)\s*(>=|<=|>|<)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(\*\s*baseline)?\s*$")
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclasses.dataclass(frozen=True)
class Gate:
    """metric comparison limit [* baseline], for example `label_agreement >= 0.8`."""

    text: str
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
        return cls(text, metric, comparison, float(limit), relative is not None)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether all gates hold, and a line for each."""

    passed: bool
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"passed": self.passed, "reasons": list(self.reasons)}


def judge(gates: Sequence[str], metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> Verdict:
    """Holds every gate against the metrics.

    A gate relative to the baseline holds where there is no baseline yet. A metric that is not finite fails its gate.

    Raises:
        ConfigError: a gate cannot be read, or names a metric that was not computed.
    """
    passed, reasons = True, []
    for gate in map(Gate.parse, gates):
        if gate.metric not in metrics:
            numbers = [name for name, value in metrics.items() if isinstance(value, (int, float))]
            raise ConfigError(f"gate '{gate.text}': no metric '{gate.metric}'" + suggestion(gate.metric, numbers))
        value = float(metrics[gate.metric])
        if gate.relative and baseline is None:
            reasons.append(f"passed: {gate.text} ({gate.metric} = {value:.4g}; there is no blessed model yet)")
            continue
        limit = gate.limit * float(baseline[gate.metric]) if gate.relative and baseline is not None else gate.limit
        holds = math.isfinite(value) and _COMPARISONS[gate.comparison](value, limit)
        passed = passed and holds
        reasons.append(f"{'passed' if holds else 'FAILED'}: {gate.text} ({gate.metric} = {value:.4g}, limit {limit:.4g})")
    return Verdict(passed, tuple(reasons))
