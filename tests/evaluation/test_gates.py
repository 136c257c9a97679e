import pytest

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.evaluation.gates import Gate, check_gates

METRICS = {"fid": 12.0, "label_agreement": {"ratio": 0.8}, "kid": None, "extractor": "x", "nan": float("nan")}


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        (Gate("label_agreement.ratio", minimum=0.8), True),
        (Gate("label_agreement.ratio", minimum=0.81), False),
        (Gate("fid", maximum=12), True),
        (Gate("fid", minimum=1, maximum=11), False),
        (Gate("kid", maximum=1), False),
        (Gate("memorisation.pixels.copies", maximum=0), False),
        (Gate("extractor", minimum=0), False),
        (Gate("nan", minimum=0), False),
        (Gate("nan", maximum=0), False),
    ],
)
def test_gates(gate, passed):
    (verdict,) = check_gates(METRICS, [gate])
    assert verdict.passed is passed
    assert gate.metric in str(verdict)
    assert ("passes" in str(verdict)) == passed


def test_a_gate_without_bounds_is_refused():
    with pytest.raises(ConfigError, match="minimum, a maximum"):
        Gate("fid")
