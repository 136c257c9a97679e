"""tvps as it is served, in other precisions, and on two replicas."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from tests.methods.augmentation.test_tvps import images, make
from tests.methods.augmentation.test_tvps_training import VESSEL

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def served():
    model = make()
    return model, model.signatures()


def fill_request(batch):
    mask = np.ones([batch, 16, 16], np.uint8)
    mask[:, 4:12, 4:12] = 0
    request = {name: value for name, value in images(batch).items() if name != "label"}
    return {**request, "mask": tf.constant(mask), "component": tf.fill([batch], tf.constant(-1, tf.int64))}


def test_every_signature_answers_its_example(served, tmp_path):
    model, signatures = served
    exported = tf.saved_model.load(str(ms.export(model, tmp_path / "served"))).signatures
    assert set(signatures) == set(exported) == {"serving_default", "fill", "most_likely", "classify"}
    for name, example in model.example_inputs().items():
        answer = exported[name](**{key: tf.constant(value) for key, value in example.items()})
        if name == "classify":
            np.testing.assert_allclose(tf.reduce_sum(answer["probabilities"], -1), [1.0], rtol=1e-5)
            assert answer["label"].dtype == tf.int64
        else:
            assert answer["image"].shape == [1, 16, 16, 1]
            assert set(np.unique(answer["mask"])) == {0, 1}
            kept = answer["mask"].numpy() == 1
            np.testing.assert_array_equal(answer["image"].numpy()[kept], example["image"][kept])


def test_seeds_and_components_decide_the_answer(served):
    _, signatures = served
    request = fill_request(3)
    first = signatures["fill"](**request)
    np.testing.assert_array_equal(signatures["fill"](**request)["image"], first["image"])
    np.testing.assert_array_equal(first["mask"], request["mask"])
    other = signatures["fill"](**{**request, "seed": request["seed"] + 2**40})
    assert not np.array_equal(other["image"], first["image"])
    forced = [signatures["fill"](**{**request, "component": tf.fill([3], tf.constant(k, tf.int64))})["image"] for k in range(3)]
    assert not np.array_equal(forced[0], forced[1])
    matches = [[np.array_equal(forced[k][i], first["image"][i]) for k in range(3)] for i in range(3)]
    assert [sum(row) for row in matches] == [1, 1, 1]  # what was drawn is one of them
    likely = [signatures["most_likely"](image=request["image"], seed=request["seed"])["image"] for _ in range(2)]
    np.testing.assert_array_equal(*likely)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": 2}, r"values must be 0"),
        ({"component": 3}, r"-1 \(drawn\) or 0 … 2"),
        ({"component": -2}, r"-1 \(drawn\) or 0 … 2"),
        ({"seed": None}, "image and seed differ"),
        ({"image": None}, "the batch is empty"),
    ],
)
def test_unsafe_requests_are_refused_in_words(served, change, message):
    request = fill_request(2)
    for name, value in change.items():
        empty = request[name][: 0 if name == "image" else 1]
        request[name] = empty if value is None else tf.fill(request[name].shape, tf.constant(value, request[name].dtype))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served[1]["fill"](**request)


def test_maps_from_masks_are_an_input_of_their_own(tmp_path):
    model = make(**VESSEL)
    exported = tf.saved_model.load(str(ms.export(model, tmp_path / "served"))).signatures
    inputs = set(exported["serving_default"].structured_input_signature[1])
    assert inputs == {"image", "seed", "vessels"}
    assert set(exported["classify"].structured_input_signature[1]) == {"image"}
    batch = next(iter(model.dataset(ms.open_source("phantom:vessel_classes?count=20&size=24"), model.config, "val")))
    found = [
        exported["serving_default"](image=batch["image"], seed=batch["seed"], vessels=vessels)["image"].numpy()
        for vessels in (batch["vessels"], tf.zeros_like(batch["vessels"]))
    ]
    assert not np.array_equal(*found)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_keeps_the_latent_and_the_losses_in_float32(precision):
    model = make(**{"training.mixed_precision": precision, "losses.warm_up": 0.0})
    model.compile()
    logs = model.train_step(images(4))
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert {v.dtype for v in model.trainable_variables} == {tf.float32}
    assert model.encoder.blocks[0].convolutions[0].compute_dtype == precision
    made = model.generate(model.maps_of(images(2)), tf.ones([2, 16, 16, 1]), tf.range(2, dtype=tf.int64))
    assert {made.raw.dtype, made.mixture.mean.dtype, made.kl.dtype} == {tf.float32}


WORKER = """
import json, sys
import tensorflow as tf
replicas = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
from medsynth_tf.data.open import open_source
from medsynth_tf.training.trainer import train
from tests.methods.augmentation.test_tvps import tiny
class Steps(tf.keras.callbacks.Callback):
    losses = []
    def on_train_batch_end(self, batch, logs=None):
        self.losses.append({name: float(value) for name, value in logs.items()})
strategy = "mirrored" if replicas > 1 else "one_device"
config = tiny(**{"training.strategy": strategy, "training.batch_size": 8, "training.epochs": 1, "training.steps_per_epoch": 4,
                 "training.ema_decay": 0.9, "losses.warm_up": 0.25, "optimiser.learning_rate": 1e-4})
train(config, open_source("phantom:vessel_classes?count=24&size=16"), sys.argv[2], progress=False, callbacks=[steps := Steps()])
print(json.dumps(steps.losses))
"""


@pytest.mark.slow
def test_two_replicas_compute_what_one_device_does(tmp_path):
    outcomes = []
    for replicas in (1, 2):
        command = [sys.executable, "-c", WORKER, str(replicas), str(tmp_path / str(replicas))]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        losses = json.loads(done.stdout.strip().splitlines()[-1])
        # a ratio of norms over a replica's own samples is no mean over samples, so it is not the same number
        names = sorted(set(losses[0]) - {"task_gradient_ratio", "reconstruction_hole", "reconstruction_context"})
        outcomes.append(np.array([[step[name] for name in names] for step in losses]))
    np.testing.assert_allclose(outcomes[1], outcomes[0], atol=2e-3)


@pytest.mark.slow
def test_the_papers_configuration_builds_at_full_size():
    model = ms.create("tvps", ms.load_config("tvps", "paper"))
    parameters = {name: getattr(model, name).count_params() for name in ("encoder", "decoder", "classifier")}
    assert parameters["encoder"] > 131072 * 256
    assert parameters["decoder"] > 131072 * 65
    assert 58_000_000 < parameters["classifier"] < 60_000_000  # ResNet152's 58.4 million and the head
    assert model.translator.to_image.count_params() == 11_378_179
    assert set(model.signatures()) == {"serving_default", "fill", "most_likely", "classify"}
    assert model.signatures()["serving_default"].input_signature[0].shape == [None, 512, 512, 3]
