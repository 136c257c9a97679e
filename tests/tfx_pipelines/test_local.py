"""The whole pipeline in this process: a run that breaks off, goes on and pushes; one whose model is refused; what metadata keep."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

from medsynth_tf.core.card import ModelCard
from medsynth_tf.core.errors import ConfigError, DataError, TrainingError
from medsynth_tf.core.registry import load_config
from medsynth_tf.data.open import open_source
from medsynth_tf.training import trainer
from serving.smoke import smoke_test
from tests.training.test_trainer import SOURCE, TINY
from tfx_pipelines.factory import PipelineSettings, make_pipeline
from tfx_pipelines.runners.local import outcome, run

KEPT = "images_synthetic >= 1"
REFUSED = "images_synthetic >= 1000"
STEPS = 4
FRACTIONS = (0.5, 0.25, 0.25)
HELD_OUT = len(open_source(SOURCE).split("test", FRACTIONS, 0))


def config(gates=(KEPT,)):
    overrides = {
        **TINY,
        "training": {**TINY["training"], "epochs": 1, "steps_per_epoch": STEPS, "checkpoint_steps": 2, "image_steps": 100},
        "data.split_fractions": list(FRACTIONS),
        "evaluation.gates": list(gates),
    }
    return load_config("semantic_retina", "small", overrides)


class Count(tf.keras.callbacks.Callback):
    """Counts steps; breaks off at one of them."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.steps, self.stop_at = 0, stop_at

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.stop_at:
            raise TrainingError("the power failed")


def counted(monkeypatch, stop_at=None):
    count = Count(stop_at)
    train = trainer.train
    monkeypatch.setattr(trainer, "train", lambda *args: train(*args, callbacks=[count]))  # TFX imports trainer_module anew
    return count


class Store:
    """Questions to ML-Metadata."""

    def __init__(self, settings):
        connection = metadata.sqlite_metadata_connection_config(str(settings.metadata_file))
        self.store = metadata_store.MetadataStore(connection)

    def newest(self, kind):
        return max(self.store.get_artifacts_by_type(kind), key=lambda artifact: artifact.id)

    def made_from(self, artifact):
        """The inputs of the execution that put out an artifact."""
        events = self.store.get_events_by_artifact_ids([artifact.id])
        makers = [event.execution_id for event in events if event.type == metadata_store_pb2.Event.OUTPUT]
        of_first = self.store.get_events_by_execution_ids(makers[:1])
        return self.store.get_artifacts_by_id(
            [event.artifact_id for event in of_first if event.type == metadata_store_pb2.Event.INPUT]
        )

    def ancestors(self, artifact):
        found = {artifact.id: artifact}
        for parent in self.made_from(artifact):
            found.update({ancestor.id: ancestor for ancestor in self.ancestors(parent)})
        return found.values()

    def states(self):
        """Component → state of its execution, in the last run."""
        last = max(self.store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)
        states = metadata_store_pb2.Execution.State.Name
        return {e.type.split(".")[-1]: states(e.last_known_state) for e in self.store.get_executions_by_context(last.id)}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipeline")
    return PipelineSettings(root / "work", root / "served")


@pytest.fixture(scope="module")
def first(settings):
    """Breaks off in training, then is run again to the end."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        counted(monkeypatch, stop_at=3)
        with pytest.raises(TrainingError, match="^the power failed$"):  # as it was raised, not wrapped by TFX
            run(config(), SOURCE, settings)
        with pytest.raises(TrainingError, match="did not finish: it made no ModelBlessing"):
            outcome(settings)
    with pytest.MonkeyPatch.context() as monkeypatch:
        count = counted(monkeypatch)
        done = run(config(), SOURCE, settings)
    return done, count.steps, Store(settings).states()


def test_a_run_that_broke_off_goes_on_from_its_checkpoint(first):
    _, steps, states = first
    assert steps == STEPS - 2, "training began from the start"
    assert states["RecordExampleGen"] == states["StatisticsGen"] == "CACHED"
    assert states["Trainer"] == "COMPLETE"


def test_a_blessed_model_is_pushed_whole_and_answers(first, settings):
    done, _, _ = first
    assert done.blessed
    assert done.reasons == (f"passes: images_synthetic = {HELD_OUT}, must be >= 1",)
    assert done.pushed.parent == settings.push_to
    assert [path.name for path in settings.push_to.iterdir()] == [done.pushed.name], "nothing else is left beside it"
    assert abs(int(done.pushed.name) - time.time()) < 3600
    card = ModelCard.read(done.pushed)
    card.verify(done.pushed)
    assert card.data_fingerprint == open_source(SOURCE).fingerprint()
    smoke_test(done.pushed)


def test_the_report_is_of_this_run(first):
    done, _, _ = first
    metrics = json.loads((done.evaluation / "metrics.json").read_text())
    assert (metrics["images_real"], metrics["images_synthetic"]) == (HELD_OUT, HELD_OUT)
    assert {"index.html", "losses.png", "masks_and_images.png", "real_and_synthetic.png"} <= {
        path.name for path in done.evaluation.iterdir()
    }


def test_lineage_leads_from_the_pushed_version_to_the_data(first, settings):
    done, _, _ = first
    store = Store(settings)
    pushed = next(
        artifact
        for artifact in store.store.get_artifacts_by_type("PushedModel")
        if artifact.custom_properties["pushed_destination"].string_value == str(done.pushed)
    )
    assert pushed.custom_properties["pushed_version"].string_value == done.pushed.name
    parents = {artifact.type: artifact for artifact in store.made_from(pushed)}
    assert set(parents) == {"Model", "ModelBlessing", "InfraBlessing"}
    assert parents["ModelBlessing"].custom_properties["current_model_id"].int_value == parents["Model"].id
    assert parents["Model"] in store.made_from(parents["ModelBlessing"])
    assert {"Examples", "Model", "ModelRun"} == {artifact.type for artifact in store.made_from(parents["ModelBlessing"])}
    examples = [artifact for artifact in store.ancestors(pushed) if artifact.type == "Examples"]
    assert [artifact.custom_properties["source"].string_value for artifact in examples] == [SOURCE]
    assert examples[0].custom_properties["fingerprint"].string_value == open_source(SOURCE).fingerprint()


def test_a_refused_model_is_not_pushed_and_the_reasons_are_kept(first, settings):
    before, _, _ = first
    baseline = Store(settings).newest("Model")
    done = run(config([REFUSED, "images_synthetic >= 1 * baseline"]), SOURCE, settings)
    assert not done.blessed
    assert done.pushed is None
    assert done.reasons == (
        f"FAILS: images_synthetic = {HELD_OUT}, must be >= 1000",
        f"passes: images_synthetic = {HELD_OUT}, must be >= 1 × baseline (limit {HELD_OUT})",
    )
    assert [path.name for path in settings.push_to.iterdir()] == [before.pushed.name]
    store = Store(settings)
    assert store.states()["RecordExampleGen"] == "CACHED"
    assert store.states()["Trainer"] == "COMPLETE"
    blessing = store.newest("ModelBlessing")
    assert sorted(path.name for path in Path(blessing.uri).iterdir()) == ["NOT_BLESSED", "verdict.json"]
    assert json.loads((Path(blessing.uri) / "verdict.json").read_text()) == {"passed": False, "reasons": list(done.reasons)}
    assert blessing.custom_properties["baseline_model_id"].int_value == baseline.id
    assert (done.evaluation / "baseline" / "metrics.json").is_file()


def test_the_log_is_read_for_loss_curves(first, settings):
    log = Path(Store(settings).newest("ModelRun").uri) / "log.csv"
    with log.open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [STEPS]


def test_what_cannot_end_well_is_refused_before_anything_runs(tmp_path):
    settings = PipelineSettings(tmp_path, tmp_path / "served")
    with pytest.raises(ConfigError, match="gate 'good'"):
        make_pipeline(config(["good"]), SOURCE, settings)
    with pytest.raises(DataError, match="'test' split is empty"):
        make_pipeline(config().replace({"data.split_fractions": [0.9, 0.1, 0.0]}), SOURCE, settings)
    with pytest.raises(DataError, match="no such folder"):
        make_pipeline(config(), f"folder:{tmp_path}/absent", settings)


KILLED = """
import sys
from pathlib import Path
from tests.tfx_pipelines.test_local import SOURCE, config, run, PipelineSettings
root = Path(sys.argv[1])
print("pushed", run(config(), SOURCE, PipelineSettings(root / "work", root / "served")).pushed, flush=True)
"""


@pytest.mark.slow
def test_a_killed_pipeline_finishes_when_it_is_run_again(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("work/runs/*/checkpoints/ckpt-2.index")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("served/*"))
    again = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    version = Path(again.stdout.splitlines()[-1].removeprefix("pushed "))
    ModelCard.read(version).verify(version)
