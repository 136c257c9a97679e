"""What every registered method must do, whatever it is."""

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from tests.methods.tiny import TINY

SLUGS = [info.slug for info in ms.list_methods()]


@pytest.fixture(scope="module", params=SLUGS)
def trained(request):
    overrides, source = TINY[request.param]
    config = ms.load_config(request.param, overrides=overrides)
    model = ms.create(request.param, config)
    split = config.replace({"data": {"split_fractions": [0.6, 0.2, 0.2]}})
    train, validation = ms.load_data(request.param, split, source)
    model.compile()
    if hasattr(model, "cluster"):  # this one learns the clusters that it finds
        model.cluster(ms.open_source(source))
    model.fit(train, validation_data=validation, epochs=1, steps_per_epoch=2, verbose=0)
    return model


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return ms.export(trained, tmp_path_factory.mktemp("served") / "model")


def request_of(model, batch):
    one = model.example_inputs()["serving_default"]
    repeated = {name: np.repeat(value, batch, axis=0) for name, value in one.items()}
    if "seed" in repeated:
        repeated["seed"] = np.arange(batch, dtype=np.int64) * 2**33 + 7
    return repeated


def test_saving_and_loading_keeps_weights_optimisers_and_averages(trained, tmp_path):
    trained.save(tmp_path / "model")
    trained.save(tmp_path / "model")  # a second time replaces the first
    restored = ms.load(tmp_path / "model")
    assert restored.config == trained.config
    before, after = (tf.train.Checkpoint(model=m).write(str(tmp_path / n)) for m, n in ((trained, "a"), (restored, "b")))
    first, second = tf.train.load_checkpoint(before), tf.train.load_checkpoint(after)
    names = [name for name in first.get_variable_to_shape_map() if name.startswith("model/")]
    assert len(names) > 50
    for name in names:
        np.testing.assert_array_equal(first.get_tensor(name), second.get_tensor(name), err_msg=name)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    with pytest.raises(DataError, match="not a saved method"):
        ms.load(tmp_path)
    with pytest.raises(DataError, match="choose another name"):
        trained.save(tmp_path)


def test_what_was_frozen_when_it_was_saved_is_frozen_when_it_is_loaded(trained, tmp_path):
    model = ms.create(trained.config.slug, trained.config)

    def parts(model):
        return [part for part in model._flatten_layers(include_self=False) if isinstance(part, tf.keras.Model)]

    frozen = next(i for i, part in enumerate(parts(model)) if part.trainable_variables)
    parts(model)[frozen].trainable = False
    model.compile()
    model.save(tmp_path / "model")
    restored = ms.load(tmp_path / "model")
    learning = [[len(part.trainable_variables) for part in parts(each)] for each in (model, restored)]
    assert learning[0] == learning[1]
    assert learning[0][frozen] == 0


def test_the_train_step_is_one_graph_traced_once(trained):
    assert trained.train_function.experimental_get_tracing_count() == 1
    # nothing in it leaves the graph for Python
    operations = {
        op.type for op in trained.train_function._list_all_concrete_functions_for_serialization()[0].graph.get_operations()
    }
    assert not operations & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}


def test_the_configuration_round_trips_through_keras(trained):
    again = type(trained).from_config(trained.get_config())
    assert again.config == trained.config


def test_the_export_answers_as_the_model_does(trained, exported):
    inputs = request_of(trained, 3)
    loaded = tf.saved_model.load(str(exported)).signatures["serving_default"]
    with trained.averaged_weights():
        expected = trained.signatures()["serving_default"](**{k: tf.constant(v) for k, v in inputs.items()})
    answer = loaded(**{k: tf.constant(v) for k, v in inputs.items()})
    for name, value in expected.items():
        np.testing.assert_array_equal(answer[name], value)


def test_the_export_holds_the_averaged_weights_and_leaves_the_model_as_it_was(trained, tmp_path):
    if trained.average is None:
        pytest.skip("this method keeps no average")
    before = [v.numpy() for v in trained.variables]
    version = ms.export(trained, tmp_path / "served")
    assert all(np.array_equal(v, b) for v, b in zip(trained.variables, before))
    weight, average = trained.average._followed[0], trained.average.averages[0]
    assert not np.array_equal(weight, average)
    stored = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    arrays = [stored.get_tensor(name) for name in stored.get_variable_to_shape_map() if "used_variables" in name]
    assert any(np.array_equal(array, average) for array in arrays)
    assert not any(np.array_equal(array, weight) for array in arrays)


def test_batching_and_repetition_change_nothing(trained, exported):
    loaded = tf.saved_model.load(str(exported)).signatures["serving_default"]
    inputs = {k: tf.constant(v) for k, v in request_of(trained, 5).items()}
    together = loaded(**inputs)
    again = loaded(**inputs)
    for i in range(5):
        alone = loaded(**{name: value[i : i + 1] for name, value in inputs.items()})
        for name, value in together.items():
            np.testing.assert_array_equal(value, again[name])
            difference = np.abs(np.asarray(value[i], np.float64) - np.asarray(alone[name][0], np.float64))
            assert difference.max() <= 1  # of 255: one rounding step, where the kernels add up in another order


def test_an_empty_batch_is_refused_in_words(trained, exported):
    loaded = tf.saved_model.load(str(exported)).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="the batch is empty"):
        loaded(**{k: tf.constant(v[:0]) for k, v in request_of(trained, 1).items()})


def test_semantic_retina_refuses_codes_it_does_not_know_and_uneven_batches():
    overrides, _ = TINY["semantic_retina"]
    model = ms.create("semantic_retina", ms.load_config("semantic_retina", overrides=overrides))
    signature = model.signatures()["serving_default"]
    maps = tf.zeros([2, 32, 32], tf.uint8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in batch size"):
        signature(label_map=maps, seed=tf.constant([1], tf.int64))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"0 … 2 or 255"):
        signature(label_map=maps + 3, seed=tf.constant([1, 2], tf.int64))


def test_semantic_retina_without_style_or_average(tmp_path):
    overrides, source = TINY["semantic_retina"]
    config = ms.load_config(
        "semantic_retina",
        overrides={
            **overrides,
            "style.enabled": False,
            "training.ema_decay": None,
            "instance_label": "vessel",
            "generator.norm": "instance",
        },
    )
    model = ms.create("semantic_retina", config)
    assert model.plane_channels == 5
    train, _ = ms.load_data("semantic_retina", config.replace({"data.split_fractions": [0.6, 0.2, 0.2]}), source)
    model.compile()
    history = model.fit(train, epochs=1, steps_per_epoch=2, verbose=0).history
    assert set(history) == {"generator", "discriminator", "feature_matching", "l1"}
    assert set(model.signatures()) == {"serving_default"}


def test_gradients_reach_their_own_player_only():
    overrides, source = TINY["semantic_retina"]
    config = ms.load_config("semantic_retina", overrides=overrides)
    model = ms.create("semantic_retina", config)
    batch = next(iter(model.dataset(ms.open_source(source), config, "train")))
    for moving, moved, kept in (
        ("generator_optimizer", model.generator_variables, model.discriminator.trainable_variables),
        ("discriminator_optimizer", model.discriminator.trainable_variables, model.generator_variables),
    ):
        names = ("generator_optimizer", "discriminator_optimizer")
        model.compile(**{name: tf.keras.optimizers.SGD(1.0 if name == moving else 0.0) for name in names})
        before = [[v.numpy() for v in variables] for variables in (moved, kept)]
        model.train_step(batch)
        changed = [[not np.array_equal(v, b) for v, b in zip(vs, old)] for vs, old in zip((moved, kept), before)]
        assert np.mean(changed[0]) > 0.95, "nearly all of the player's own variables move"
        assert not any(changed[1])
