"""Card 29, variant: label maps by a progressive GAN, from 4×4 to the maps' size."""

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.methods.base import precision
from medsynth_tf.methods.translation.semantic_retina.config import SemanticRetinaConfig
from medsynth_tf.methods.translation.semantic_retina.label_config import ProgressiveConfig
from medsynth_tf.methods.translation.semantic_retina.label_stages import label_stages, make_label_gan
from medsynth_tf.methods.translation.semantic_retina.progressive_model import ProgressiveLabelGAN
from medsynth_tf.methods.translation.semantic_retina.progressive_networks import (
    ProgressiveLabelDiscriminator,
    ProgressiveLabelGenerator,
)
from medsynth_tf.ops import labels
from medsynth_tf.ops.resize import downsample_average
from medsynth_tf.training.trainer import train
from tests.methods.interruption import StopAfter
from tests.methods.translation.test_semantic_retina_labels import SOURCE, TINY

WIDTHS = (8, 6, 4)
TINY = {
    **TINY,
    "image_size": 32,
    "style": {"enabled": False},
    "training": {"batch_size": 2, "epochs": 1, "steps_per_epoch": 1, "strategy": "cpu", "checkpoint_steps": 1},
    "label_generator": {
        "enabled": True,
        "source": "progan",
        "size": 16,
        "doublings": 2,
        "discriminator_filters": 2,
        "steps_per_epoch": 2,
        "progressive": {"epochs": [1, 2, 2], "batch_sizes": [8, 4, 2], "filters": WIDTHS},
    },
}


def tiny(**settings):
    overrides = {f"label_generator.{name}": value for name, value in settings.items()}
    return ms.load_config("semantic_retina", overrides=TINY).replace(overrides)


def make_generator():
    """With norms and heads away from their first values, where levels and grades would look much alike."""
    generator = ProgressiveLabelGenerator(WIDTHS, 5, seed=1)
    rng = np.random.default_rng(0)
    for variable in generator.trainable_variables:
        variable.assign(variable + 0.3 * rng.normal(size=variable.shape))
    return generator


def inputs(count=4, grade=None):
    latent = tf.random.stateless_normal([count, 128], [0, 1])
    return {"latent": latent, "grade": tf.range(count) if grade is None else tf.fill([count], grade)}


def enlarged(maps):
    return np.asarray(maps).repeat(2, 1).repeat(2, 2)


def batch(count=4, size=16):
    maps = np.random.default_rng(1).integers(8, size=[count, size, size]).astype(np.uint8)
    return {"label_map": tf.constant(maps), "grade": tf.range(count) % 5, "seed": tf.range(count, dtype=tf.int64)}


# -- networks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_probabilities_sum_to_one_at_each_level_and_alpha(training):
    generator = make_generator()
    for level in range(3):
        for alpha in (None, 0.0, 0.3, 1.0):
            maps = generator(inputs(), level=level, alpha=alpha, training=training).numpy()
            assert maps.shape == (4, 4 * 2**level, 4 * 2**level, 5)
            assert maps.min() >= 0.0
            np.testing.assert_allclose(maps.sum(-1), 1.0, atol=1e-5)
            assert maps.std() > 0.01


def test_alpha_goes_from_the_previous_level_enlarged_to_the_levels_own_head():
    generator = make_generator()
    for level in (1, 2):
        for training in (False, True):
            previous = enlarged(generator(inputs(), level=level - 1, training=training))
            ends = [generator(inputs(), level=level, alpha=alpha, training=training).numpy() for alpha in (0.0, 1.0)]
            np.testing.assert_array_equal(ends[0], previous)
            assert np.abs(ends[1] - previous).max() > 0.01
            half = generator(inputs(), level=level, alpha=0.25, training=training)
            np.testing.assert_allclose(half, 0.75 * ends[0] + 0.25 * ends[1], atol=1e-6)
        own = generator(inputs(), level=level)
        head = generator.heads[level - 1].kernel
        head.assign(head + 1.0)
        np.testing.assert_array_equal(generator(inputs(), level=level, alpha=1.0), own)
        assert np.abs(generator(inputs(), level=level, alpha=0.0) - previous).max() > 0.0


def test_the_grade_changes_a_map_of_the_same_latent_and_only_its_norms_learn():
    generator = make_generator()
    maps = [generator(inputs(grade=grade), level=2) for grade in (0, 1)]
    assert float(tf.reduce_max(tf.abs(maps[0] - maps[1]))) > 0.01
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(generator(inputs(grade=3), level=2, alpha=0.5, training=True) * tf.range(5.0))
    norms = [norm for block in generator.blocks for norm in block.norms]
    assert len(norms) == 5
    gradients = tape.gradient(loss, [table for norm in norms for table in (norm.gamma, norm.beta)])
    for gradient in gradients:
        moved = np.abs(tf.convert_to_tensor(gradient)).max(-1) > 0
        np.testing.assert_array_equal(moved, [False, False, False, True, False])


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_discriminator_goes_from_the_previous_level_on_pooled_planes_to_its_own(spectral_norm):
    discriminator = ProgressiveLabelDiscriminator(3, 5, filters=2, spectral_norm=spectral_norm, seed=2)
    planes = tf.nn.softmax(tf.random.stateless_normal([4, 16, 16, 5], [3, 4]))
    pooled = downsample_average(planes, 2)
    np.testing.assert_allclose(pooled, planes.numpy().reshape(4, 8, 2, 8, 2, 5).mean((2, 4)), atol=1e-6)
    old, new = discriminator(pooled, level=1), discriminator(planes, level=2)
    assert old["grade"].shape == [4, 5]
    for name in ("score", "grade"):
        np.testing.assert_array_equal(discriminator(planes, level=2, alpha=0.0)[name], old[name])
        np.testing.assert_array_equal(discriminator(planes, level=2, alpha=1.0)[name], new[name])
        assert np.abs(new[name] - old[name]).max() > 1e-6
    assert [tuple(entry.kernel.shape[-2:]) for entry in discriminator.entries] == [(5, 8), (5, 4), (5, 2)]


def test_gradients_reach_a_level_and_those_below_it():
    generator, discriminator = make_generator(), ProgressiveLabelDiscriminator(3, 5, filters=2)
    for level in range(3):
        with tf.GradientTape(persistent=True) as tape:
            maps = generator(inputs(), level=level, alpha=0.5, training=True)
            answer = discriminator(maps, level=level, alpha=0.5, training=True)
            loss = tf.reduce_sum(answer["score"] ** 2) + tf.reduce_sum(answer["grade"] ** 2)
        for network in (generator, discriminator):
            gradients = tape.gradient(loss, network.trainable_variables)
            reached = {v.ref() for v, gradient in zip(network.trainable_variables, gradients) if gradient is not None}
            assert reached == {variable.ref() for variable in network.variables_of(level)}
    assert {v.ref() for v in generator.variables_of(2)} == {v.ref() for v in generator.trainable_variables} - {
        v.ref() for v in generator.heads[0].trainable_variables
    }


# -- training ---------------------------------------------------------------------------------------------------------------


def test_there_is_a_stage_for_each_resolution():
    model = ms.create("semantic_retina", tiny())
    model.compile()
    stages = model.stages(ms.open_source(SOURCE))
    assert [stage.name for stage in stages] == ["labels_4", "labels_8", "labels_16", "translation"]
    assert [stage.epochs for stage in stages] == [1, 2, 2, 1]
    assert [stage.steps_per_epoch for stage in stages[:3]] == [2, 2, 2]
    batches = [next(iter(stage.batches(0))) for stage in stages[:3]]
    assert [tuple(batch["label_map"].shape) for batch in batches] == [(8, 16, 16), (4, 16, 16), (2, 16, 16)]
    assert [int(level.fade_steps) for level in model.label_gan.levels] == [0, 2, 2]


def test_an_epoch_is_one_pass_and_the_whole_of_a_stage_may_fade():
    source = ms.open_source(SOURCE)
    config = tiny(steps_per_epoch=None, **{"progressive.fade_share": 1.0})
    label_gan = ProgressiveLabelGAN(config)
    stages = label_stages(label_gan, source, preview=lambda batch, model: {})
    available = len(source.split("train", config.data.split_fractions, 0))
    assert [stage.steps_per_epoch for stage in stages] == [available // 8, available // 4, available // 2]
    assert [int(level.fade_steps) for level in label_gan.levels] == [0, *(stage.steps for stage in stages[1:])]
    big = ProgressiveLabelGAN(tiny(**{"progressive.batch_sizes": [8, 64, 2]}))
    with pytest.raises(DataError, match=r"less than one batch \(label_generator.progressive.batch_sizes\[1\] = 64\)"):
        label_stages(big, source, preview=lambda batch, model: {})


def test_alpha_rises_over_its_share_of_a_stage_and_stays():
    levels = ProgressiveLabelGAN(tiny()).levels
    for level, expected in ((levels[0], [1.0] * 12), (levels[1], [0.0, 0.2, 0.4, 0.6, 0.8, *[1.0] * 7])):
        assert float(level.alpha()) == 1.0
        level.plan(10)
        seen = []
        for _ in range(12):
            seen.append(float(level.alpha()))
            level.step.assign_add(1)
        np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_a_level_trains_only_what_is_its_own_in_one_graph_and_moves_its_alpha():
    model = ProgressiveLabelGAN(tiny(**{"generator_steps": 2, "discriminator_steps": 1}))
    model.compile()
    level = model.levels[1]
    level.plan(8)
    before = {v.ref(): v.numpy() for v in model.trainable_variables}
    data = tf.data.Dataset.from_tensors(batch()).repeat()
    history = level.fit(data, epochs=3, steps_per_epoch=1, verbose=0).history
    np.testing.assert_allclose(history["alpha"], [0.0, 0.25, 0.5])
    assert int(level.step) == 3
    assert int(level.generator_optimizer.iterations) == 6
    assert int(level.discriminator_optimizer.iterations) == 3
    assert level.train_tf_function.experimental_get_tracing_count() == 1
    trained = {v.ref() for v in (*model.generator.variables_of(1), *model.discriminator.variables_of(1))}
    moved = {ref for ref, value in before.items() if not np.array_equal(ref.deref(), value)}
    # hinge losses of real and fake pull the score's bias equally to either side while no score is beyond 1
    assert trained - moved <= {model.discriminator.score.bias.ref()}
    assert moved <= trained
    assert int(model.levels[2].step) == 0


@pytest.mark.parametrize("source", ["acgan", "progan"])
def test_half_precision_trains(source):
    config = tiny().replace({"training.mixed_precision": "float16"})
    if source == "acgan":
        values = config.to_dict()
        values["label_generator"] |= {"source": source, "progressive": ProgressiveConfig().to_dict()}
        config = SemanticRetinaConfig.from_dict(values)
    with precision(config):
        label_gan = make_label_gan(config)
        label_gan.compile()
    model = label_gan.levels[1] if source == "progan" else label_gan
    losses = model.train_step(batch())
    assert all(np.isfinite(float(loss)) for loss in losses.values())


def test_real_maps_are_shares_of_the_area_and_fade_as_generated_ones():
    level = ProgressiveLabelGAN(tiny()).levels[1]
    maps = batch()["label_map"]
    shares = labels.one_hot(maps, 9).numpy().reshape(4, 8, 2, 8, 2, 9).mean((2, 4))
    np.testing.assert_allclose(level.real_planes(maps), shares, atol=1e-6)
    coarse = enlarged(shares.reshape(4, 4, 2, 4, 2, 9).mean((2, 4)))
    level.plan(8)
    np.testing.assert_allclose(level.real_planes(maps), coarse, atol=1e-6)
    level.step.assign(1)
    mixed = level.real_planes(maps).numpy()
    np.testing.assert_allclose(mixed, 0.75 * coarse + 0.25 * shares, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(-1), 1.0, atol=1e-6)


def test_learning_rates_fall_in_the_last_stage_alone():
    model = ProgressiveLabelGAN(tiny(decay_epochs=1, generator_learning_rate=4e-4))
    model.compile()
    stages = label_stages(model, ms.open_source(SOURCE), preview=lambda batch, model: {})
    assert [len(stage.callbacks) for stage in stages] == [0, 0, 1]
    rates = []
    for epoch in range(2):
        stages[2].callbacks[0].on_epoch_begin(epoch)
        rates.append(float(model.levels[2].generator_optimizer.learning_rate))
    np.testing.assert_allclose(rates, [4e-4, 2e-4])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = train(tiny(), ms.open_source(SOURCE), tmp_path_factory.mktemp("progressive") / "run", progress=False)
    assert run.finished
    return run


def check_that_it_samples_exports_answers_and_loads(trained, folder):
    """Of a run whose label maps come from networks that grow."""
    label_gan = trained.model.label_gan
    assert [int(level.step) for level in label_gan.levels] == [2, 4, 4]
    pictures = {path.name.rpartition("-")[0] for path in (trained.folder / "pictures").iterdir()}
    assert pictures == {"labels_4", "labels_8", "labels_16", "translation"}
    grade, seed = tf.constant([0, 4, 4]), tf.constant([7, 7, 8], tf.int64)
    soft = label_gan({"grade": grade, "seed": seed})
    assert soft.shape == [3, 16, 16, 9]
    np.testing.assert_array_equal(soft, label_gan.levels[-1]({"grade": grade, "seed": seed}))  # α is 1 at the end
    version = ms.export(trained.model, folder / "served")
    served = tf.saved_model.load(str(version)).signatures["generate"]
    answer = served(grade=grade, seed=seed)
    np.testing.assert_array_equal(answer["label_map"], trained.model.sample_labels(grade, seed))
    assert answer["image"].shape == [3, 32, 32, 3]
    alone = served(grade=grade[1:2], seed=seed[1:2])
    np.testing.assert_array_equal(alone["label_map"][0], answer["label_map"][1])
    again = ms.load(trained.folder / "model")
    np.testing.assert_array_equal(again.label_gan({"grade": grade, "seed": seed}), soft)
    return again


def test_it_trains_exports_answers_and_loads(trained, tmp_path):
    check_that_it_samples_exports_answers_and_loads(trained, tmp_path)


@pytest.mark.slow
def test_a_run_broken_off_while_a_level_fades_in_ends_with_the_same_weights(trained, tmp_path):
    source = ms.open_source(SOURCE)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), source, tmp_path / "run", progress=False, callbacks=[StopAfter(3)])  # the first of labels_8
    saved = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    assert saved.endswith("-1000000001")  # stage 1, step 1
    resumed = train(tiny(), source, tmp_path / "run", progress=False)
    assert resumed.finished
    for one, other in zip(trained.model.label_gan.variables, resumed.model.label_gan.variables):
        np.testing.assert_array_equal(one, other, err_msg=one.name)


# -- settings ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 32}, r"label_generator.size = 32, doublings = 2: .* 4 · 2\^doublings = 16"),
        ({"progressive.epochs": [1, 2]}, r"progressive.epochs = \(1, 2\): size 16 needs 3 values"),
        ({"progressive.batch_sizes": [4]}, r"progressive.batch_sizes = \(4,\): size 16 needs 3 values"),
        ({"progressive.filters": [4, 4]}, r"progressive.filters = \(4, 4\): size 16 needs 3 values"),
        ({"progressive.fade_share": 1.5}, "fade_share"),
        ({"decay_epochs": 3}, r"decay_epochs = 3: more than label_generator.progressive.epochs\[2\] = 2"),
        ({"conditioning": "concat"}, "conditioning = 'concat': changes nothing with source 'progan'"),
        ({"batch_size": 8}, "batch_size = 8: changes nothing .* progressive.batch_sizes"),
        ({"epochs": 8}, "epochs = 8: changes nothing .* progressive.epochs"),
        ({"source": "acgan"}, "label_generator.progressive: changes nothing while label_generator.source = 'acgan'"),
        ({"source": "dcgan"}, "expected one of 'acgan', 'progan', 'stylegan'"),
    ],
)
def test_settings_that_cannot_be_or_would_change_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**settings)


def test_widths_have_a_cap_and_the_papers_size_has_seven_levels():
    model = ProgressiveLabelGAN(tiny(generator_filters=5))
    assert model.generator.filters == (5, 5, 4)
    paper = ms.load_config("semantic_retina", "paper", {"label_generator.source": "progan"}).label_generator
    assert (paper.levels, paper.size) == (7, 4 * 2**6)
    assert len(paper.progressive.epochs) == 8
