"""Quality gates: what a metric must reach before anything is pushed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from medsynth_tf.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Gate:
    """Bounds of one metric, ends included.

    Attributes:
        metric: dotted name among the metrics, for example `label_agreement.ratio`.
        minimum: smallest value that passes, or None.
        maximum: largest value that passes, or None.

    Raises:
        ConfigError: neither bound is given.
    """

    metric: str
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if self.minimum is None and self.maximum is None:
            raise ConfigError(f"gate on '{self.metric}': give a minimum, a maximum, or both")

    @property
    def rule(self) -> str:
        """The bounds in words."""
        bounds = [f"at least {self.minimum:g}"] if self.minimum is not None else []
        bounds += [f"at most {self.maximum:g}"] if self.maximum is not None else []
        return " and ".join(bounds)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A gate's outcome. `value` is None where the metric is missing or undefined, which does not pass."""

    gate: Gate
    value: float | None

    @property
    def passed(self) -> bool:
        """Whether the value is within the bounds; NaN is not."""
        if self.value is None:
            return False
        above = self.gate.minimum is None or self.value >= self.gate.minimum
        return above and (self.gate.maximum is None or self.value <= self.gate.maximum)

    def __str__(self) -> str:
        value = "not computed" if self.value is None else f"{self.value:.4g}"
        return f"{self.gate.metric} = {value}: {'passes' if self.passed else 'fails'}, must be {self.gate.rule}"


def check_gates(metrics: Mapping[str, Any], gates: Sequence[Gate]) -> list[Verdict]:
    """The verdict of each gate on nested metrics such as `evaluate_generation` returns."""
    return [Verdict(gate, _number(metrics, gate.metric)) for gate in gates]


def _number(metrics: Mapping[str, Any], dotted: str) -> float | None:
    value: Any = metrics
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
