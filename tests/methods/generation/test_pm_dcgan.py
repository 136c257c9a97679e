"""Card 30: the items of the data, of the DCGAN and of the export, each by its number."""

import csv
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.data.joint_config import MaskConfig
from medsynth_tf.data.joint_images import complete_keys, pairs
from medsynth_tf.data.pair_files import write_pairs
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.data.writers import Provenance
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.losses.adversarial import logistic_discriminator, logistic_generator
from medsynth_tf.metrics.pairing import pairing
from medsynth_tf.metrics.tfgan import frechet_distance
from medsynth_tf.networks.dcgan import DCGANDiscriminator, DCGANGenerator, Plan, plan
from medsynth_tf.ops import joint_channels

TINY = {
    "image_size": 32,
    "generator_filters": 2,
    "discriminator_filters": 2,
    "latent_size": 4,
    "fixed_samples": 4,
    "training": {"batch_size": 4, "ema_decay": 0.5, "steps_per_epoch": None},
}


def tiny(**overrides):
    return ms.load_config("pm_dcgan", overrides={**TINY, **overrides})


def created(**overrides):
    model = ms.create("pm_dcgan", tiny(**overrides))
    model.compile()
    return model


class Shapes(Source):
    """Photographs of which channel 0 is 200 exactly inside the mask, so that the image says where its mask must be."""

    def __init__(self, count=6, height=50, width=70, codes=(1,), without=()):
        self.count, self.height, self.width, self.codes, self.without = count, height, width, codes, without

    def keys(self):
        return [RecordKey(f"r{i}", f"p{i}", None, i % 2) for i in range(self.count)]

    def optional_names(self, keys):
        return frozenset({"label"} | ({"mask"} if all(int(k.id[1:]) not in self.without for k in keys) else set()))

    def read(self, key):
        index = int(key.id[1:])
        rng = np.random.default_rng(index)
        mask = np.zeros([self.height, self.width], np.uint8)
        for code in self.codes:
            top, left = rng.integers(5, 25, 2)
            mask[top : top + 16, left + 10 : left + 30] = code
        image = np.stack([np.where(mask > 0, 200, 20), np.full_like(mask, 60), np.full_like(mask, 10 * index)], -1)
        record = {"id": key.id, "patient_id": key.patient_id, "image": image.astype(np.uint8), "mask": mask, "label": key.label}
        if index in self.without:
            del record["mask"]
        return record

    def describe(self):
        return {"kind": "shapes", "count": self.count}


# -- M1 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("random_crop", [1.0, 0.5])
def test_m1_image_and_mask_share_every_transform_and_masks_stay_binary(random_crop):
    config = tiny(random_crop=random_crop, **{"data.split_fractions": [1.0, 0.0, 0.0], "training.batch_size": 6})
    batches = pairs(Shapes(), config, "train", seed=3, first_step=0, epochs=None, training=True)
    seen = []
    for batch in batches.take(4):
        image, mask = batch["image"].numpy(), batch["label_map"].numpy()
        assert image.shape == (6, 32, 32, 3)
        assert set(np.unique(mask)) == {0, 1}
        assert ((image[..., 0] > 110) == mask).mean() > 0.97  # bilinear and nearest edges differ by a part of a pixel
        seen += [m.tobytes() for m in mask]
    assert len(set(seen)) > (8 if random_crop == 1.0 else 20), "flips, and crops of many places, are seen"


def test_m1_a_flip_turns_both_or_neither():
    config = tiny(**{"data.split_fractions": [1.0, 0.0, 0.0], "training.batch_size": 6, "data.flip_vertical": True})
    plain = {}
    for batch in pairs(Shapes(), config, "train", 0, 0, epochs=1, training=False):
        for image, mask in zip(batch["image"].numpy(), batch["label_map"].numpy()):
            plain[image[0, 0, 2]] = (image, mask)
    turns = set()
    for batch in pairs(Shapes(), config, "train", 1, 0, epochs=None, training=True).take(4):
        for image, mask in zip(batch["image"].numpy(), batch["label_map"].numpy()):
            original, its_mask = plain[image[0, 0, 2]]
            which = [
                (rows, columns)
                for rows in (1, -1)
                for columns in (1, -1)
                if np.array_equal(original[::rows, ::columns], image) and np.array_equal(its_mask[::rows, ::columns], mask)
            ]
            assert which, "image and mask are the original under one and the same flip"
            turns.update(which)
    assert len(turns) == 4


def test_m1_records_without_the_wanted_masks_are_dropped():
    config = tiny(**{"data.split_fractions": [1.0, 0.0, 0.0], "training.batch_size": 2})
    source = Shapes(without=(1, 4))
    assert [key.id for key in complete_keys(source, config, "train")] == ["r0", "r2", "r3", "r5"]
    batches = list(pairs(source, config, "train", 0, 0, epochs=1, training=False))
    assert sum(len(batch["image"]) for batch in batches) == 4
    with pytest.raises(DataError, match=r"all of optic_disc, atrophy \(codes \[1, 2\]\); codes found: \[0, 1\]"):
        complete_keys(source, tiny(channels=5, **{"data.split_fractions": [1.0, 0.0, 0.0]}), "train")
    both = Shapes(codes=(2, 1))
    assert len(complete_keys(both, tiny(channels=5, **{"data.split_fractions": [1.0, 0.0, 0.0]}), "train")) == 6
    images_alone = tiny(channels=3, **{"data.split_fractions": [1.0, 0.0, 0.0], "training.batch_size": 3})
    batch = next(iter(pairs(source, images_alone, "train", 0, 0, epochs=1, training=False)))
    assert set(batch) == {"image", "seed"}


def test_m1_training_counts_complete_records_only():
    config = tiny(channels=5, **{"data.split_fractions": [1.0, 0.0, 0.0]})
    source = ms.open_source("phantom:optic_disc?count=40&atrophy=0.5")
    diseased = sum(key.label for key in source.keys())
    assert 10 < diseased < 30
    stage = ms.create("pm_dcgan", config).stages(source)[0]
    assert stage.steps_per_epoch == diseased // 4
    few = ms.open_source("phantom:optic_disc?count=8&atrophy=0.2")
    assert 0 < sum(key.label for key in few.keys()) < 4
    with pytest.raises(DataError, match="records with all masks, less than one batch"):
        ms.create("pm_dcgan", config).stages(few)


def test_m1_field_of_view_crop_and_a_resumed_stream():
    config = tiny(crop="field_of_view", **{"data.split_fractions": [1.0, 0.0, 0.0]})
    source = ms.open_source("phantom:optic_disc?count=12&size=64")
    batch = next(iter(pairs(source, config, "train", 0, 0, 1, training=False)))
    assert (batch["image"][:, :, 0].numpy().max(axis=(1, 2)) > 40).all()  # the circle touches the border
    whole = list(pairs(source, config, "train", 0, 0, None, training=True).take(5))
    rest = list(pairs(source, config, "train", 0, 3, None, training=True).take(2))
    for a, b in zip(whole[3:], rest):
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_m1_channels_are_encoded_and_decoded_exactly():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, [2, 8, 8, 3]).astype(np.uint8)
    codes = rng.choice(np.array([0, 1, 2, 255], np.uint8), [2, 8, 8])
    for masks, levels in (
        (MaskConfig(), (-1.0, 1.0)),
        (MaskConfig(smoothing=0.1), (-0.9, 0.9)),
        (MaskConfig(encoding="zero_one"), (0.0, 1.0)),
        (MaskConfig(encoding="zero_one", smoothing=0.2), (0.1, 0.9)),
    ):
        np.testing.assert_allclose(masks.levels, levels, atol=1e-9)
        joint = joint_channels.join(image, codes, 2, masks.levels)
        assert joint.shape == [2, 8, 8, 5]
        np.testing.assert_allclose(np.unique(joint[..., 3:]), levels, atol=1e-6)
        assert float(tf.reduce_min(joint)) >= -1
        assert float(tf.reduce_max(joint)) <= 1
        back, inside = joint_channels.split(joint, masks.threshold)
        np.testing.assert_array_equal(back, image)
        np.testing.assert_array_equal(joint_channels.label_map(inside), np.where(codes == 255, 0, codes))


# -- M2, M3 -----------------------------------------------------------------------------------------------------------------


def test_m2_plans_reach_every_size():
    assert plan(64) == Plan(4, (2, 2, 2, 2))
    assert plan(360) == Plan(5, (3, 3, 2, 2, 2))
    for size in (32, 64, 96, 128, 256, 360):
        shape = plan(size)
        assert shape.start * math.prod(shape.strides) == size
    with pytest.raises(ValueError, match="such as 32, 64"):
        plan(44)
    with pytest.raises(ConfigError, match="image_size = 44"):
        ms.create("pm_dcgan", tiny(image_size=44, **{"judge.widths": [4, 8]}))


@pytest.mark.parametrize(("size", "channels"), [(32, 4), (64, 3), (64, 5), (360, 4), (360, 5)])
def test_m2_shapes_ranges_and_one_logit(size, channels):
    generator, discriminator = DCGANGenerator(size, channels, 2, "xavier"), DCGANDiscriminator(size, 2)
    latent = 50 * tf.random.stateless_normal([2, 100], [1, 2])
    images = generator(latent, training=True)
    assert images.shape == [2, size, size, channels]
    assert float(tf.reduce_max(tf.abs(images))) <= 1.0
    assert discriminator(images, training=True).shape == [2]
    hidden = [f for f in (generator.convolutions[i].filters for i in range(len(plan(size).strides)))]
    assert hidden == [2 * 2 ** (len(hidden) - 1 - i) for i in range(len(hidden))]


def test_m2_weights_of_the_base_layout():
    generator = DCGANGenerator(64, 3, 64)
    generator(tf.keras.Input([100]))
    assert sum(int(np.prod(v.shape)) for v in generator.trainable_variables) == 3_576_704
    shapes = [tuple(layer.kernel.shape) for layer in generator.convolutions]
    assert shapes == [(4, 4, 512, 100), (4, 4, 256, 512), (4, 4, 128, 256), (4, 4, 64, 128), (4, 4, 3, 64)]


def test_m2_the_papers_configuration_at_full_size():
    config = ms.load_config("pm_dcgan", "paper")
    discriminator = DCGANDiscriminator(360, config.discriminator_filters)
    discriminator(tf.keras.Input([360, 360, 4]))
    assert [layer.filters for layer in discriminator.convolutions] == [64, 128, 256, 512, 512]
    assert [layer.kernel_size[0] for layer in discriminator.convolutions] == [4, 4, 4, 5, 5]
    generator = DCGANGenerator(360, 4, config.generator_filters)
    generator(tf.keras.Input([config.latent_size]))
    assert [layer.filters for layer in generator.convolutions] == [512, 256, 128, 64, 32, 4]


def test_m3_norms_biases_and_activations():
    generator, discriminator = DCGANGenerator(64, 4, 4), DCGANDiscriminator(64, 4)
    generator(tf.zeros([1, 10]))
    discriminator(tf.zeros([1, 64, 64, 4]))
    assert len(generator.norms) == len(generator.convolutions) - 1
    assert all(isinstance(norm, BatchNormalization) for norm in generator.norms)
    assert discriminator.norms[0] is None
    assert all(isinstance(norm, BatchNormalization) for norm in discriminator.norms[1:])
    assert not any(layer.use_bias for layer in [*generator.convolutions, *discriminator.convolutions, discriminator.score])
    # with kernels that pass one pixel on, the activations show
    single = DCGANDiscriminator(64, 1)
    x = tf.constant(-1.0, shape=[1, 64, 64, 1])
    single(x)
    single.convolutions[0].kernel.assign(tf.ones_like(single.convolutions[0].kernel) / 16)
    first = tf.nn.leaky_relu(single.convolutions[0](x), 0.2)
    assert float(first[0, 5, 5, 0]) == pytest.approx(-0.2)
    seen = []
    original = tf.nn.leaky_relu
    try:
        tf.nn.leaky_relu = lambda value, alpha: seen.append(alpha) or original(value, alpha)
        single(x)
    finally:
        tf.nn.leaky_relu = original
    assert seen == [0.2] * 4


# -- M4 ---------------------------------------------------------------------------------------------------------------------


def test_m4_losses_of_a_discriminator_that_cannot_tell():
    model = created()
    model.discriminator.score.kernel.assign(tf.zeros_like(model.discriminator.score.kernel))
    batch = batch_of(model)
    losses = model.test_step(batch)
    assert float(losses["discriminator"]) == pytest.approx(2 * math.log(2), rel=1e-6)
    assert float(losses["generator"]) == pytest.approx(math.log(2), rel=1e-6)


def test_m4_losses_are_cross_entropies_in_float64():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 3, 50), rng.normal(0, 3, 50)
    probability = [1 / (1 + np.exp(-x)) for x in (real, fake)]
    smooth = -(0.9 * np.log(probability[0]) + 0.1 * np.log(1 - probability[0])).mean() - np.log(1 - probability[1]).mean()
    assert float(logistic_discriminator(real, fake, real_target=0.9)) == pytest.approx(smooth, rel=1e-5)
    assert float(logistic_generator(fake)) == pytest.approx(-np.log(probability[1]).mean(), rel=1e-5)


def batch_of(model, seed=0):
    source = ms.open_source("phantom:optic_disc?count=12&atrophy=1")
    return next(iter(model.dataset(source, model.config, "train", seed)))


@pytest.mark.parametrize("channels", [3, 4, 5])
def test_m4_each_step_moves_its_own_player_only(channels):
    model = created(channels=channels)
    batch = batch_of(model)
    networks = {"generator_optimizer": model.generator, "discriminator_optimizer": model.discriminator}
    for moving in networks:
        model.compile(**{name: tf.keras.optimizers.SGD(1.0 if name == moving else 0.0) for name in networks})
        before = {name: [v.numpy() for v in network.trainable_variables] for name, network in networks.items()}
        model.train_step(batch)
        for name, network in networks.items():
            moved = [not np.array_equal(v, b) for v, b in zip(network.trainable_variables, before[name])]
            assert all(moved) if name == moving else not any(moved)


def test_m4_real_and_fake_are_judged_apart_and_the_generator_faces_the_moved_discriminator():
    model = created(**{"stabilisers.instance_noise": 0.0})
    batch = batch_of(model)
    seen = []
    judge = model.discriminator.call

    def spy(images, training=False):
        seen.append((images.shape[0], model.discriminator.score.kernel.numpy().copy()))
        return judge(images, training=training)

    model.discriminator.call = spy
    model.train_step(batch)
    assert [size for size, _ in seen] == [4, 4, 4]
    assert np.array_equal(seen[0][1], seen[1][1])
    assert not np.array_equal(seen[1][1], seen[2][1])


def test_m4_stabilisers_change_what_they_should():
    batch = batch_of(created())
    smooth = created(**{"stabilisers.label_smoothing": 0.3}).test_step(batch)
    plain = created().test_step(batch)
    assert float(smooth["discriminator"]) != float(plain["discriminator"])
    assert float(smooth["generator"]) == float(plain["generator"])
    model = created(**{"stabilisers.instance_noise": 0.4, "stabilisers.instance_noise_steps": 4})
    levels = []
    for _ in range(5):
        levels.append(float(model.instance_noise()))
        model.train_step(batch)
    np.testing.assert_allclose(levels, [0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-6)
    zeros = tf.zeros([200, 32, 32, 4])
    noisy = []
    model = created(**{"stabilisers.instance_noise": 0.4})
    model.discriminator.call = lambda images, training: noisy.append(images) or tf.zeros([len(images)])
    model.judged(zeros, tf.range(200, dtype=tf.int64), "noise", training=True)
    model.judged(zeros, tf.range(200, dtype=tf.int64), "noise", training=False)
    assert float(tf.math.reduce_std(noisy[0])) == pytest.approx(0.4, rel=0.01)
    assert not np.any(noisy[1])


# -- M5 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initialiser", ["xavier", "n002"])
def test_m5_initial_variances(initialiser):
    generator, discriminator = DCGANGenerator(64, 4, 16, initialiser), DCGANDiscriminator(64, 16, initialiser)
    generator(tf.zeros([1, 100]))
    discriminator(tf.zeros([1, 64, 64, 4]))
    kernels = [layer.kernel.numpy() for layer in [*generator.convolutions, *discriminator.convolutions]]
    for kernel in kernels:
        area = kernel.shape[0] * kernel.shape[1]
        expected = 2 / (area * (kernel.shape[2] + kernel.shape[3])) if initialiser == "xavier" else 0.02**2
        assert kernel.var() == pytest.approx(expected, rel=0.1)
        assert abs(kernel.mean()) < 4 * np.sqrt(expected / kernel.size)
    same_shape = [k for k in kernels if k.shape == kernels[1].shape]
    assert len({k.tobytes() for k in same_shape}) == len(same_shape)
    scales = np.concatenate([norm.gamma.numpy() for norm in [*generator.norms, *discriminator.norms[1:]]])
    if initialiser == "xavier":
        assert (scales == 1).all()
    else:
        assert scales.mean() == pytest.approx(1, abs=0.01)
        assert scales.std() == pytest.approx(0.02, rel=0.2)


# -- M6 ---------------------------------------------------------------------------------------------------------------------


def test_m6_fixed_grid_is_reproducible_and_follows_the_weights():
    model = created()
    grid = model.fixed_grid().numpy()
    assert grid.shape == (4, 32, 32, 4)
    np.testing.assert_array_equal(grid, model.fixed_grid())
    np.testing.assert_array_equal(grid, created().fixed_grid())
    assert not np.array_equal(grid, created(seed=1).fixed_grid())
    model.train_step(batch_of(model))
    assert not np.array_equal(grid, model.fixed_grid())
    pictures = model.preview({})
    assert {name: picture.shape for name, picture in pictures.items()} == {
        "synthetic 0": (4, 32, 32, 3),
        "mask 0": (4, 32, 32, 1),
    }


def test_m6_the_papers_grid_has_64_samples():
    model = created(fixed_samples=ms.load_config("pm_dcgan", "paper").fixed_samples)
    pictures = model.preview({})
    assert len(pictures) == 16
    assert {picture.shape[0] for picture in pictures.values()} == {8}


def test_m6_a_restored_model_goes_on_with_the_same_loss(tmp_path):
    model = created(**{"stabilisers.instance_noise": 0.2, "stabilisers.instance_noise_steps": 10})
    for seed in range(2):
        model.train_step(batch_of(model, seed))
    model.save(tmp_path / "model")
    restored = ms.load(tmp_path / "model")
    losses = []
    for one in (model, restored):
        for mean in one.metrics:
            mean.reset_state()
        for seed in (2, 3):
            losses.append({name: float(value) for name, value in one.train_step(batch_of(one, seed)).items()})
    assert losses[:2] == losses[2:]
    for a, b in zip(model.average.averages, restored.average.averages):
        np.testing.assert_array_equal(a, b)


# -- M14, M15 ---------------------------------------------------------------------------------------------------------------


def test_m14_pixels_split_at_the_threshold_and_flag_empty_masks():
    model = created(channels=5)
    joint = np.full([3, 32, 32, 5], -1.0, np.float32)
    joint[..., 0] = np.linspace(-1, 1, 32)
    joint[0, 2:6, 2:6, 3] = 1e-3  # just above the threshold
    joint[0, 4:9, 4:9, 4] = 0.5  # overlaps the disc, which is on top
    joint[1, 3, 3, 3] = 0.0  # at the threshold: outside
    joint[1, 7, 7, 4] = 1.0
    joint[2, 7, 7, 3] = 1.0
    made = model.pixels(tf.constant(joint))
    np.testing.assert_array_equal(made["image"][0, 0, :, 0], np.rint(255 * (joint[0, 0, :, 0] + 1) / 2))
    expected = np.zeros([32, 32], np.uint8)
    expected[4:9, 4:9] = 2
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(made["mask"][0], expected)
    np.testing.assert_array_equal(made["empty_mask"], [False, True, True])
    assert set(created(channels=3).pixels(tf.constant(joint[..., :3]))) == {"image"}
    scaled = created(**{"masks.encoding": "zero_one"}).pixels(tf.fill([1, 32, 32, 4], 0.4))
    assert bool(scaled["empty_mask"][0])


def test_m14_pairs_are_written_under_paired_names(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, [2, 16, 16, 3]).astype(np.uint8)
    masks = np.zeros([2, 16, 16], np.uint8)
    masks[0, 3:6, 3:6], masks[0, 8:10, 8:10] = 1, 2
    masks[1, 3:6, 3:6] = 1
    origin = [Provenance("model", "1", seed, "pm_dcgan", "2024-01-01T00:00:00Z") for seed in (5, 6)]
    table = write_pairs(tmp_path, images, masks, origin, ("optic_disc", "atrophy"))
    rows = list(csv.DictReader(table.open()))
    assert [row["image"] for row in rows] == ["000000.png", "000001.png"]
    assert [row["seed"] for row in rows] == ["5", "6"]
    assert [row["empty"] for row in rows] == ["", "atrophy"]
    for row, image, mask in zip(rows, images, masks):
        np.testing.assert_array_equal(Image.open(tmp_path / row["image"]), image)
        for code, name in ((1, "optic_disc"), (2, "atrophy")):
            assert row[name] == row["image"].replace(".png", f"_{name}.png")
            np.testing.assert_array_equal(Image.open(tmp_path / row[name]), (mask == code) * 255)
    with pytest.raises(DataError, match="as many"):
        write_pairs(tmp_path, images, masks[:1], origin)


def test_m15_frechet_distance_of_gaussians():
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, [40_000, 3])
    second = rng.normal(0, 1, [40_000, 3]) * [2.0, 0.5, 1.0] + [1.0, 0.0, -2.0]
    closed = 1 + 4 + (1 - 2) ** 2 + (1 - 0.5) ** 2
    assert frechet_distance(first, second) == pytest.approx(closed, rel=0.02)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_m15_pairing_and_its_shuffled_control():
    masks = np.zeros([12, 8, 12], bool)
    for index in range(12):
        masks[index, :, index] = True
    perfect = pairing(masks, masks, rolls=8)
    assert (perfect.paired, perfect.shuffled, perfect.margin) == (1.0, 0.0, 1.0)
    same = pairing(masks, np.roll(masks, 1, axis=0), rolls=11)
    assert same.paired == 0.0
    assert same.shuffled == pytest.approx(1 / 11)  # one of the eleven rolls puts them back
    half = masks.copy()
    half[:, 4:] = False
    assert pairing(half, masks).paired == pytest.approx(2 * 4 / 12)
    nothing = pairing(np.zeros_like(masks), np.zeros_like(masks))
    assert (nothing.paired, nothing.shuffled) == (0.0, 0.0), "empty pairs earn nothing"
    with pytest.raises(DataError, match="at least 9"):
        pairing(masks[:8], masks[:8])


# -- signatures -------------------------------------------------------------------------------------------------------------


def test_a_latent_gives_what_its_seed_gives_and_unsafe_ones_are_refused():
    model = created()
    signatures = model.signatures()
    seeds = tf.constant([3, 2**40], tf.int64)
    by_seed, by_latent = signatures["serving_default"](seeds), signatures["from_latent"](model.latent(seeds))
    for name, value in by_seed.items():
        np.testing.assert_array_equal(value, by_latent[name])
    with pytest.raises(tf.errors.InvalidArgumentError, match="latent: values must be finite"):
        signatures["from_latent"](tf.constant([[1.0, math.nan, 0.0, 0.0]]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="latent: the batch is empty"):
        signatures["from_latent"](tf.zeros([0, 4]))


def test_the_train_step_is_traced_once():
    model = created()
    source = ms.open_source("phantom:optic_disc?count=12")
    model.fit(model.dataset(source, model.config, "train", epochs=None), steps_per_epoch=3, epochs=2, verbose=0)
    assert model.train_function.experimental_get_tracing_count() == 1
