"""Card 29: the items of stage 2 and its sampler, each by its number."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.data.fundus_contrast import normalise_contrast
from medsynth_tf.layers.normalization import InstanceNormalization, SpectralConv2D
from medsynth_tf.layers.spade import SPADE, SPADEResidualBlock
from medsynth_tf.losses.adversarial import feature_matching
from medsynth_tf.methods.translation.semantic_retina.config import LESION_LABELS
from medsynth_tf.methods.translation.semantic_retina.sampling import disc, harden, instance_map
from medsynth_tf.networks.patchgan import MultiscaleDiscriminator
from medsynth_tf.networks.spade_generator import SPADEGenerator, block_plan
from medsynth_tf.ops import labels

PAINT_ORDER = (
    "retina",
    "optic_disc",
    "hard_exudate",
    "haemorrhage",
    "microaneurysm",
    "soft_exudate",
    "neovascularisation",
    "irma",
)


def random_maps(shape, classes, seed=0):
    codes = np.random.default_rng(seed).integers(0, classes + 1, shape)
    return np.where(codes == classes, 255, codes).astype(np.uint8)


# -- M1 ---------------------------------------------------------------------------------------------------------------------


def test_m1_one_hot_round_trips_and_sums_to_one():
    maps = random_maps([3, 16, 20], 8)
    planes = labels.one_hot(maps, 9)
    assert planes.shape == [3, 16, 20, 9]
    np.testing.assert_array_equal(tf.reduce_sum(planes, -1), np.ones([3, 16, 20]))
    np.testing.assert_array_equal(planes[..., 8] == 1, maps == 255)
    np.testing.assert_array_equal(labels.from_one_hot(planes), maps)


def test_m1_codes_outside_the_domain_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"0 … 7 or 255"):
        labels.assert_valid(tf.constant([[[0, 8]]], tf.uint8), 9)


def test_m1_later_classes_are_painted_over_earlier_ones():
    whole = np.ones([4, 4], bool)
    left = np.zeros_like(whole)
    left[:, :2] = True
    corner = np.zeros_like(whole)
    corner[0, 0] = True
    # IRMA is last; haemorrhage and microaneurysm cover the exudate, whatever their codes are
    painted = labels.paint(
        {"irma": corner, "hard_exudate": whole, "microaneurysm": left, "retina": whole}, LESION_LABELS, PAINT_ORDER
    )
    assert painted[0, 0] == LESION_LABELS.index("irma")
    assert (painted[1:, :2] == LESION_LABELS.index("microaneurysm")).all()
    assert (painted[:, 2:] == LESION_LABELS.index("hard_exudate")).all()
    assert (labels.paint({"optic_disc": left}, LESION_LABELS, PAINT_ORDER)[:, 2:] == 255).all()


# -- M9 ---------------------------------------------------------------------------------------------------------------------


def test_m9_zero_gamma_and_beta_leave_the_parameter_free_norm():
    x = tf.random.stateless_normal([4, 8, 8, 5], [0, 1], mean=3.0, stddev=2.0)
    planes = labels.one_hot(random_maps([4, 8, 8], 3), 4)
    for norm, axes in (("batch", (0, 1, 2)), ("instance", (1, 2))):
        layer = SPADE(7, norm)
        layer((x, planes))
        for weight in layer.gamma_beta.weights:
            weight.assign(tf.zeros_like(weight))
        values = x.numpy().astype(np.float64)
        expected = (values - values.mean(axes, keepdims=True)) / np.sqrt(values.var(axes, keepdims=True) + 1e-5)
        np.testing.assert_allclose(layer((x, planes), training=True), expected, atol=2e-5)


def test_m9_gamma_and_beta_scale_and_shift():
    x = tf.random.stateless_normal([2, 6, 6, 3], [0, 1])
    layer = SPADE(4, "instance")
    planes = labels.one_hot(random_maps([2, 6, 6], 2), 3)
    layer((x, planes))
    kernel, bias = layer.gamma_beta.weights
    kernel.assign(tf.zeros_like(kernel))
    bias.assign([0.5, -0.5, 2.0, 7.0, 8.0, 9.0])
    expected = InstanceNormalization()(x) * [1.5, 0.5, 3.0] + [7.0, 8.0, 9.0]
    np.testing.assert_allclose(layer((x, planes)), expected, atol=1e-5)


def test_m9_permuting_labels_with_their_kernels_changes_nothing():
    x = tf.random.stateless_normal([2, 8, 8, 4], [3, 1])
    planes = labels.one_hot(random_maps([2, 8, 8], 4), 5)
    layer = SPADE(6, "instance")
    before = layer((x, planes))
    order = [3, 0, 4, 1, 2]
    assert not np.allclose(layer((x, tf.gather(planes, order, axis=-1))), before, atol=1e-6)
    layer.shared.kernel.assign(tf.gather(layer.shared.kernel, order, axis=2))
    np.testing.assert_allclose(layer((x, tf.gather(planes, order, axis=-1))), before, atol=1e-6)


def test_m9_blocks_see_the_label_by_nearest_neighbour():
    generator = SPADEGenerator(64, filters=2, hidden_filters=4, styled=False)
    planes = labels.one_hot(random_maps([1, 64, 64], 3), 4)
    seen = []
    call = SPADEResidualBlock.call

    def spy(self, inputs, training=False):
        seen.append(inputs[1].numpy())
        return call(self, inputs, training)

    with mock.patch.object(SPADEResidualBlock, "call", spy):
        generator({"label": planes})
    assert [s.shape[1] for s in seen] == [2, 4, 4, 8, 16, 32, 64]
    for level in seen:
        factor = 64 // level.shape[1]
        np.testing.assert_array_equal(level, planes.numpy()[:, ::factor, ::factor])


# -- M10 --------------------------------------------------------------------------------------------------------------------


def test_m10_uniform_maps_keep_their_class_only_through_spade():
    uniform = [labels.one_hot(np.full([1, 8, 8], code, np.uint8), 4) for code in (0, 2)]
    convolution = tf.keras.layers.Conv2D(6, 3)
    reflected = [tf.pad(planes, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT") for planes in uniform]
    washed = [InstanceNormalization()(convolution(planes)).numpy() for planes in reflected]
    # a constant has no variance: both are zero but for rounding, which the norm enlarges by 1/√ε
    np.testing.assert_allclose(washed, np.zeros_like(washed), atol=3e-3)
    x = tf.random.stateless_normal([1, 8, 8, 6], [0, 1])
    spade = SPADE(16, "instance", seed=1)
    spade((x, uniform[0]))
    spade.gamma_beta.kernel.assign(tf.random.stateless_normal(spade.gamma_beta.kernel.shape, [5, 6]))
    spade.shared.kernel.assign(tf.random.stateless_normal(spade.shared.kernel.shape, [7, 8]))
    kept = [spade((x, planes)).numpy() for planes in uniform]
    assert np.abs(kept[0] - kept[1]).mean() > 0.1


# -- M11 --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("features", "filters", "learned"), [(6, 6, False), (6, 4, True), (4, 6, True)])
def test_m11_shortcut_is_learned_iff_widths_differ(features, filters, learned):
    x = tf.random.stateless_normal([2, 8, 8, features], [0, 1])
    planes = labels.one_hot(random_maps([2, 8, 8], 2), 3)
    block = SPADEResidualBlock(filters, hidden_filters=5)
    assert block((x, planes)).shape == [2, 8, 8, filters]
    assert block.learned_shortcut is learned
    assert hasattr(block, "conv_s") is learned
    assert block.conv_0.filters == min(features, filters)
    if learned:
        assert block.conv_s.kernel_size == (1, 1)
        assert not block.conv_s.use_bias
    else:  # with the main branch silenced, the identity is left
        for weight in block.conv_1.weights:
            if "singular" not in weight.name:
                weight.assign(tf.zeros_like(weight))
        np.testing.assert_array_equal(block((x, planes)), x)


def test_m11_spectral_norm_brings_the_largest_singular_value_to_one():
    layer = SpectralConv2D(7, 3, seed=3, power_iterations=10, kernel_initializer=tf.keras.initializers.GlorotUniform(seed=2))
    x = tf.random.stateless_normal([1, 6, 6, 4], [0, 1])
    layer(x)
    layer.kernel.assign(3.0 * layer.kernel)
    for _ in range(50):  # the two largest singular values may lie close together
        layer(x, training=True)
    matrix = layer.normalised_kernel().numpy().reshape(-1, 7)
    assert np.linalg.svd(matrix, compute_uv=False)[0] == pytest.approx(1.0, abs=1e-3)
    stored = np.linalg.svd(layer.kernel.numpy().reshape(-1, 7), compute_uv=False)[0]
    assert stored > 2.0  # the stored kernel is left alone
    u = layer.singular_vector.numpy()
    layer(x, training=False)
    np.testing.assert_array_equal(layer.singular_vector.numpy(), u)


def test_m11_gradient_flows_through_the_singular_value():
    layer = SpectralConv2D(3, 1, use_bias=False, seed=3)
    layer.build([None, 4, 4, 3])
    for _ in range(100):
        layer.normalised_kernel(training=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.normalised_kernel() * tf.reshape(tf.range(9.0), [1, 1, 3, 3]))
    gradient = tape.gradient(loss, layer.kernel)
    # W/σ(W) does not change when W is scaled, so the gradient is orthogonal to W; it would not be if σ were a constant
    assert abs(float(tf.reduce_sum(gradient * layer.kernel))) < 1e-3 * float(tf.norm(gradient) * tf.norm(layer.kernel))


# -- M12 --------------------------------------------------------------------------------------------------------------------


def test_m12_two_scales_of_five_features_with_the_reference_shapes():
    outputs = MultiscaleDiscriminator(2, filters=64)(tf.zeros([1, 512, 512, 13]))
    # 4×4 kernels padded by 2: n/2 + 1 at stride 2, n + 1 at stride 1
    assert [feature.shape[1:] for feature in outputs[0]] == [
        (257, 257, 64),
        (129, 129, 128),
        (65, 65, 256),
        (66, 66, 512),
        (67, 67, 1),
    ]
    assert [feature.shape[1] for feature in outputs[1]] == [129, 65, 33, 34, 35]
    assert len(outputs) == 2


def test_m12_feature_matching_leaves_out_the_score_and_detaches_the_real_side():
    real = [[tf.Variable([1.0, 2.0]), tf.Variable([5.0])], [tf.Variable([0.0]), tf.Variable([5.0])]]
    fake = [[tf.Variable([2.0, 4.0]), tf.Variable([9.0])], [tf.Variable([3.0]), tf.Variable([9.0])]]
    with tf.GradientTape() as tape:
        loss = feature_matching(real, fake)
    assert float(loss) == pytest.approx((1.5 + 3.0) / 2)
    gradients = tape.gradient(loss, [real[0][0], real[1][0], fake[0][1], fake[0][0], fake[1][0]])
    assert gradients[:3] == [None, None, None]
    np.testing.assert_allclose(gradients[3], [0.25, 0.25])
    np.testing.assert_allclose(gradients[4], [0.5])


# -- M13 --------------------------------------------------------------------------------------------------------------------


def test_m13_threshold_then_argmax_with_retina_where_no_class_wins():
    soft = np.zeros([1, 2, 2, 4], np.float32)
    soft[0, 0, 0] = [0.1, 0.7, 0.1, 0.1]
    soft[0, 0, 1] = [0.0, 0.45, 0.35, 0.2]  # the largest does not pass 0.5
    soft[0, 1, 0] = [0.0, 0.0, 0.2, 0.8]
    soft[0, 1, 1] = [0.0, 0.1, 0.9, 0.0]
    np.testing.assert_array_equal(harden(soft, 2)[0], [[1, 0], [255, 2]])


def test_m13_soft_maps_are_enlarged_bilinearly():
    soft = np.zeros([1, 2, 2, 2], np.float32)
    soft[0, :, 0, 0] = soft[0, :, 1, 1] = 1.0  # class 0 left, background right: half-way they are .75/.25
    np.testing.assert_array_equal(harden(soft, 4)[0], [[0, 0, 255, 255]] * 4)


def test_m13_mask_retina_is_an_exact_disc_that_keeps_lesions():
    soft = np.zeros([1, 64, 64, 4], np.float32)
    soft[..., 3] = 1.0  # all background
    soft[0, 30:34, 30:34] = [0, 0, 1, 0]
    maps = harden(soft, 64, mask_retina=True).numpy()[0]
    rows, columns = np.mgrid[:64, :64] - 31.5
    inside = rows**2 + columns**2 <= 31.0**2
    lesion = np.zeros_like(inside)
    lesion[30:34, 30:34] = True
    np.testing.assert_array_equal(disc(64), inside)
    np.testing.assert_array_equal(maps[lesion], 2)
    np.testing.assert_array_equal(maps[~lesion], np.where(inside, 0, 255)[~lesion])


def test_m13_instance_map_is_the_optic_disc_and_its_edges_are_the_outline():
    maps = np.zeros([1, 8, 8], np.uint8)
    maps[0, 2:6, 2:6] = 1
    maps[0, 3, 3] = 4  # a lesion on the disc
    instances = instance_map(maps, 1).numpy()
    np.testing.assert_array_equal(instances, maps == 1)
    edges = labels.instance_edges(tf.constant(instances)).numpy()[0, ..., 0]
    expected = np.zeros([8, 8])
    for row in range(8):
        for column in range(8):
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= r < 8 and 0 <= c < 8 and instances[0, r, c] != instances[0, row, column]:
                    expected[row, column] = 1
    np.testing.assert_array_equal(edges, expected)


# -- M15 --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 77, 255])
def test_m15_a_constant_image_becomes_128_everywhere(level):
    np.testing.assert_array_equal(normalise_contrast(np.full([60, 60, 3], level, np.uint8)), 128)


def test_m15_contrast_is_four_times_the_difference_from_the_blurred_image():
    from scipy.ndimage import gaussian_filter

    image = np.random.default_rng(0).integers(100, 140, [90, 90, 3]).astype(np.uint8)
    result = normalise_contrast(image)
    values = image.astype(np.float64)
    blurred = np.stack([gaussian_filter(values[..., c], 90 / 30) for c in range(3)], -1)
    expected = np.clip(4 * values - 4 * blurred + 128, 0, 255)
    np.testing.assert_allclose(result[30:60, 30:60], expected[30:60, 30:60], atol=1.5)
    np.testing.assert_array_equal(result[0], 128)  # outside the disc of diameter 0.9 H


# -- the generator's variants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("upsampling", "doublings", "blocks"), [("normal", 5, 7), ("more", 6, 7), ("most", 7, 8)])
def test_upsampling_variants_double_as_often_as_the_reference(upsampling, doublings, blocks):
    plan = block_plan(64, upsampling)
    assert sum(doubled for _, doubled in plan) == doublings
    assert len(plan) == blocks
    assert [width for width, _ in plan[:7]] == [1024, 1024, 1024, 512, 256, 128, 64]
    generator = SPADEGenerator(128, filters=2, hidden_filters=3, upsampling=upsampling, styled=True)
    image = generator({"label": tf.zeros([1, 128, 128, 2]), "style": tf.zeros([1, 4])})
    assert image.shape == [1, 128, 128, 3]
    assert generator.entry_size == 128 // 2**doublings


def test_the_papers_configuration_builds_at_full_size():
    model = ms.create("semantic_retina", ms.load_config("semantic_retina", "paper"))
    assert model.generator.output_shape == (None, 512, 512, 3)
    assert [scale[-1][1:] for scale in model.discriminator.output_shape] == [(67, 67, 1), (35, 35, 1)]
    assert model.plane_channels == 10  # eight classes, background, the disc's edge
    # the widest convolution of the head block, 1024 → 1024
    assert model.generator.blocks[0].conv_0.kernel.shape == (3, 3, 1024, 1024)
    assert model.generator.blocks[0].spade_0.gamma_beta.kernel.shape == (3, 3, 128, 2048)
