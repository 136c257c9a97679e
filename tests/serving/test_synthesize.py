"""Synthesis in number: what is written, and that no interruption loses, doubles or changes an image."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from medsynth_tf.core.errors import DataError, ServingError, UnknownNameError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.training.export import export
from serving.label_maps import fit_label_map
from serving.synthesize import synthesize
from tests.serving import fake_writers
from tests.serving.conftest import ROOT, local_server
from tests.serving.fake_source import FakeSource
from tests.serving.tiny_method import TinyConfig


@pytest.fixture(autouse=True)
def _writers(monkeypatch):
    monkeypatch.setitem(sys.modules, "medsynth_tf.data.writers", fake_writers)


def _run(server, folder, count=7, source=None, **arguments):
    return synthesize(server.address, "tiny", source or FakeSource(), count, folder, progress=False, **arguments)


def _files(folder):
    """Path → content of every file that a user sees."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def _lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_images_masks_and_manifest(server, tiny_model, tmp_path):
    source = FakeSource()
    assert _run(server, tmp_path, source=source, seed=3, formats=("png", "dicom"), batch_size=2, method="a_method") == 7
    lines = _lines(tmp_path)
    assert [line["index"] for line in lines] == list(range(7))
    for line in lines:
        key = source.keys()[line["index"] % 5]
        mask, seed = source.read(key)["mask"], derive_seed(3, "synthesize", line["index"])
        assert (line["source_id"], line["seed"], line["model"], line["version"]) == (key.id, seed, "tiny", 1)
        image, dicom, mask_file = line["files"]
        assert (Path(dicom).suffix, mask_file) == (".dcm", f"masks/{line['name']}.png")
        np.testing.assert_array_equal(Image.open(tmp_path / mask_file), mask)
        picture = Image.open(tmp_path / image)
        np.testing.assert_array_equal(picture, tiny_model(mask[None], np.array([seed]))[0])
        assert (picture.text["seed"], picture.text["method"], picture.text["version"]) == (str(seed), "a_method", "1")
    assert len({line["seed"] for line in lines}) == 7
    with open(tmp_path / "manifest.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"images/{i:06d}.png" for i in range(7)]
    assert rows[0]["sha256"] == lines[0]["files"]["images/000000.png"]


def test_batching_changes_nothing(server, tmp_path):
    for name, batch, in_flight in (("one", 1, 1), ("many", 5, 3)):
        _run(server, tmp_path / name, batch_size=batch, in_flight=in_flight)
    for one, many in zip(sorted((tmp_path / "one/images").iterdir()), sorted((tmp_path / "many/images").iterdir())):
        np.testing.assert_array_equal(Image.open(one), Image.open(many))


def test_rerun_makes_nothing_twice(server, tmp_path):
    _run(server, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    assert _run(server, tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()} == before


def test_what_was_lost_or_damaged_is_made_again_as_it_was(server, tmp_path):
    _run(server, tmp_path)
    before = _files(tmp_path)
    (tmp_path / "images/000001.png").write_bytes(b"cut")
    (tmp_path / "masks/000004.png").unlink()
    journal = (tmp_path / "manifest.jsonl").read_text()
    (tmp_path / "manifest.jsonl").write_text(journal[:-40])  # a kill in the middle of the last line
    assert _run(server, tmp_path) == 3
    assert _files(tmp_path) == before


SCRIPT = """
import sys
from tests.serving import fake_writers
sys.modules["medsynth_tf.data.writers"] = fake_writers
from serving.label_maps import fit_label_map
from serving.synthesize import synthesize
from tests.serving.fake_source import FakeSource
print("start", flush=True)
synthesize(sys.argv[1], "tiny", FakeSource(), 30, sys.argv[2], batch_size=2)
"""


def test_kill_and_resume(server, tmp_path):
    """kill -9 while it writes, twice; the third run ends with what an uninterrupted one makes."""
    folder = tmp_path / "killed"
    environment = {**os.environ, "SLOW_WRITES": "0.1", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    finished = 0
    for wanted in (4, 12):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, server.address, str(folder)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        process.stdout.readline()
        deadline = time.monotonic() + 30
        while not (folder / "manifest.jsonl").exists() or len(_lines_if_whole(folder)) < wanted:
            assert process.poll() is None, "ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        finished = len(_lines_if_whole(folder))
        assert wanted <= finished < 30
    kept = {line["name"]: (folder / f"images/{line['name']}.png").stat().st_mtime_ns for line in _lines_if_whole(folder)}
    assert _run(server, folder, count=30, batch_size=4) == 30 - finished
    assert {name: (folder / f"images/{name}.png").stat().st_mtime_ns for name in kept} == kept
    assert not list(folder.glob("*/.*")), "temporary files of the killed runs are left"

    _run(server, tmp_path / "whole", count=30, batch_size=4)
    assert set(_files(folder)) == set(_files(tmp_path / "whole"))
    for killed, whole in zip(_lines(folder), _lines(tmp_path / "whole")):
        assert {**killed, "files": list(killed["files"])} == {**whole, "files": list(whole["files"])}
        for file in killed["files"]:
            np.testing.assert_array_equal(Image.open(folder / file), Image.open(tmp_path / "whole" / file))


def _lines_if_whole(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines() if line.endswith("}}")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed = 0, asked for is 1"),
        ({"count": 8}, "count = 7, asked for is 8"),
        ({"formats": ("png", "nifti")}, "formats"),
        ({"source": FakeSource(count=4)}, "masks"),
        ({"version": 2}, "does not serve version 2 of 'tiny'"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(server, tmp_path, change, message):
    _run(server, tmp_path)
    before = _files(tmp_path)
    with pytest.raises(ServingError, match=message):
        _run(server, tmp_path, **change)
    assert _files(tmp_path) == before


def test_a_run_whose_version_is_gone_says_so(server, tmp_path):
    _run(server, tmp_path)
    settings = json.loads((tmp_path / "synthesis.json").read_text())
    (tmp_path / "synthesis.json").write_text(json.dumps({**settings, "version": 9}))
    with pytest.raises(ServingError, match=r"version 9 of 'tiny', which the run in .* began with"):
        _run(server, tmp_path)


def test_two_runs_at_once_in_one_folder_are_refused(server, tmp_path):
    class Reentrant(FakeSource):
        def read(self, key):
            with pytest.raises(ServingError, match="another process is synthesising"):
                _run(server, tmp_path)
            return super().read(key)

    assert _run(server, tmp_path, source=Reentrant(), count=1) == 1


def test_masks_of_another_size_are_fitted(server, tmp_path):
    sizes = []

    def halve(mask, height, width):
        sizes.append((mask.shape, height, width))
        return mask[::2, ::2]

    _run(server, tmp_path, count=1, source=FakeSource(size=16), resize=halve)
    assert sizes == [((16, 16), 8, 8)]
    expected = FakeSource(size=16).read(FakeSource().keys()[0])["mask"][::2, ::2]
    np.testing.assert_array_equal(Image.open(tmp_path / "masks/000000.png"), expected)


def test_fitting_crops_to_the_field_of_view_and_keeps_thin_structures():
    pytest.importorskip("medsynth_tf.data.transforms")
    mask = np.full((40, 60), 255, np.uint8)
    mask[:, 10:50] = 0  # a field of view of 40×40
    mask[:, 30] = 2  # a vessel one pixel wide
    mask[0:20, 10:18] = 1
    fitted = fit_label_map(mask, 10, 10)
    expected = np.zeros((10, 10), np.uint8)  # each pixel is 4×4 of the field of view
    expected[:5, :2] = 1
    expected[:, 5] = 2  # covers a quarter of its pixels
    np.testing.assert_array_equal(fitted, expected)
    assert fitted.dtype == np.uint8


class Pairs(tf.keras.Model):
    """Makes image and mask from a seed, and a class if it has any; every third mask is empty."""

    def __init__(self, classes: int = 0):
        super().__init__()
        self.config, self.classes = TinyConfig(), classes
        self.level = tf.Variable(7, dtype=tf.int64)

    def signatures(self):
        def pairs(seed, label=None):
            shade = (seed + self.level + (0 if label is None else 50 * label)) % 200
            image = tf.tile(tf.cast(shade, tf.uint8)[:, None, None, None], [1, 8, 8, 3])
            empty = seed % 3 == 0
            mask = tf.tile(tf.where(empty, tf.constant(0, tf.uint8), tf.constant(1, tf.uint8))[:, None, None], [1, 8, 8])
            return {"image": image, "mask": mask, "empty_mask": empty}

        specs = [tf.TensorSpec([None], tf.int64, name=name) for name in ("seed", "label")]
        return {"serving_default": tf.function(pairs, input_signature=specs if self.classes else specs[:1])}

    def example_inputs(self):
        names = ("seed", "label") if self.classes else ("seed",)
        return {"serving_default": {name: np.zeros(1, np.int64) for name in names}}


@pytest.mark.parametrize("classes", [0, 2])
def test_pairs_that_a_model_makes_by_itself(tmp_path, classes):
    model = Pairs(classes)
    export(model, tmp_path / "served")
    labels = (1, 0, 1) if classes else ()
    with local_server("--model_name=pairs", f"--model_base_path={tmp_path / 'served'}") as running:

        def run(folder, labels=labels, **arguments):
            return synthesize(running.address, "pairs", None, 7, folder, labels=labels, progress=False, **arguments)

        assert run(tmp_path / "a", batch_size=2) == 7
        assert run(tmp_path / "a", batch_size=3) == 0
        for line in _lines(tmp_path / "a"):
            seed = derive_seed(0, "synthesize", line["index"])
            inputs = {"seed": tf.constant([seed], tf.int64)}
            if classes:
                inputs["label"] = tf.constant([labels[line["index"] % 3]], tf.int64)
            made = model.signatures()["serving_default"](**inputs)
            image, mask = line["files"]
            np.testing.assert_array_equal(Image.open(tmp_path / "a" / image), made["image"][0])
            np.testing.assert_array_equal(Image.open(tmp_path / "a" / mask), made["mask"][0])
            assert line["empty_mask"] == (seed % 3 == 0)
            assert (line["seed"], line["source_id"]) == (seed, "")
        with open(tmp_path / "a" / "manifest.csv") as file:
            rows = list(csv.DictReader(file))
        assert [row["mask"] for row in rows] == [f"masks/{index:06d}.png" for index in range(7)]
        assert {row["empty_mask"] for row in rows} == {"0", "1"}
        with pytest.raises(ServingError, match="the model takes a class" if classes else "the model takes no class"):
            run(tmp_path / "b", labels=() if classes else (1,))
        if classes:
            with pytest.raises(ServingError, match="asked for is made by the model, labels 0"):
                run(tmp_path / "a", labels=(0,))


def test_a_model_of_label_maps_asks_for_a_source(server, tmp_path):
    with pytest.raises(ServingError, match="takes label maps: give a source"):
        synthesize(server.address, "tiny", None, 1, tmp_path, progress=False)


def test_wrong_arguments(server, tmp_path):
    class Maskless(FakeSource):
        def read(self, key):
            return {"id": key.id}

    with pytest.raises(DataError, match="record 'record0' has no mask"):
        _run(server, tmp_path / "a", source=Maskless())

    class Volumes(FakeSource):
        def read(self, key):
            return {"id": key.id, "mask": np.zeros((4, 8, 8), np.uint8)}

    with pytest.raises(DataError, match=r"record 'record0' is uint8 \[4, 8, 8\]: expected uint8 \[H, W\]"):
        _run(server, tmp_path / "v", source=Volumes())
    with pytest.raises(DataError, match="no records"):
        _run(server, tmp_path / "b", source=FakeSource(count=0))
    with pytest.raises(UnknownNameError, match="unknown image format 'pgn'; did you mean 'png'"):
        _run(server, tmp_path / "c", formats=("pgn",))
    with pytest.raises(ServingError, match="image_size"):
        _run(server, tmp_path / "d", image_size=(16, 16))
    with pytest.raises(ServingError, match="at least 1"):
        _run(server, tmp_path / "e", count=0)
