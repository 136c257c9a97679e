import pytest

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.evaluation.gates import check_gates

METRICS = {"fid": 12.0, "label_agreement": {"ratio": 0.8}, "kid": None, "extractor": "x", "nan": float("nan")}
BASELINE = {"fid": 10.0, "label_agreement": {"ratio": 0.9}, "kid": 1.0, "extractor": "x", "nan": 1.0}


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        ("label_agreement.ratio >= 0.8", True),
        ("label_agreement.ratio > 0.8", False),
        ("label_agreement.ratio>=.81", False),
        ("fid <= 12", True),
        ("fid < 1.2e1", False),
        ("kid <= 1", False),
        ("nan >= 0", False),
        ("nan <= 0", False),
        ("fid <= 1.2 * baseline", True),
        ("fid <= 1.1*baseline", False),
        ("label_agreement.ratio >= 0.85 * baseline", True),
        ("label_agreement.ratio >= 0.95 * baseline", False),
    ],
)
def test_gates(gate, passed):
    (verdict,) = check_gates(METRICS, [gate], BASELINE)
    assert verdict.passed is passed
    assert verdict.gate.metric in str(verdict)
    assert ("passes" in str(verdict)) == passed


def test_the_first_model_passes_gates_relative_to_one_that_is_not_there():
    (verdict,) = check_gates(METRICS, ["fid <= 0.1 * baseline"])
    assert verdict.passed
    assert "no blessed model yet" in str(verdict)
    (undefined,) = check_gates(METRICS, ["kid <= 1.1 * baseline"])
    assert not undefined.passed


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("fid", "metric >= number"),
        ("fid <= low", "metric >= number"),
        ("fid == 3", "metric >= number"),
        ("fidd <= 3", "did you mean 'fid'"),
        ("extractor >= 0", "no such metric"),
    ],
)
def test_gates_that_cannot_be_held_are_refused(gate, words):
    with pytest.raises(ConfigError, match=words):
        check_gates(METRICS, [gate])
