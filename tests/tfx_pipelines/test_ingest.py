"""The ExampleGen alone: what it writes from a folder, its cache, damaged files, Beam in processes; and compiling for Kubeflow."""

import csv
import json
import os

import numpy as np
import pytest
from skimage import io
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline

from medsynth_tf.core.registry import load_config
from medsynth_tf.data.open import open_source
from tfx_pipelines.components.ingest import IngestQuery, RecordExampleGen
from tfx_pipelines.factory import PipelineSettings, make_pipeline
from tfx_pipelines.runners.kubeflow import compile_pipeline

CONFIG = load_config("semantic_retina", "small", {"data.split_fractions": [0.6, 0.2, 0.2]})
COUNT = 10


@pytest.fixture
def folder(tmp_path):
    """Photographs with masks; one file is damaged."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(COUNT):
        image = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        io.imsave(tmp_path / "data" / "images" / f"{i}.png", image, check_contrast=False)
        mask = generator.integers(0, 3, (16, 16), dtype=np.uint8)
        io.imsave(tmp_path / "data" / "masks" / f"{i}.png", mask, check_contrast=False)
    damaged = tmp_path / "data" / "images" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    return tmp_path / "data"


def ingest(source, root, beam_args=("--direct_running_mode=in_memory",)):
    """Runs the component; the folder of its newest artifact, and the names of all."""
    root.mkdir(exist_ok=True)
    component = RecordExampleGen(IngestQuery.of(source, CONFIG.data.split_fractions, CONFIG.seed))
    LocalDagRunner().run(
        Pipeline(
            pipeline_name="ingest",
            pipeline_root=str(root / "artifacts"),
            components=[component],
            enable_cache=True,
            metadata_connection_config=metadata.sqlite_metadata_connection_config(str(root / "metadata.sqlite")),
            beam_pipeline_args=list(beam_args),
        )
    )
    made = sorted((root / "artifacts" / "RecordExampleGen" / "examples").iterdir(), key=lambda path: int(path.name))
    return made[-1], [path.name for path in made]


def assert_same_records(written, source):
    """Every record of the source but the damaged one, in the source's split, unchanged."""
    found, original = open_source(f"tfrecord:{written}"), open_source(source)
    keys, originals = found.keys(), original.keys()
    by_id = {key.id: key for key in originals}
    assert [key.id for key in keys] == sorted(str(i) for i in range(COUNT) if i != 3)
    splits = {split: original.split(split, CONFIG.data.split_fractions, CONFIG.seed) for split in ("train", "val", "test")}
    split_of = {key.id: split for split, members in splits.items() for key in members}
    for key in keys:
        assert key.split == split_of[key.id]
        ours, theirs = found.read(key), original.read(by_id[key.id])
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        np.testing.assert_array_equal(ours["mask"], theirs["mask"])
    return found


def test_a_folder_with_a_damaged_file_and_the_cache(folder, tmp_path):
    source, root = f"folder:{folder}", tmp_path / "pipeline"
    first, names = ingest(source, root)
    found = assert_same_records(first, source)
    with (first / "rejected.csv").open() as file:
        (rejected,) = csv.DictReader(file)
    assert (rejected["id"], rejected["file"]) == ("3", str(folder / "images" / "3.png"))
    assert "\n" not in rejected["reason"]
    assert json.loads((first / "manifest.json").read_text())["fingerprint"] == open_source(source).fingerprint()
    assert found.describe()["kind"] == "tfrecord"

    again, same = ingest(source, root)
    assert (again, same) == (first, names), "unchanged data were read again"

    image = io.imread(folder / "images" / "5.png")
    image[0, 0, 0] ^= 1
    io.imsave(folder / "images" / "5.png", image, check_contrast=False)
    changed, more = ingest(source, root)
    assert len(more) == len(names) + 1, "changed data were taken from the cache"
    assert_same_records(changed, source)


@pytest.mark.slow
def test_beam_in_several_processes_writes_the_same_records(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    beam_args = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    written, _ = ingest(f"folder:{folder}", tmp_path / "pipeline", beam_args)
    assert_same_records(written, f"folder:{folder}")
    assert (written / "rejected.csv").read_text().count("\n") == 2


def test_the_scale_of_the_pictures_comes_through(tmp_path):
    source = "skimage:retina?size=32&stride=16"
    written, _ = ingest(source, tmp_path)
    assert open_source(f"tfrecord:{written}").describe()["field_of_view_diameter"] == pytest.approx(
        open_source(source).describe()["field_of_view_diameter"]
    )


def test_compiles_for_kubeflow(tmp_path):
    settings = PipelineSettings(tmp_path, tmp_path / "served", ("--runner=FlinkRunner",))
    source = "phantom:fundus?count=12&size=32"
    output = compile_pipeline(CONFIG, source, settings, tmp_path / "out" / "job.json", "example/medsynth:1")
    job = json.loads(output.read_text())
    components = {component.id for component in make_pipeline(CONFIG, source, settings).components}
    tasks = set(job["pipelineSpec"]["root"]["dag"]["tasks"])
    resolvers = {"LatestBlessedModel-model-resolver", "LatestBlessedModel-model-blessing-resolver"}
    assert tasks == components - {"LatestBlessedModel"} | resolvers
    assert components >= {"RecordExampleGen", "StatisticsGen", "ExampleValidator", "DataGate", "Trainer", "SynthesisEvaluator"}
    container = job["pipelineSpec"]["deploymentSpec"]["executors"]["RecordExampleGen_executor"]["container"]
    assert container["image"] == "example/medsynth:1"
    assert "--runner=FlinkRunner" in container["args"]
    assert "tfx_pipelines.components.ingest.RecordExampleGenExecutor" in container["args"]
