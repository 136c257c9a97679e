"""Card 24: training pipeline, network, comparison augmentations, served model and measures, each item by its number."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from skimage import transform

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.layers.filtered_back_projection import FilteredBackProjection
from medsynth_tf.losses.binary_segmentation import pixel_cross_entropy, soft_dice_loss
from medsynth_tf.methods.augmentation.fbpaug.data import make_layer
from medsynth_tf.methods.augmentation.fbpaug.intensity import augmented_input, network_input
from medsynth_tf.methods.augmentation.fbpaug.model import FBPAug
from medsynth_tf.metrics.segmentation_agreement import CaseDice, bland_altman, one_sided_wilcoxon
from medsynth_tf.networks.residual_unet import ResidualUNet
from medsynth_tf.ops import random
from tests.methods.tiny import TINY

OVERRIDES, SOURCE = TINY["fbpaug"]


def tiny(**overrides):
    return ms.load_config("fbpaug", overrides={**OVERRIDES, **overrides})


def created(**overrides):
    model = ms.create("fbpaug", tiny(**overrides))
    model.compile()
    return model


class Slices(Source):
    """Slices of several sizes: `lesions[patient]` says which of a patient's hold lesion; pixel (0, 0) has the record's number."""

    def __init__(self, lesions=((1, 0, 0), (0, 0), (1, 1, 1, 0)), height=20, spacing=2.0, without=()):
        self.lesions, self.height, self.spacing, self.without = lesions, height, spacing, without
        self.slices = [(patient, lesion) for patient, found in enumerate(lesions) for lesion in found]

    def keys(self):
        return [RecordKey(f"s{i}", f"p{patient}") for i, (patient, _) in enumerate(self.slices)]

    def optional_names(self, keys):
        return frozenset({"mask", "spacing"}) - frozenset(self.without)

    def read(self, key):
        index = int(key.id[1:])
        patient, lesion = self.slices[index]
        rng = np.random.default_rng(index)
        shape = (self.height + 4 * patient, self.height)
        mask = np.zeros(shape, np.uint8)
        if lesion:
            mask[8:14, 5:12] = 1
        image = rng.normal(-700, 100, [*shape, 1]) + 500.0 * mask[..., None]
        image[0, 0] = index
        record = {"id": key.id, "patient_id": key.patient_id, "image": image.astype(np.float32), "mask": mask}
        record["spacing"] = np.full(2, self.spacing, np.float32)
        return {name: value for name, value in record.items() if name not in self.without}

    def describe(self):
        return {"kind": "slices", "count": len(self.slices)}


def training_batches(config, source, count, seed=0):
    config = config.replace({"data.split_fractions": [1.0, 0.0, 0.0], "data.cache": not isinstance(source, Slices)})
    batches = FBPAug.dataset(source, config, "train", seed, epochs=None)
    return [{name: value.numpy() for name, value in batch.items()} for batch in batches.take(count)]


# -- M11: the augmentation in the pipeline ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sinogram", "fourier2d"])
def test_m11_the_pipeline_changes_half_of_the_images_by_kernels_of_their_own(backend):
    config = tiny(**{"augment.kernels.backend": backend, "training.batch_size": 40, "augment.turn_probability": 0.0})
    source = ms.open_source("phantom:thorax_ct?count=10&size=32")
    changed, energy = [], []
    for batch in training_batches(config, source, 4):
        plain = network_input(tf.constant(batch["image"]), config).numpy()
        change = np.abs(batch["input"] - plain).max((1, 2, 3))
        changed.append(change > 0)
        detail = [np.square(np.diff(x[:, :, 4:28, 0], axis=1)).sum((1, 2)) for x in (batch["input"], plain)]
        energy.append(detail[0] / detail[1])
        # unequal kernels in one batch: no two changed images are changed alike
        ratios = energy[-1][change > 0]
        assert len(np.unique(ratios.round(5))) > 0.9 * len(ratios)
        drawn = make_layer(config, training=True).parameters(tf.constant(batch["seed"]))
        np.testing.assert_array_equal(change > 0, drawn.applied)
    changed, energy = np.concatenate(changed), np.concatenate(energy)
    assert 0.38 < changed.mean() < 0.62  # 160 coins
    assert 0.3 < (energy[changed] < 1).mean() < 0.7  # as many smoother as sharper
    assert (energy[~changed] == 1).all()


def test_m11_masks_and_turns_do_not_depend_on_it():
    source = ms.open_source("phantom:thorax_ct?count=10&size=32")
    runs = [training_batches(tiny(**{"augment.kind": kind, "training.batch_size": 10}), source, 3) for kind in ("fbp", "none")]
    assert any((a["input"] != b["input"]).any() for a, b in zip(*runs))
    for with_it, without in zip(*runs):
        for name in ("image", "mask", "size", "seed"):
            np.testing.assert_array_equal(with_it[name], without[name])


def test_m11_the_network_learns_from_the_changed_images():
    # the released wrapper discards what it made (A4): then both runs would have the same loss
    source, losses = ms.open_source(SOURCE), []
    for kind in ("fbp", "none"):
        model = created(**{"augment.kind": kind, "augment.probability": 1.0})
        batch = training_batches(model.config, source, 1)[0]
        losses.append(float(model.train_step({name: tf.constant(value) for name, value in batch.items()})["cross_entropy"]))
    assert losses[0] != losses[1]


def test_m11_the_augmentation_comes_before_the_window_and_not_when_judging():
    config = tiny(**{"augment.probability": 1.0, "augment.turn_probability": 0.0})
    for batch in training_batches(config, ms.open_source(SOURCE), 3):
        made = make_layer(config, training=True)(tf.constant(batch["image"]), tf.constant(batch["seed"]))
        np.testing.assert_allclose(batch["input"], network_input(made, config), atol=1e-4)
    held_out = FBPAug.dataset(ms.open_source(SOURCE), config, "all", training=False)
    for batch in held_out:
        np.testing.assert_array_equal(batch["input"], network_input(batch["image"], config))


def test_m11_angles_are_half_the_side_in_training_and_the_side_when_served():
    config = tiny()
    assert (make_layer(config, True).angles_per_pixel, make_layer(config, False).angles_per_pixel) == (0.5, 1.0)
    assert (make_layer(config, True).probability, make_layer(config, False).probability) == (0.5, 1.0)
    fixed = tiny(**{"augment.kernels.angles": 17, "augment.kernels.mode": "smooth"})
    assert make_layer(fixed, True).angles == make_layer(fixed, False).angles == 17
    assert make_layer(fixed, True).mode == "smooth"


# -- data: sampling, sizes, spacing, turns ----------------------------------------------------------------------------------


def test_patients_then_lesions_are_drawn():
    config = tiny(
        **{"lesion_probability": 0.5, "training.batch_size": 100, "augment.kind": "none", "augment.turn_probability": 0.0}
    )
    numbers = np.concatenate([batch["image"][:, 0, 0, 0] for batch in training_batches(config, Slices(), 8)]).astype(int)
    shares = np.bincount(numbers, minlength=9) / len(numbers)
    # a third each patient; of p0 half is slice 0 for sure, half any of three; p1 has no lesion; p2: any of three, or any of four
    third = 1 / 3
    expected = [third * (1 / 2 + 1 / 6), *[third / 6] * 2, *[third / 2] * 2, *[third * (1 / 6 + 1 / 8)] * 3, third / 8]
    np.testing.assert_allclose(shares, expected, atol=0.04)
    plain = tiny(**{"lesion_probability": None, "training.batch_size": 3, "augment.turn_probability": 0.0})
    numbers = np.concatenate([batch["image"][:, 0, 0, 0] for batch in training_batches(plain, Slices(), 3)])
    assert sorted(numbers) == list(range(9))  # each once a pass


def test_a_resumed_stream_goes_on_where_it_stopped():
    config = tiny(**{"lesion_probability": 0.5, "data.split_fractions": [1.0, 0.0, 0.0], "data.cache": False})
    whole = list(FBPAug.dataset(Slices(), config, "train", 5, epochs=None).take(4))
    rest = list(FBPAug.dataset(Slices(), config, "train", 5, first_step=2, epochs=None).take(2))
    for a, b in zip(whole[2:], rest):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_batches_are_padded_with_air_and_zeros():
    config = tiny(**{"training.batch_size": 9})
    batch = next(iter(FBPAug.dataset(Slices(), config, "all", training=False)))
    assert batch["image"].shape == [9, 28, 20, 1]
    np.testing.assert_array_equal(batch["size"][:, 0], [20] * 3 + [24] * 2 + [28] * 4)
    assert (batch["image"][0, 20:].numpy() == -1000).all()
    assert (batch["input"][0, 20:].numpy() == 0).all()
    assert (batch["mask"][0, 20:].numpy() == 0).all()
    np.testing.assert_array_equal(batch["seed"], range(9))


def test_slices_are_resampled_to_the_pixel_spacing():
    config = tiny(pixel_spacing=1.0, **{"training.batch_size": 1})
    source = Slices(spacing=1.6)
    batch = next(iter(FBPAug.dataset(source, config, "all", training=False)))
    assert batch["image"].shape == [1, 32, 32, 1]
    record = source.read(source.keys()[0])
    expected = transform.resize(record["image"][..., 0], [32, 32], order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(batch["image"][0, ..., 0], expected, atol=0.5)
    assert batch["mask"].numpy().sum() == pytest.approx(record["mask"].sum() * 1.6**2, rel=0.15)
    same = tiny(pixel_spacing=1.6, **{"training.batch_size": 1})
    batch = next(iter(FBPAug.dataset(source, same, "all", training=False)))
    np.testing.assert_array_equal(batch["image"][0], record["image"])


@pytest.mark.parametrize(("kinds", "orientations"), [(("horizontal", "vertical"), 8), (("vertical",), 8), ((), 4)])
def test_m14_half_of_the_images_are_turned_all_three_alike(kinds, orientations):
    flips = {f"data.flip_{name}": name in kinds for name in ("horizontal", "vertical")}
    config = tiny(**{"augment.kind": "none", "training.batch_size": 60, **flips})
    source = ms.open_source("phantom:thorax_ct?count=1&size=32")
    record = source.read(source.keys()[0])
    image, mask = record["image"].astype(np.float32), record["mask"]
    ways = [(k, f) for f in (False, True) for k in range(4)]
    turned = {}
    for k, f in ways:
        pair = [np.rot90(array[:, ::-1] if f else array, k) for array in (image, mask)]
        turned[pair[0].tobytes()] = (k, f), pair
    seen = []
    for batch in training_batches(config, source, 4):
        for one, its_input, its_mask in zip(batch["image"], batch["input"], batch["mask"]):
            way, pair = turned[np.ascontiguousarray(one).tobytes()]
            np.testing.assert_array_equal(its_mask, pair[1])
            np.testing.assert_array_equal(its_input, network_input(tf.constant(one[None]), config)[0])
            seen.append(way)
    assert len(set(seen)) == orientations
    # a turn with p = 0.5, a quarter of them by nothing; a flip with p = 0.5
    untouched = np.mean([way == (0, False) for way in seen])
    assert untouched == pytest.approx(0.625 * (0.5 if kinds else 1.0), abs=0.11)


def test_records_that_do_not_serve_are_refused():
    config = tiny(**{"data.split_fractions": [1.0, 0.0, 0.0]})
    with pytest.raises(DataError, match="needs a mask"):
        FBPAug.dataset(Slices(without=("mask",)), config, "train")
    with pytest.raises(DataError, match="pixel_spacing needs the spacing"):
        spaced = config.replace({"pixel_spacing": 1.0})
        FBPAug.dataset(Slices(without=("spacing",)), spaced, "train")
    with pytest.raises(DataError, match="Hounsfield units, got uint8"):
        FBPAug.dataset(ms.open_source("phantom:optic_disc?count=3"), config, "train")
    with pytest.raises(DataError, match="'test' is empty"):
        FBPAug.dataset(Slices(), config, "test")
    with pytest.raises(DataError, match="all of one size"):
        FBPAug.dataset(Slices(), config, "train")
    for wrong, message in (
        ({"window": [0.0, 0.0]}, "window"),
        ({"augment.kernels.smooth_a": [0.0, -1.0]}, "smooth_a"),
        ({"augment.window_width": [3.0, 2.0]}, "window_width"),
        ({"network": {"norm": "group", "groups": 3, "filters": 4}}, "groups"),
        ({"folds": {"folds": 2, "fold": 2}}, "fold"),
        ({"agreement.sharp": [1.0, 0.0]}, "agreement.sharp"),
    ):
        with pytest.raises(ConfigError, match=message):
            tiny(**wrong)


def test_folds_are_trained_and_judged_apart():
    tests = []
    for fold in range(3):
        config = tiny(folds={"folds": 3, "fold": fold, "validation_patients": 1})
        source = ms.open_source("phantom:thorax_ct?count=9&size=32")
        model = ms.create("fbpaug", config)
        stage = model.stages(source)[0]
        names = {name: {key.patient_id for key in model.split(source, config, name)} for name in ("train", "val", "test")}
        assert [len(names[name]) for name in ("train", "val", "test")] == [5, 1, 3]
        assert stage.steps_per_epoch in (2, model.config.training.steps_per_epoch)
        assert len(list(model.dataset(source, config, "test"))) == 2
        tests.append(names["test"])
    assert len(set.union(*tests)) == 9


# -- M13: the network -------------------------------------------------------------------------------------------------------


def paper_weights(filters=8, levels=5):
    """By the card's table: kernels, two parameters a channel of each norm, one bias."""

    def block(inputs, outputs):
        norms = 2 * inputs + 2 * outputs
        return norms + 9 * inputs * outputs + 9 * outputs * outputs + (inputs * outputs if inputs != outputs else 0)

    widths = [filters * 2**level for level in range(levels + 1)]
    total = 9 * filters
    for low, high in itertools.pairwise(widths):
        total += block(low, low) + block(low, high)  # encoder
        total += block(high, low) + block(low, low)  # decoder
    total += block(widths[-1], 2 * widths[-1]) + block(2 * widths[-1], widths[-1])
    return total + block(filters, filters) + 2 * filters + filters + 1


def test_m13_the_paper_network_has_the_released_models_weights():
    network = ResidualUNet()
    logits = network(tf.keras.Input([None, None, 1]))
    weights = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert weights == 8_220_577 == paper_weights()
    assert logits.shape[-1] == 1
    config = ms.load_config("fbpaug", "paper")
    assert (config.network.filters, config.network.levels, config.network.norm) == (8, 5, "batch")


@pytest.mark.parametrize("size", [(1, 1), (37, 50), (64, 33)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_m13_any_size_goes_in_and_comes_out(size, norm):
    network = ResidualUNet(4, 5, norm, groups=2)
    assert network(tf.zeros([2, *size, 1])).shape == [2, *size, 1]


def test_m13_five_poolings_and_skips_that_are_added():
    network = ResidualUNet(4, 5)
    seen = []
    for blocks in [*network.down, network.bridge, *network.up]:
        for block in blocks:
            original = block.call
            block.call = lambda x, training=False, original=original: (
                seen.append(x.shape.as_list()[1:]) or original(x, training=training)
            )
    network(tf.zeros([1, 40, 33, 1]))
    sides = [(40, 33), (20, 17), (10, 9), (5, 5), (3, 3), (2, 2)]  # odd borders are kept
    assert [shape[:2] for shape in seen[::2]] == [list(side) for side in [*sides, *sides[-2::-1]]]
    # no concatenation: what goes into a decoder block is as wide as the skip
    assert [shape[2] for shape in seen[12:]] == [128, 64, 64, 32, 32, 16, 16, 8, 8, 4]
    # and with all kernels after the skip's sum at nothing but the shortcut, the sum itself passes on
    kernels = [layer.kernel for block in network.up[-1] for layer in [*block.convolutions, block.shortcut] if layer is not None]
    assert [kernel.shape.as_list() for kernel in kernels] == [
        [3, 3, 8, 4],
        [3, 3, 4, 4],
        [1, 1, 8, 4],
        [3, 3, 4, 4],
        [3, 3, 4, 4],
    ]


def test_m13_gradients_reach_every_weight():
    network = ResidualUNet(4, 2, "group", groups=2)
    images = tf.constant(np.random.default_rng(0).normal(size=[2, 12, 12, 1]), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(network(images, training=True) ** 2)
    for variable, gradient in zip(network.trainable_variables, tape.gradient(loss, network.trainable_variables)):
        assert np.abs(gradient).max() > 0, variable.name


def test_losses_are_the_closed_forms():
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(size=[3, 5, 4]) * 3, rng.integers(0, 2, [3, 5, 4])
    p = 1 / (1 + np.exp(-logits))
    expected = -(mask * np.log(p) + (1 - mask) * np.log(1 - p)).mean()
    assert float(pixel_cross_entropy(tf.constant(logits), tf.constant(mask))) == pytest.approx(expected, rel=1e-5)
    expected = 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
    assert float(soft_dice_loss(tf.constant(logits), tf.constant(mask))) == pytest.approx(expected, rel=1e-5)
    empty = tf.zeros([2, 3], tf.uint8)
    assert float(soft_dice_loss(tf.fill([2, 3], -50.0), empty)) == pytest.approx(0.0, abs=1e-6)


def test_the_soft_dice_weight_changes_what_is_learned():
    rng = np.random.default_rng(0)
    batch = {
        "input": tf.constant(rng.uniform(size=[2, 8, 8, 1]), tf.float32),
        "mask": tf.constant(rng.integers(0, 2, [2, 8, 8])),
    }
    gradients = []
    for weight in (0.0, 2.0):
        model = created(soft_dice=weight)
        with tf.GradientTape() as tape:
            objective, shown = model._objective(batch, training=True)
        gradients.append(tape.gradient(objective, model.network.head.kernel).numpy())
        assert float(objective) == pytest.approx(
            float(shown["cross_entropy"]) + weight * float(shown.get("soft_dice", 0)), rel=1e-5
        )
    assert not np.allclose(*gradients)


# -- M14: the augmentations it is compared with -----------------------------------------------------------------------------


def changed_and_plain(kind, count=600, **overrides):
    config = tiny(**{"augment.kind": kind, "augment.probability": 1.0, **overrides})
    rng = np.random.default_rng(0)
    hounsfield = rng.uniform(-1500, 300, [1, 6, 6, 1]).astype(np.float32).repeat(count, 0)
    seeds = tf.range(count, dtype=tf.int64)
    made = tf.function(lambda: augmented_input(tf.constant(hounsfield), seeds, config))().numpy()
    return config, hounsfield, made, network_input(tf.constant(hounsfield), config).numpy(), seeds


def test_m14_gamma_is_the_formula_with_a_lognormal_exponent():
    _, _, made, plain, _ = changed_and_plain("gamma", window=[-1400.0, 100.0])
    lowest, highest = plain.min(), plain.max()
    inner = (plain > lowest) & (plain < highest)
    share = (plain - lowest) / (highest - lowest)
    exponents = np.where(inner, np.log(np.maximum(made - lowest, 1e-12) / (highest - lowest)), 0) / np.where(
        inner, np.log(share, where=inner), 1
    )
    of_image = np.array([row[mask].mean() for row, mask in zip(exponents, inner)])
    for row, mask, mean in zip(exponents, inner, of_image):
        np.testing.assert_allclose(row[mask], mean, rtol=1e-2)
    logs = np.log(of_image)
    assert logs.mean() == pytest.approx(0.0, abs=0.03)
    assert logs.std() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_allclose(made.min((1, 2, 3)), lowest, atol=1e-6)
    np.testing.assert_allclose(made.max((1, 2, 3)), highest, atol=1e-6)


def test_m14_noise_is_gaussian_and_clipped():
    _, _, made, plain, _ = changed_and_plain("noise")
    middle = (plain > 0.45) & (plain < 0.55)
    added = (made - plain)[middle]
    assert added.mean() == pytest.approx(0.0, abs=0.01)
    assert added.std() == pytest.approx(0.1, abs=0.01)
    assert made.min() == 0.0
    assert made.max() == 1.0


def test_m14_windowing_rescales_a_random_window():
    config, hounsfield, made, _, _ = changed_and_plain("windowing", count=300)
    found = []
    for image, one in zip(hounsfield, made):
        inside = (one > 0) & (one < 1)
        slope, intercept = np.polyfit(image[inside], one[inside], 1)  # (I - c + w/2)/w
        width = 1 / slope
        found.append((width / 2 - intercept * width, width))
    centres, widths = np.array(found).T
    for values, (low, high) in ((centres, config.augment.window_centre), (widths, config.augment.window_width)):
        assert low - 1 <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high + 1
    assert abs(np.corrcoef(centres, widths)[0, 1]) < 0.2


@pytest.mark.parametrize("kind", ["gamma", "noise", "windowing"])
def test_m14_half_of_the_images_are_changed_as_their_seeds_say(kind):
    _, _, made, plain, seeds = changed_and_plain(kind, count=400, **{"augment.probability": 0.5})
    changed = (made != plain).any((1, 2, 3))
    assert changed.mean() == pytest.approx(0.5, abs=0.08)
    np.testing.assert_array_equal(changed, random.uniform(seeds, (), kind).numpy() < 0.5)


@pytest.mark.parametrize("kind", ["none", "fbp"])
def test_m14_none_and_fbp_leave_intensity_alone(kind):
    _, _, made, plain, _ = changed_and_plain(kind, count=3)
    np.testing.assert_array_equal(made, plain)


def test_m14_zscore_standardises_each_slice():
    config, _, made, plain, _ = changed_and_plain("noise", count=5, intensity="zscore")
    for images in (made, plain):
        np.testing.assert_allclose(images.mean((1, 2, 3)), 0.0, atol=1e-5)
        np.testing.assert_allclose(images.std((1, 2, 3)), 1.0, atol=1e-4)
    flat = network_input(tf.fill([1, 4, 4, 1], -500.0), config)
    np.testing.assert_allclose(flat, 0.0, atol=1e-3)


# -- M15: measures ----------------------------------------------------------------------------------------------------------


def test_m15_dice_sets_apart_what_is_empty_twice():
    empty, full, half = np.zeros([2, 4], bool), np.ones([2, 4], bool), np.repeat([[True, False]], 2, 0).repeat(2, 1)
    found = CaseDice.of([(full, half), (empty, empty), (empty, full), (half, half)])
    np.testing.assert_allclose(found.values, [2 / 3, np.nan, 0.0, 1.0])
    summary = found.summary()
    assert summary == pytest.approx(
        {"mean": 5 / 9, "std": np.std([2 / 3, 0, 1]), "cases": 3, "both_empty": 1, "mean_strict": 5 / 12}
    )
    np.testing.assert_allclose(found.filled(1.0), [2 / 3, 1, 0, 1])
    assert CaseDice.of([(empty, empty)]).summary()["mean"] is None
    with pytest.raises(DataError, match="bool of one shape"):
        CaseDice.of([(empty, full[:1])])


def test_m15_wilcoxon_by_hand():
    # five differences all above 0: of 2^5 signs one is as extreme, p = 1/32; all below: p = 1
    base = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    scores = {"fbp": base + np.array([0.01, 0.02, 0.03, 0.04, 0.05]), "noise": base, "gamma": base + 0.1, "same": base}
    found = one_sided_wilcoxon(scores, "fbp")
    assert found["noise"]["p"] == pytest.approx(1 / 32)
    assert found["noise"]["p_bonferroni"] == pytest.approx(3 / 32)
    assert found["gamma"]["p_bonferroni"] == 1.0
    assert one_sided_wilcoxon({"a": base, "b": base}, "a")["b"]["p"] == 1.0
    assert one_sided_wilcoxon(scores, "fbp", comparisons=10)["noise"]["p_bonferroni"] == pytest.approx(10 / 32)
    with pytest.raises(DataError, match="cannot compare"):
        one_sided_wilcoxon({"a": base, "b": base[1:]}, "a")


def test_m15_bland_altman_data():
    found = bland_altman(np.array([1.0, 2.0, 6.0]), np.array([1.0, 4.0, 3.0]))
    assert found["mean"] == [1.0, 3.0, 4.5]
    assert found["difference"] == [0.0, -2.0, 3.0]
    assert found["bias"] == pytest.approx(1 / 3)
    spread = 1.96 * np.std([0, -2, 3], ddof=1)
    assert (found["lower"], found["upper"]) == pytest.approx((1 / 3 - spread, 1 / 3 + spread))
    assert bland_altman(np.array([2.0]), np.array([1.0]))["lower"] == 1.0
    with pytest.raises(DataError, match="at least one case"):
        bland_altman(np.array([]), np.array([]))


# -- serving ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served():
    return created()


def test_the_served_segmentation_is_the_models(served):
    image = np.random.default_rng(0).uniform(-1024, 400, [3, 20, 27, 1]).astype(np.float32)
    answer = served.signatures()["serving_default"](tf.constant(image))
    probability = tf.sigmoid(served.network(network_input(tf.constant(image), served.config)))[..., 0]
    np.testing.assert_allclose(answer["probability"], probability, atol=1e-4)
    np.testing.assert_array_equal(answer["mask"], answer["probability"].numpy() >= 0.5)
    assert answer["mask"].dtype == tf.uint8


def test_m10_the_served_augmentation_is_the_layers(served):
    image = tf.constant(np.random.default_rng(0).uniform(-2048, 400, [3, 20, 27, 1]), tf.float32)
    answer = served.signatures()["augment"](image, tf.constant([1, 2, 3], tf.int64))
    again = served.signatures()["augment_with"](image, answer["a"], answer["b"])
    np.testing.assert_allclose(answer["image"], again["image"], atol=1e-2)
    layer = FilteredBackProjection(backend="fourier2d")
    np.testing.assert_allclose(again["image"], layer.with_kernels(image, answer["a"], answer["b"]), atol=1e-2)
    assert answer["image"].shape == image.shape
    assert (np.abs(answer["image"] - image).max((1, 2, 3)) > 1).all()  # every slice, unlike in training


@pytest.mark.parametrize(
    ("signature", "change", "message"),
    [
        ("serving_default", {"image": np.full([1, 4, 4, 1], np.nan)}, "image: values must be finite"),
        ("serving_default", {"image": np.full([1, 4, 4, 1], np.inf)}, "image: values must be finite"),
        ("serving_default", {"image": np.zeros([0, 4, 4, 1])}, "the batch is empty"),
        ("serving_default", {"image": np.zeros([1, 0, 4, 1])}, "slices have no pixels"),
        ("augment", {"seed": np.zeros([2], np.int64)}, "image and seed differ in batch size"),
        ("augment_with", {"a": np.full([1], -1.5)}, "a: must be finite, at least -1"),
        ("augment_with", {"b": np.zeros([1])}, "b: must be finite, above 0"),
        ("augment_with", {"b": np.full([1], np.nan)}, "b: must be finite, above 0"),
        ("augment_with", {"a": np.zeros([2])}, "image and a differ in batch size"),
    ],
)
def test_unsafe_requests_are_refused_in_words(served, signature, change, message):
    inputs = {**served.example_inputs()[signature], **change}
    inputs = {name: value if value.dtype == np.int64 else value.astype(np.float32) for name, value in inputs.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures()[signature](**{name: tf.constant(value) for name, value in inputs.items()})


def test_pictures_show_slice_kernels_mask_and_finding(served):
    batch = next(iter(served.dataset(ms.open_source(SOURCE), served.config, "all", training=False)))
    pictures = served.preview(batch)
    assert list(pictures) == ["image", "smoothed", "sharpened", "mask", "found"]
    for picture in pictures.values():
        assert picture.dtype == tf.uint8
        assert picture.shape == batch["image"].shape
    assert (pictures["sharpened"].numpy() != pictures["smoothed"].numpy()).mean() > 0.3


def test_mixed_precision_trains_and_answers_in_float32():
    model = created(**{"training.mixed_precision": "bfloat16"})
    before = model.network.head.kernel.numpy()
    model.train_step({"input": tf.random.uniform([2, 8, 8, 1]), "mask": tf.ones([2, 8, 8], tf.uint8)})
    assert (model.network.head.kernel.numpy() != before).any()
    assert model.network.stem.compute_dtype == "bfloat16"
    assert model.signatures()["serving_default"](tf.zeros([1, 8, 8, 1]))["probability"].dtype == tf.float32
