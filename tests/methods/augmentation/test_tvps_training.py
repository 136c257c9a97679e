"""Card 28: who learns in which step, the online loop, the translator's stage, the data."""

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.source import RecordKey
from medsynth_tf.layers.replay_buffer import ReplayBuffer
from medsynth_tf.losses.adversarial import logistic_generator
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.augmentation.tvps.data import balanced, batches, translation_batches
from medsynth_tf.methods.augmentation.tvps.synthesis import Holes, draw_holes
from medsynth_tf.methods.augmentation.tvps.translator import CycleTranslator, IdentityTranslator
from medsynth_tf.methods.schedules import CosineDecay
from medsynth_tf.networks.resnet_translator import PatchScorer, ResNetTranslator
from medsynth_tf.networks.unet import UNet2D
from tests.methods.augmentation.test_tvps import images, make, tiny

VESSEL = {
    "domain": "vessel",
    "channels": 3,
    "translator.filters": 2,
    "translator.blocks": 1,
    "translator.epochs": 2,
    "translator.decay_epochs": 1,
    "translator.buffer": 3,
    "vessels.source": "mask",
    "image_size": 24,
}
SOURCE = "phantom:vessel_classes?count=20&size=16"
LARGER = "phantom:vessel_classes?count=20&size=24"


def values(variables):
    return [v.numpy() for v in variables]


def moved(variables, before):
    return [not np.array_equal(v, old) for v, old in zip(variables, before)]


def rates(**chosen):
    """Optimisers of which only the named ones move anything."""
    names = ("generator", "discriminator", "classifier")
    return {f"{name}_optimizer": tf.keras.optimizers.SGD(chosen.get(name, 0.0)) for name in names}


# -- M8 ---------------------------------------------------------------------------------------------------------------------


def test_m8_the_task_moves_the_generator_and_not_the_classifier():
    # all other losses are off, so that what moves is moved by the task alone
    off = {"losses.reconstruction": 0.0, "losses.kl": 0.0, "losses.adversarial": 0.0, "losses.warm_up": 0.0}
    model = make(**off, **{"masks.feather": 0.0, "generator.variational": True})
    model.compile(**{name: o for name, o in rates(generator=1.0).items() if name != "discriminator_optimizer"})
    before = values(model.generator_variables), values(model.classifier.trainable_variables)
    model.train_step(images(4))
    assert np.mean(moved(model.generator_variables, before[0])) > 0.8
    assert not any(moved(model.classifier.trainable_variables, before[1]))


def test_m8_batch_statistics_of_the_classifier_are_left_alone_in_the_generator_step():
    model = make(**{"losses.warm_up": 0.0})
    model.compile()
    batch = images(4)
    maps, classifier = model.maps_of(batch), values(model.classifier.variables)
    keep = tf.concat([tf.zeros([4, 8, 16, 1]), tf.ones([4, 8, 16, 1])], 1)
    with tf.GradientTape() as tape:
        made = model.generate(maps, keep, batch["seed"], training=True)
    gradient, _, _, measured = model.output_gradients(
        batch["image"], batch["label"], maps, made.raw, Holes(keep, keep), tf.constant(1.0)
    )
    through = tape.gradient(made.raw, model.generator_variables, output_gradients=gradient, unconnected_gradients="zero")
    assert np.mean([np.abs(g).max() > 0 for g in through]) > 0.8
    assert float(measured["task"]) > 0
    assert float(measured["task_gradient_ratio"]) > 0
    assert not any(moved(model.classifier.variables, classifier)), "neither weights nor moving statistics"


def test_m8_the_classifier_step_moves_the_classifier_and_its_statistics_alone():
    model = make(**{"losses.warm_up": 0.0})
    model.compile(**rates(classifier=1.0))
    before = (
        values(model.generator_variables),
        values(model.discriminator.trainable_variables),
        values(model.classifier.variables),
    )
    model.train_step(images(4))
    assert not any(moved(model.generator_variables, before[0]))
    assert not any(moved(model.discriminator.trainable_variables, before[1]))
    assert all(moved(model.classifier.variables, before[2]))  # moving statistics among them


def test_m8_no_loss_on_compositions_no_gradient_from_them():
    found = []
    for synthetic, warm_up in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0)):  # in the warm-up λ_syn is 0
        model = make(**{"losses.synthetic": synthetic, "losses.warm_up": warm_up})
        model.compile(**rates(classifier=1.0))
        model.train_step(images(4))
        found.append(values(model.classifier.trainable_variables))
    assert all(np.array_equal(a, b) for a, b in zip(found[0], found[1]))
    assert not all(np.array_equal(a, b) for a, b in zip(found[0], found[2]))


def test_m8_the_sign_of_guidance_turns_its_gradient_round():
    directions = []
    for sign in (1, -1):
        off = {"losses.reconstruction": 0.0, "losses.kl": 0.0, "losses.adversarial": 0.0, "losses.warm_up": 0.0}
        model = make(**off, **{"losses.task_sign": sign, "masks.feather": 0.0})
        model.compile(**{name: o for name, o in rates(generator=1.0).items() if name != "discriminator_optimizer"})
        before = values(model.generator_variables)
        model.train_step(images(4))
        directions.append(np.concatenate([(v - b).numpy().ravel() for v, b in zip(model.generator_variables, before)]))
    np.testing.assert_allclose(directions[0], -directions[1], rtol=1e-3, atol=1e-7)
    assert np.abs(directions[0]).max() > 0


def test_the_gradient_at_the_output_is_the_gradient_of_the_sum():
    """Differentiating each loss at the decoder's output gives what one tape over everything gives."""
    model = make(**{"losses.warm_up": 0.0, "losses.kl_ramp": 0.0, "losses.kl": 0.1})
    batch = images(4)
    model.compile(**rates(generator=1.0))
    own, maps = model.config.losses, model.maps_of(batch)
    holes = draw_holes(model.config.masks, batch["image"], batch["seed"])
    with tf.GradientTape() as tape:
        made = model.generate(maps, holes.visible, batch["seed"], training=True)
        finished = model.finish_map(made.raw, maps, holes.keep)
        composition, _ = model.compose(batch["image"], finished, holes.keep)
        loss = own.reconstruction * model.reconstruction(made.raw, maps, holes.visible)["loss"] + own.kl * made.kl
        loss += own.adversarial * logistic_generator(model.discriminator(model.judged(finished, holes.keep), training=True))
        loss += own.task * cross_entropy(model.classifier(composition)["logits"], batch["label"])
    expected = tape.gradient(loss, model.generator_variables, unconnected_gradients="zero")
    fresh = make(**{"losses.warm_up": 0.0, "losses.kl_ramp": 0.0, "losses.kl": 0.1})
    fresh.compile(**rates(generator=1.0))
    before = values(fresh.generator_variables)
    fresh.train_step(batch)
    for variable, old, gradient in zip(fresh.generator_variables, before, expected):
        np.testing.assert_allclose(variable - old, -gradient, rtol=2e-3, atol=2e-6)


# -- M9, M11 ----------------------------------------------------------------------------------------------------------------


def test_m9_usage_of_components_is_logged():
    model = make(**{"generator.components": 3})
    model.compile()
    logs = model.train_step(images(4))
    usage = [float(logs[f"component_{k}"]) for k in range(3)]
    assert sum(usage) == pytest.approx(1.0)
    assert all(share in (0.0, 0.25, 0.5, 0.75, 1.0) for share in usage)  # of four images
    assert {"kl_component", "kl_gaussian", "reconstruction_hole", "discriminator_accuracy", "task_gradient_ratio"} <= set(logs)


def test_m11_one_compiled_step_moves_all_three_and_stores_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = make(**{"losses.warm_up": 0.25, "training.epochs": 4, "training.steps_per_epoch": 2})
    model.compile()
    train, _ = ms.load_data("tvps", model.config, SOURCE)
    parts = [model.generator_variables, model.discriminator.trainable_variables, model.classifier.trainable_variables]
    before = [values(part) for part in parts]
    step = tf.function(model.train_step)
    for batch in train.take(3):
        step(batch)
    assert step.experimental_get_tracing_count() == 1
    assert [np.mean(moved(part, old)) > 0.95 for part, old in zip(parts, before)] == [True] * 3
    assert list(tmp_path.iterdir()) == []


def test_m11_warm_up_and_ramp_go_by_shares_of_all_steps():
    model = make(**{"training.epochs": 10, "training.steps_per_epoch": 10, "losses.warm_up": 0.1, "losses.kl_ramp": 0.2})
    model.compile()
    for step, expected in ((0, (0.0, 0.0)), (9, (0.45, 0.0)), (10, (0.5, 1.0)), (50, (1.0, 1.0))):
        model.classifier_optimizer.iterations.assign(step)
        np.testing.assert_allclose(model.schedule(), expected, rtol=1e-5)
    source = ms.open_source(SOURCE)
    (stage,) = model.stages(source)
    model.total_steps.assign(1)
    stage.begin()
    assert int(model.total_steps) == stage.steps == 100


def test_m11_cosine_schedule_of_sgd():
    model = make(**{"classifier.optimiser": "sgd", "classifier.learning_rate": 0.1, "classifier.momentum": 0.7})
    model.compile()
    assert model.classifier_optimizer.momentum == 0.7
    (callback,) = model.stages(ms.open_source(SOURCE))[-1].callbacks
    assert isinstance(callback, CosineDecay)
    callback.epochs = 4
    for epoch, factor in ((0, 1.0), (2, 0.5), (3, 0.5 - 0.5 / 2**0.5)):
        callback.on_epoch_begin(epoch)
        assert float(model.classifier_optimizer.learning_rate) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize(
    ("overrides", "absent"),
    [
        ({"losses.adversarial": 0.0}, "discriminator"),
        ({"losses.task": 0.0}, "task"),
        ({"generator.variational": False}, "kl_gaussian"),
        ({"generator.shortcuts": False, "masks.extent": "whole_seen"}, ""),
        ({"masks.extent": "whole", "generator.components": 1}, ""),
        ({"generator.posterior": "xy", "discriminator.scope": "full"}, ""),
        ({"losses.kl_reduction": "reference", "generator.norm": "group", "generator.gumbel_input": "reference"}, ""),
        ({"masks.recipe": "strokes", "generator.depth": 2, "training.ema_decay": 0.5}, ""),
    ],
)
def test_variants_train_and_each_changes_the_outcome(overrides, absent):
    model = make(**overrides)
    model.compile()
    before = values(model.generator_variables)
    logs = {name: float(value) for name, value in model.train_step(images(4)).items()}
    assert all(np.isfinite(value) for value in logs.values())
    assert absent not in logs
    # of a map of which nothing is seen, kernels get no gradient
    assert np.mean(moved(model.generator_variables, before)) > (0.4 if model.config.masks.extent == "whole" else 0.7)
    made = model.synthesize(images(4))
    expected = {"whole": 0.0, "whole_seen": 0.0}.get(model.config.masks.extent)
    assert expected is None or float(tf.reduce_max(made["mask"])) == expected
    logs = model.test_step(images(4))
    assert np.isfinite(float(logs["classifier_synthetic"]))


def test_the_extended_posterior_sees_the_whole_map_in_training_only():
    model = make(**{"generator.posterior": "xy"})
    batch = images(2)
    keep = tf.ones([2, 16, 16, 1]) * tf.concat([tf.zeros([1, 8, 16, 1]), tf.ones([1, 8, 16, 1])], 1)
    maps = model.maps_of(batch)
    other = tf.where(keep == 1, maps, 1.0 - maps)
    pairs = [[model.generate(m, keep, batch["seed"], training=t).raw for m in (maps, other)] for t in (True, False)]
    assert not np.allclose(*pairs[0])
    np.testing.assert_array_equal(*pairs[1])
    with pytest.raises(ConfigError, match="variational"):
        tiny(**{"generator.posterior": "xy", "generator.variational": False})


# -- M12 --------------------------------------------------------------------------------------------------------------------


def parameters(network):
    return sum(int(tf.size(v)) for v in network.trainable_variables)


def test_m12_networks_have_cyclegans_parameters():
    generator, scorer = ResNetTranslator(3), PatchScorer(averaged=True)
    assert generator(tf.keras.Input([256, 256, 3])).shape[1:] == [256, 256, 3]
    assert scorer(tf.keras.Input([256, 256, 3], batch_size=2)).shape == [2]
    assert parameters(generator) == 11_378_179
    assert parameters(scorer) == 2_764_737


def test_m12_the_translator_trains_as_a_stage_and_reaches_both_pairs():
    model = make(**VESSEL)
    model.compile()
    source = ms.open_source(LARGER)
    translator, online = model.stages(source)
    assert (translator.name, online.name) == ("translator", "classifier")
    assert translator.model is model.translator
    assert isinstance(model.translator, CycleTranslator)
    parts = [getattr(model.translator, name) for name in ("to_second", "to_first", "second_scorer", "first_scorer")]
    before = [values(part.trainable_variables) for part in parts]
    others = values(model.classifier.trainable_variables + model.encoder.trainable_variables)
    history = translator.model.fit(translator.batches(0), epochs=1, steps_per_epoch=3, verbose=0).history
    assert set(history) == {"translator", "cycle", "identity", "translator_discriminator"}
    for part, old in zip(parts, before):  # biases before an instance norm have no gradient beyond rounding
        assert np.mean(moved(part.trainable_variables, old)) > 0.5
    assert not any(moved(model.classifier.trainable_variables + model.encoder.trainable_variables, others))
    pictures = translator.preview(next(iter(translator.batches(0))))
    assert [(p.dtype, p.shape[1:3]) for p in pictures.values()] == [(tf.uint8, [24, 24])] * 4
    frozen = values(model.translator.to_second.variables)
    online.model.fit(online.batches(0), epochs=1, steps_per_epoch=2, verbose=0)
    assert not any(moved(model.translator.to_second.variables, frozen)), "frozen in stage B"


def test_m12_pairs_draw_translations_of_both_domains_to_each_other():
    """The weight adds both L1 to the objective, of which CycleGAN's own losses leave most."""
    batch, left = None, {}
    for weight in (0.0, 100.0):
        model = make(**VESSEL, **{"translator.paired": weight, "translator.learning_rate": 2e-3, "translator.batch_size": 4})
        model.compile()
        translator = model.translator
        batch = batch or next(
            iter(translation_batches(ms.open_source(LARGER), model.config.replace({"translator.paired": 1.0}), 0, 0))
        )
        maps, images = translator.domains(batch)

        def errors(translator=translator, maps=maps, images=images):
            pairs = ((translator.to_second(maps), images), (translator.to_first(images), maps))
            return np.array([float(tf.reduce_mean(tf.abs(made - real))) for made, real in pairs])

        before = errors()
        history = translator.fit(tf.data.Dataset.from_tensors(batch).repeat(), epochs=12, steps_per_epoch=1, verbose=0).history
        left[weight] = errors()[0] / before[0]
        assert ("paired" in history) == (weight > 0)
        if weight > 0:
            assert history["paired"][0] == pytest.approx(before.sum(), rel=1e-4)
    assert left[100.0] < 0.8 * left[0.0]


def test_m12_the_translator_is_fine_tuned_by_the_task_if_asked():
    model = make(**VESSEL, **{"translator.finetune": True, "losses.warm_up": 0.0})
    model.compile()
    before = values(model.translator.to_second.trainable_variables)
    batch = next(iter(model.dataset(ms.open_source(LARGER), model.config, "train", epochs=None)))
    model.train_step(batch)
    assert np.mean(moved(model.translator.to_second.trainable_variables, before)) > 0.5


def test_m12_a_translator_may_be_exchanged():
    class Red(tf.keras.layers.Layer):
        def call(self, maps, training=False):
            return tf.concat([maps, -tf.ones_like(maps), -tf.ones_like(maps)], -1)

    model = make(**VESSEL)
    model.translator = Red()
    model.compile()
    assert [stage.name for stage in model.stages(ms.open_source(LARGER))] == ["classifier"]
    batch = next(iter(model.dataset(ms.open_source(LARGER), model.config, "train", epochs=None)))
    model.train_step(batch)
    made = model.synthesize(batch, mask=tf.zeros([4, 24, 24]))
    np.testing.assert_allclose(made["image"][:, 0, ..., 1:], -np.ones([4, 24, 24, 2]), atol=1e-4)


def test_m12_identity_translator_of_images():
    assert isinstance(make().translator, IdentityTranslator)
    np.testing.assert_allclose(IdentityTranslator()(tf.constant([0.0, 0.5, 1.0])), [-1.0, 0.0, 1.0])


def test_m12_the_replay_buffer_fills_then_swaps_half():
    buffer = ReplayBuffer(4, [1], name="image_buffer")
    first = buffer(tf.constant([[1.0], [2.0], [3.0]]), tf.range(3, dtype=tf.int64))
    np.testing.assert_array_equal(first[:, 0], [1, 2, 3])  # while it fills, fakes are handed on
    assert int(buffer.filled) == 3
    fakes = np.arange(4.0, 1004.0, dtype=np.float32)[:, None]
    shown = tf.function(buffer)(tf.constant(fakes), tf.range(1000, dtype=tf.int64)).numpy()[:, 0]
    fresh = shown == fakes[:, 0]
    assert 0.42 < fresh.mean() < 0.58
    assert (shown[~fresh] < fakes[~fresh, 0]).all()  # the others are earlier ones
    assert np.unique(shown[~fresh]).size == (~fresh).sum()  # a fake that was handed out again is gone
    assert set(buffer.images.numpy()[:, 0]) <= {1.0, 2.0, 3.0, *fakes[:, 0]} - set(shown[~fresh])


# -- data -------------------------------------------------------------------------------------------------------------------


def test_batches_have_vessel_maps_that_belong_to_the_image():
    config = tiny(**VESSEL, **{"data.flip_horizontal": True, "data.flip_vertical": True})
    batch = next(iter(batches(ms.open_source(LARGER), config, "train", 0, 0, None, True)))
    assert {name: value.shape for name, value in batch.items()} == {
        "image": [4, 24, 24, 3],
        "vessels": [4, 24, 24],
        "label": [4],
        "seed": [4],
    }
    vessels = batch["vessels"].numpy() == 255
    bright = batch["image"].numpy()[..., 0].astype(float)
    assert set(np.unique(batch["vessels"])) == {0, 255}
    assert all(picture[v].mean() > picture[~v].mean() + 20 for picture, v in zip(bright, vessels))


def test_unpaired_batches_are_of_two_orders_and_resume():
    config = tiny(**VESSEL, **{"translator.batch_size": 2})
    source = ms.open_source(LARGER)
    whole = list(translation_batches(source, config, 0, 0).take(4))
    rest = list(translation_batches(source, config, 0, 2).take(2))
    for name in ("image", "vessels"):
        np.testing.assert_array_equal(whole[3][name], rest[1][name])
    pairs = [np.corrcoef(b["image"].numpy()[..., 0].ravel(), b["vessels"].numpy().ravel())[0, 1] for b in whole]
    assert np.mean(pairs) < 0.35
    paired = translation_batches(source, config.replace({"translator.paired": 1.0}), 0, 0).take(4)
    pairs = [np.corrcoef(b["image"].numpy()[..., 0].ravel(), b["vessels"].numpy().ravel())[0, 1] for b in paired]
    assert np.mean(pairs) > 0.5


def test_turns_and_flips_keep_what_the_image_holds():
    source = ms.open_source(SOURCE)
    still, turned = (
        next(iter(batches(source, tiny(**{"rotate": rotate, "balanced": False}), "all", 3, 0, None, True)))
        for rotate in (False, True)
    )
    np.testing.assert_array_equal(still["label"], turned["label"])
    same = 0
    for a, b in zip(still["image"].numpy()[..., 0], turned["image"].numpy()[..., 0]):
        turns = [np.array_equal(np.rot90(a, k), b) for k in range(4)]
        assert sum(turns) == 1
        same += turns[0]
    assert same < 4


def test_rare_classes_are_repeated():
    keys = [RecordKey(str(i), str(i), None, label) for i, label in enumerate([0, 0, 0, 0, 0, 1, 1, 2])]
    labels = [key.label for key in balanced(keys)]
    assert [labels.count(label) for label in (0, 1, 2)] == [5, 5, 5]
    assert {key.id for key in balanced(keys)} == {key.id for key in keys}


def test_records_without_labels_or_with_others_are_refused():
    with pytest.raises(DataError, match="beyond classes"):
        next(iter(batches(ms.open_source(SOURCE), tiny(classes=3), "train", 0, 0, None, True)))
    with pytest.raises(DataError, match="has no label"):
        batches(ms.open_source("skimage:retina?size=32"), tiny(channels=3), "train", 0, 0, None, True)


def test_photographs_are_cropped_to_the_retina():
    record = PhantomSource("fundus", 1, size=64)
    key = record.keys()[0]
    wide = np.zeros([64, 120, 3], np.uint8)
    wide[:, 40:104] = record.read(key)["image"]

    class Wide(PhantomSource):
        def read(self, key):
            return {**super().read(key), "image": wide, "mask": np.zeros([64, 120], np.uint8)}

    found = [
        next(iter(batches(Wide("fundus", 1), tiny(channels=3, classes=5, crop=crop, image_size=32), "all", 0, 0, 1, False)))
        for crop in ("retina", "none")
    ]
    lit = [batch["image"].numpy().max(-1)[0] > 10 for batch in found]
    assert lit[0].mean() > 0.7
    assert lit[0][16, 0]
    assert lit[0][16, -1]
    assert lit[1].mean() < 0.5


def test_a_users_vessel_network_makes_the_maps(tmp_path):
    network = UNet2D(2, (2, 4))
    network(tf.keras.Input([24, 24, 3]))
    path = tmp_path / "unet.h5"
    network.save_weights(path)
    chosen = {**VESSEL, "vessels.source": "network", "vessels.weights": str(path), "vessels.unet_widths": [2, 4]}
    model = make(**chosen)
    batch = next(iter(model.dataset(ms.open_source(LARGER), model.config, "val", 0)))
    expected = tf.nn.softmax(network(tf.cast(batch["image"], tf.float32) / 127.5 - 1.0))[..., 1:]
    np.testing.assert_allclose(tf.cast(batch["vessels"], tf.float32)[..., tf.newaxis] / 255, expected, atol=0.003)
    np.testing.assert_allclose(model.maps_of({"image": batch["image"]}), expected, atol=1e-5)
    assert not any("vessel_network" in v.name for v in model.trainable_variables)
    with pytest.raises(ConfigError, match="there is no file"):
        make(**{**chosen, "vessels.weights": str(tmp_path / "none.h5")})
    with pytest.raises(ConfigError, match="not those of this U-Net"):
        make(**{**chosen, "vessels.unet_widths": [2, 8]})
