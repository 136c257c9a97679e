import numpy as np
import pytest

from medsynth_tf.core.errors import DataError
from medsynth_tf.evaluation.severity import lesion_codes, lesion_shares, severity_by_grade


def maps(grade, seed):
    made = np.zeros([len(grade), 10, 10], np.uint8)
    made[:, 5:] = 255
    for i, g in enumerate(grade):
        made[i].flat[: 3 * g] = 2
        made[i].flat[10 : 10 + seed[i] % 3] = 1
    return made


def test_shares_are_of_the_field_of_view_and_rise_with_the_grade():
    codes = lesion_codes(["retina", "optic_disc", "haemorrhage"])
    assert codes == [2]
    np.testing.assert_allclose(lesion_shares(maps([0, 4], [0, 0]), codes), [0, 12 / 50])
    found, made = severity_by_grade(maps, 4, codes)
    np.testing.assert_allclose(found["lesion_share_by_grade"], [0, 0.06, 0.12, 0.18])
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert made.shape == (4, 16, 10, 10)


def test_falling_and_constant_severity_are_told():
    falling, _ = severity_by_grade(lambda grade, seed: maps(3 - grade, seed), 4, [2])
    assert falling["rank_correlation"] == pytest.approx(-1.0)
    constant, _ = severity_by_grade(lambda grade, seed: maps(0 * grade, seed), 4, [2])
    assert constant["rank_correlation"] is None
    with pytest.raises(DataError, match="a lesion among the labels"):
        severity_by_grade(maps, 4, [])


def test_one_swap_of_five_grades_reaches_a_gate_of_nine_tenths():
    sizes = np.array([0, 1, 2, 4, 3])

    def generate(grade, seed):
        maps = np.zeros([len(grade), 8, 8], np.uint8)
        for one, size in zip(maps, sizes[grade]):
            one[0, :size] = 2
        return maps

    assert severity_by_grade(generate, 5, [2])[0]["rank_correlation"] >= 0.9
