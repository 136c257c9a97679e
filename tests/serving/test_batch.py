"""Batch synthesis on Beam: what is made, what is refused, and what a killed run leaves; on three runners."""

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
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from medsynth_tf.core.errors import DataError, ServingError
from medsynth_tf.core.seeds import derive_seed
from serving.batch import main, run
from serving.predictors import SavedModelPredictor, ServerPredictor
from serving.request_table import read_rows
from tests.serving.conftest import ROOT, free_port

COUNT = 10


@pytest.fixture
def masks():
    return np.random.default_rng(0).integers(0, 4, (COUNT, 8, 8)).astype(np.uint8)


@pytest.fixture
def table(tmp_path, masks):
    """Odd rows bring a seed; the masks stand beside the table."""
    (tmp_path / "masks").mkdir()
    rows = []
    for index, mask in enumerate(masks):
        file = f"masks/{index}.png" if index % 2 else f"masks/{index}.npy"
        Image.fromarray(mask).save(tmp_path / file) if index % 2 else np.save(tmp_path / file, mask)
        rows.append({"id": f"case-{index:02d}", "mask": file, "seed": str(index) if index % 2 else ""})
    return _write_table(tmp_path / "requests.csv", rows)


def _write_table(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "mask", "seed"])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture
def predictor(served_folder):
    return SavedModelPredictor("tiny", path=str(served_folder / "1"))


def _manifest(folder):
    shards = sorted(Path(folder).glob("manifest-*.csv"))
    return {row["id"]: row for shard in shards for row in csv.DictReader(shard.open())}


def _letters(folder):
    shards = sorted(Path(folder).glob("dead-letter-*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]


def _expected(tiny_model, masks):
    seeds = [index if index % 2 else derive_seed(0, "batch", f"case-{index:02d}") for index in range(COUNT)]
    return tiny_model(masks, np.array(seeds)).numpy()


def _check(folder, tiny_model, masks):
    manifest = _manifest(folder)
    assert sorted(manifest) == [f"case-{index:02d}" for index in range(COUNT)]
    for row, image in zip((manifest[name] for name in sorted(manifest)), _expected(tiny_model, masks)):
        np.testing.assert_array_equal(np.asarray(Image.open(Path(folder) / row["image"])), image)
    assert len(list((Path(folder) / "images").iterdir())) == COUNT
    assert _letters(folder) == []


def test_a_table_becomes_the_models_images(table, tmp_path, predictor, tiny_model, masks):
    out = tmp_path / "out"
    run([table], predictor, out, batch_size=3, shards=2)
    _check(out, tiny_model, masks)
    assert Image.open(out / "images" / "case-01.png").text["SYNTHETIC"] == "true"


def test_a_server_gives_the_same(table, tmp_path, server, predictor, tiny_model, masks):
    run([table], ServerPredictor("tiny", address=server.address), tmp_path / "served", batch_size=4)
    _check(tmp_path / "served", tiny_model, masks)
    arguments = ["--requests", table, "--out", str(tmp_path / "x"), "--server", server.address, "--timeout=0.5"]
    assert main([*arguments, "--model", "nobody"]) == 6


def test_tfrecord_tables(tmp_path, predictor, tiny_model, masks):
    path = tmp_path / "requests.tfrecord.gz"
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for index, mask in enumerate(masks):
            features = {"id": f"case-{index:02d}".encode(), "mask": mask.tobytes(), "mask/dtype": b"uint8"}
            ints = {"mask/shape": [8, 8], **({"seed": [index]} if index % 2 else {})}
            example = tf.train.Example()
            for name, value in features.items():
                example.features.feature[name].bytes_list.value.append(value)
            for name, values in ints.items():
                example.features.feature[name].int64_list.value.extend(values)
            writer.write(example.SerializeToString())
    run([str(path)], predictor, tmp_path / "out")
    _check(tmp_path / "out", tiny_model, masks)


def test_bad_rows_become_dead_letters_and_spoil_nobody(table, tmp_path, predictor, masks):
    np.save(tmp_path / "labels.npy", masks[0] + 9)
    np.save(tmp_path / "floats.npy", masks[0].astype(float))
    (tmp_path / "broken.png").write_bytes(b"no image")
    good = [{"id": f"good-{index}", "mask": f"masks/{2 * index}.npy", "seed": "7"} for index in range(3)]
    bad = {
        "../escape": ({"mask": "masks/0.npy"}, "expected letters, digits"),
        "": ({"mask": "masks/0.npy"}, "expected letters, digits"),
        "good-0": ({"mask": "masks/2.npy"}, "stands in row 0 of"),
        "no-mask": ({}, "no value for input 'label_map'"),
        "missing": ({"mask": "masks/99.npy"}, "99.npy: No such file"),
        "broken": ({"mask": "broken.png"}, "broken.png: cannot identify image"),
        "labels": ({"mask": "labels.npy"}, "label_map: labels are 0 to 3"),
        "floats": ({"mask": "floats.npy"}, "mask is float64, input 'label_map' takes uint8"),
        "word": ({"mask": "masks/0.npy", "seed": "x"}, "seed = 'x': expected int64"),
        "negative": ({"mask": "masks/0.npy", "seed": "-4"}, "seed -4 is negative"),
        "large": ({"mask": "masks/0.npy", "seed": str(2**63)}, "expected int64"),
    }
    rows = [*good, *({"id": name, **cells} for name, (cells, _) in bad.items())]
    path, out = _write_table(tmp_path / "mixed.csv", rows), tmp_path / "out"
    run([path], predictor, out)
    assert sorted(_manifest(out)) == ["good-0", "good-1", "good-2"]
    letters = {letter["id"]: letter for letter in _letters(out)}
    assert set(letters) == set(bad)
    for name, (_, reason) in bad.items():
        assert reason in letters[name]["error"]
        assert letters[name]["request"].get("mask") == bad[name][0].get("mask")
    assert sorted(path.name for path in out.parent.iterdir() if "escape" in path.name) == []

    mended = [*good, {"id": "missing", "mask": "masks/4.npy", "seed": "1"}]
    stamps = {file: file.stat().st_mtime_ns for file in (out / "images").iterdir()}
    run([_write_table(tmp_path / "mixed.csv", mended)], predictor, out)
    assert sorted(_manifest(out)) == ["good-0", "good-1", "good-2", "missing"]
    assert _letters(out) == []
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps  # nothing twice


def test_what_was_altered_or_changed_is_made_anew(table, tmp_path, predictor, tiny_model, masks):
    out = tmp_path / "out"
    run([table], predictor, out)
    first = (out / "images" / "case-03.png").read_bytes()
    (out / "images" / "case-03.png").write_bytes(b"rotten")
    (out / "images" / "case-05.png").unlink()
    run([table], predictor, out)
    _check(out, tiny_model, masks)
    assert (out / "images" / "case-03.png").read_bytes() == first
    with pytest.raises(ServingError, match="holds a run with seed = 0, asked for is 5"):
        run([table], predictor, out, seed=5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "name,mask\n", "no column 'id'"),
        ("t.txt", "", "expected .csv, .tfrecord"),
        ("t.csv", "id\n\xff\xfe", "cannot read request table"),
        ("t.tfrecord", "nonsense nonsense", "cannot read request table"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        list(read_rows(str(tmp_path / name)))
    with pytest.raises(DataError):
        list(read_rows(str(tmp_path / "missing.csv")))


class Failing(SavedModelPredictor):
    def predict(self, inputs, *arguments):
        if np.any(inputs["seed"] == 7):
            raise ServingError("gone", "UNAVAILABLE")
        return super().predict(inputs, *arguments)


def test_a_server_that_fails_is_one_line_and_nothing_is_lost(table, tmp_path, served_folder, tiny_model, masks):
    path = str(served_folder / "1")
    with pytest.raises(ServingError, match="gone"):
        run([table], Failing("tiny", path=path), tmp_path / "out", batch_size=1)
    assert not list((tmp_path / "out").glob("manifest-*"))
    run([table], SavedModelPredictor("tiny", path=path), tmp_path / "out")
    _check(tmp_path / "out", tiny_model, masks)


def _command(table, out, served_folder, *options):
    arguments = ["--requests", table, "--out", str(out), "--saved_model", str(served_folder / "1"), "--model", "tiny"]
    return [sys.executable, "-m", "serving.batch", *arguments, "--batch_size=1", *options]


@pytest.mark.slow
def test_killed_and_begun_again(table, tmp_path, served_folder, tiny_model, masks):
    """kill -9 as soon as some images are there; the rest is made by the same command, and those are left alone."""
    out = tmp_path / "out"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(_command(table, out, served_folder), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("journal/*.jsonl")) or not any(file.stat().st_size for file in out.glob("journal/*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(out.glob("manifest-*"))
    journalled = [json.loads(line)["id"] for file in out.glob("journal/*.jsonl") for line in file.read_text().splitlines()]
    stamps = {name: (out / "images" / f"{name}.png").stat().st_mtime_ns for name in journalled}
    subprocess.run(_command(table, out, served_folder), cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    _check(out, tiny_model, masks)
    assert {name: (out / "images" / f"{name}.png").stat().st_mtime_ns for name in stamps} == stamps


@pytest.mark.slow
def test_direct_runner_with_several_processes(table, tmp_path, predictor, tiny_model, masks):
    options = PipelineOptions(["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"])
    run([table], predictor, tmp_path / "out", batch_size=2, options=options)
    _check(tmp_path / "out", tiny_model, masks)


@pytest.mark.slow
def test_portable_job_server_in_its_own_process(table, tmp_path, predictor, tiny_model, masks):
    port = free_port()
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", f"--port={port}"]
    job_server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        arguments = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
        run([table], predictor, tmp_path / "out", options=PipelineOptions(arguments))
    finally:
        job_server.terminate()
        job_server.wait(30)
    _check(tmp_path / "out", tiny_model, masks)
