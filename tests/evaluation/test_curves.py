import numpy as np
import pytest
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.evaluation.curves import _smoothed, read_log, write_curves


def test_log_is_read_as_columns(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,g_loss,stage,d_loss\n10,1.5,gan,2\n20,,gan,nan\n30,2.5,gan,1e-3\n")
    log = read_log(path)
    assert list(log) == ["step", "g_loss", "d_loss"]
    np.testing.assert_array_equal(log["step"], [10, 20, 30])
    np.testing.assert_array_equal(log["g_loss"], [1.5, np.nan, 2.5])


def test_a_resumed_run_overwrites_its_steps(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n10,1\n20,2\n30,3\n20,4\n")
    np.testing.assert_array_equal(read_log(path)["loss"], [1, 4, 3])


@pytest.mark.parametrize(
    ("text", "words"),
    [("loss\n1\n", "no column 'step'"), ("step,loss\n", "no rows"), ("step,loss\nten,1\n", "line 2"), ("", "no column")],
)
def test_broken_logs_are_refused(tmp_path, text, words):
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_log(path)


def test_missing_log_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"log\.csv"):
        read_log(tmp_path / "log.csv")


def test_a_falling_loss_falls_in_the_picture(tmp_path):
    steps = np.arange(0, 100, 2)
    log = {"step": steps, "loss": 100.0 - steps, "empty": np.full(len(steps), np.nan)}
    picture = np.asarray(Image.open(write_curves(tmp_path / "losses.png", log))).astype(int)
    line = picture[..., 2] - picture[..., 0] > 100  # the blue of the smoothed curve
    rows, columns = np.nonzero(line)
    assert np.corrcoef(rows, columns)[0, 1] > 0.99
    assert picture.shape[1] == 360


def test_smoothing_keeps_a_constant_and_a_mean():
    np.testing.assert_allclose(_smoothed(np.full(90, 3.0)), 3.0)
    noise = np.random.default_rng(0).normal(size=400)
    assert _smoothed(noise).std() < 0.4 * noise.std()


def test_nothing_to_draw(tmp_path):
    with pytest.raises(DataError, match="no column with a finite number"):
        write_curves(tmp_path / "losses.png", {"step": np.arange(3), "loss": np.full(3, np.nan)})
