"""Card 02: choosing a style (M10), sizes and range (M11), inference (M12), and what is served."""

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.metrics.style_descriptor import StyleSpace, shape_correlation, style_descriptor
from tests.methods.tiny import TINY

SEEDS = tf.constant([3, 2**40 + 1], tf.int64)
ALL = tf.ones([2, 3], tf.bool)


def create(**overrides):
    three = {
        "network.filters": [4, 6, 8],
        "image_size": 32,
        "pretraining.epochs": 0,
        **{f"losses.{name}": [1.0, 1.0] for name in ("perceptual", "style")},
    }
    return ms.create("us_style", ms.load_config("us_style", overrides={**TINY["us_style"][0], **three, **overrides}))


@pytest.fixture(scope="module")
def model():
    return create()


@pytest.fixture(scope="module")
def served(model):
    return model.signatures()


def uniform(*shape, seed=0):
    return tf.random.stateless_uniform(shape, [seed, len(shape)])


def pixels(*shape, seed=0):
    return tf.cast(255 * uniform(*shape, seed=seed), tf.uint8)


CONTENT, STYLE, OTHER = uniform(2, 24, 32, 1), uniform(2, 20, 16, 1, seed=1) ** 2, uniform(2, 20, 16, 1, seed=2) ** 0.5


def test_m10_a_code_stands_for_its_style_and_interpolation_ends_at_both_styles(model):
    code, other = model.style_code(STYLE), model.style_code(OTHER)
    assert [tuple(each.shape) for each in code] == [(2, 20, 16, 4), (2, 10, 8, 6), (2, 5, 4, 8)]
    ends = [model.interpolate(CONTENT, STYLE, OTHER, tf.fill([2], a)) for a in (1.0, 0.0)]
    for end, z in zip(ends, (code, other)):
        np.testing.assert_array_equal(end, model.decode(CONTENT, z))
    between = model.interpolate(CONTENT, STYLE, OTHER, tf.constant([0.375, -0.5])).numpy()
    mixed = [tf.stack([0.375 * a[0] + 0.625 * b[0], -0.5 * a[1] + 1.5 * b[1]]) for a, b in zip(code, other)]
    np.testing.assert_allclose(between, model.decode(CONTENT, mixed), atol=1e-5)
    assert np.abs(ends[0] - ends[1]).max() > 1e-4


def test_m10_a_reference_style_is_its_code_and_noise_by_the_seed(model):
    made = model.transfer(CONTENT, STYLE, SEEDS).numpy()
    np.testing.assert_array_equal(made, model.transfer(CONTENT, STYLE, SEEDS))
    assert np.abs(made - model.transfer(CONTENT, STYLE, SEEDS + 1)).max() > 1e-5
    gaussians = model.style_encoder.distributions(STYLE)
    latents = model.style_encoder.sample(gaussians, SEEDS)
    np.testing.assert_allclose(made, model.decode(CONTENT, latents), atol=1e-6)
    noise = [(z - g.mean) / g.deviation for z, g in zip(latents, gaussians)]
    assert np.std(noise[0]) == pytest.approx(0.5, abs=0.03)


def test_m10_the_prior_is_normal_for_each_pixel_or_for_each_channel(model, monkeypatch):
    drawn = {}
    monkeypatch.setattr(type(model), "decode", lambda self, content, latents: latents)
    for kind in ("iid", "coherent"):
        drawn[kind] = model.from_prior(tf.zeros([200, 8, 12, 1]), tf.range(200, dtype=tf.int64), kind == "coherent")
        assert [tuple(z.shape) for z in drawn[kind]] == [(200, 8, 12, 4), (200, 4, 6, 6), (200, 2, 3, 8)]
        for z in drawn[kind]:
            assert abs(np.mean(z)) < 0.1
            assert np.std(z) == pytest.approx(1.0, abs=0.07)
    assert all(np.ptp(z, axis=(1, 2)).max() == 0 for z in drawn["coherent"])
    assert np.std(drawn["iid"][0], axis=(1, 2)).min() > 0.5
    first = drawn["coherent"][0].numpy()[:, 0, 0]
    assert np.abs(np.corrcoef(first.T) - np.eye(4)).max() < 0.3  # each channel has its own


def test_m10_coherent_draws_change_the_style_more_than_draws_for_each_pixel(model):
    content, seeds = tf.repeat(CONTENT[:1], 12, 0), tf.range(12, dtype=tf.int64)
    spread = {}
    for kind in ("coherent", "iid"):
        images = model.from_prior(content, seeds, kind == "coherent").numpy()
        np.testing.assert_array_equal(images, model.from_prior(content, seeds, kind == "coherent"))
        spread[kind] = np.std(images.mean((1, 2, 3)))
    assert spread["coherent"] > 3 * spread["iid"] > 0


def test_m10_shifts_go_by_deviations_on_the_chosen_scales(model):
    gaussians = model.style_encoder.distributions(STYLE)
    still = model.decode(CONTENT, [g.mean for g in gaussians])
    np.testing.assert_array_equal(model.shift(CONTENT, STYLE, tf.zeros([2]), ALL), still)
    np.testing.assert_array_equal(model.shift(CONTENT, STYLE, tf.ones([2]), ~ALL), still)
    chosen = tf.constant([[True, False, True], [False, True, False]])
    amount = np.array([0.7, -0.3], np.float32)
    moved = [
        g.mean + (amount * chosen.numpy()[:, i].astype(np.float32))[:, None, None, None] * g.deviation
        for i, g in enumerate(gaussians)
    ]
    made = model.shift(CONTENT, STYLE, tf.constant(amount), chosen)
    np.testing.assert_allclose(made, model.decode(CONTENT, moved), atol=1e-6)
    assert np.abs(made - still).max() > 1e-4


def test_m10_constants_are_the_same_everywhere_on_the_chosen_scales(model):
    value = tf.constant([-1.0, 1.0])
    chosen = tf.constant([[False, True, False], [True, True, True]])
    sizes, widths = [(24, 32), (12, 16), (6, 8)], (4, 6, 8)
    maps = [
        np.stack([np.full([*size, width], float(value[b]) * float(chosen[b, i]), np.float32) for b in range(2)])
        for i, (size, width) in enumerate(zip(sizes, widths))
    ]
    made = model.constant(CONTENT, value, chosen)
    np.testing.assert_allclose(made, model.decode(CONTENT, maps), atol=1e-6)
    assert np.abs(made - model.constant(CONTENT, -value, chosen)).max() > 1e-3


@pytest.mark.parametrize("site", ["decoder", "skip", "bottleneck"])
def test_m11_any_size_that_halves_goes_and_styles_may_have_another(site):
    model = create(**{"network.adain_site": site})
    for height, width in ((4, 8), (24, 32), (36, 20)):
        content = uniform(1, height, width, 1)
        for style in (uniform(1, 50, 12, 1), content):
            made = model.transfer(content, style, SEEDS[:1]).numpy()
            assert made.shape == (1, height, width, 1)
            assert 0 < made.min() <= made.max() < 1


def test_m12_inference_uses_moving_statistics_and_each_image_is_on_its_own(model):
    statistics = [v for v in model.variables if "moving" in v.name]
    assert len(statistics) > 20
    before = [v.numpy() for v in statistics]
    batch = {"content": pixels(4, 16, 16, 1), "style": pixels(4, 16, 16, 1, seed=1), "seed": tf.range(4, dtype=tf.int64)}
    together = model(batch).numpy()
    alone = np.concatenate([model({name: value[i : i + 1] for name, value in batch.items()}) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert all(np.array_equal(v, b) for v, b in zip(statistics, before))
    assert not np.allclose(model(batch, training=True), together, atol=1e-3)
    assert not all(np.array_equal(v, b) for v, b in zip(statistics, before))


def test_the_deterministic_baseline_has_one_answer_and_no_prior():
    deterministic = create(**{"style.variational": False, "network.adain_site": "bottleneck", "losses.style_form": "moments"})
    first, second = (deterministic.transfer(CONTENT, STYLE, SEEDS + i) for i in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, deterministic.decode(CONTENT, deterministic.style_code(STYLE)))
    assert set(deterministic.signatures()) == {"serving_default", "code", "decode", "interpolate"}
    assert set(deterministic.means) == {"loss", "perceptual", "style"}
    assert set(deterministic.preview(_batch())) == {"content", "style", "synthetic"}


def _batch():
    return {"content": pixels(2, 32, 32, 1), "style": pixels(2, 32, 32, 1, seed=1), "seed": SEEDS}


def test_what_is_served_is_what_the_model_does(model, served):
    content, style = pixels(2, 16, 24, 1), pixels(2, 12, 12, 1, seed=1)
    unit, styles = model.unit(content), model.unit(style)
    ones, half = tf.ones([2]), tf.fill([2], 0.5)

    def same(found, expected):
        assert found["image"].dtype == tf.uint8
        np.testing.assert_allclose(found["image"], 255 * expected, atol=0.51)

    same(served["serving_default"](content=content, style=style, seed=SEEDS), model.transfer(unit, styles, SEEDS))
    code = served["code"](style=style)
    assert list(code) == ["code_1", "code_2", "code_3"]
    reference = served["decode"](content=content, **code)
    same(reference, model.decode(unit, model.style_code(styles)))
    other = tf.reverse(style, [1])
    same(
        served["interpolate"](content=content, style=style, other_style=other, share=half),
        model.interpolate(unit, styles, model.unit(other), half),
    )
    coherent = tf.constant([True, False])
    found = served["prior"](content=content, seed=SEEDS, coherent=coherent)["image"]
    for i, kind in enumerate((True, False)):
        same({"image": found[i : i + 1]}, model.from_prior(unit, SEEDS, kind)[i : i + 1])
    same(served["shift"](content=content, style=style, amount=half, scales=ALL), model.shift(unit, styles, half, ALL))
    same(served["constant"](content=content, value=ones, scales=ALL), model.constant(unit, ones, ALL))
    assert set(model.preview(_batch())) == {"content", "style", "synthetic", "style of the prior"}


@pytest.mark.parametrize(
    ("signature", "changed", "message"),
    [
        ("serving_default", {"content": pixels(0, 16, 16, 1)}, "content: the batch is empty"),
        ("serving_default", {"content": pixels(2, 16, 18, 1)}, "multiples of 4"),
        ("serving_default", {"content": pixels(2, 0, 16, 1)}, "content: sides must be at least 4"),
        ("serving_default", {"style": pixels(2, 2, 16, 1)}, "style: sides must be at least 4"),
        ("serving_default", {"seed": SEEDS[:1]}, "content and seed differ in batch size"),
        ("code", {"style": pixels(0, 16, 16, 1)}, "style: the batch is empty"),
        ("decode", {"code_2": tf.fill([2, 2, 2, 6], np.nan)}, "code_2: values must be finite"),
        ("interpolate", {"share": tf.constant([0.5, np.inf])}, "share: values must be finite"),
        ("interpolate", {"other_style": pixels(2, 16, 12, 1)}, "style and other_style differ in size"),
        ("prior", {"coherent": tf.ones([3], tf.bool)}, "content and coherent differ in batch size"),
        ("shift", {"amount": tf.constant([0.5, np.nan])}, "amount: values must be finite"),
        ("constant", {"scales": ALL[:1]}, "content and scales differ in batch size"),
    ],
)
def test_unsafe_requests_are_refused_in_words(model, served, signature, changed, message):
    request = {name: tf.repeat(value, 2, axis=0) for name, value in model.example_inputs()[signature].items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served[signature](**{**request, **changed})


def test_descriptors_tell_the_phantoms_styles_apart():
    images = {}
    for style in (1, 2, 3, 4):
        source = PhantomSource("ultrasound", 24, style=style)
        images[style] = np.stack([source.read(key)["image"] for key in source.keys()])
    space = StyleSpace(np.concatenate(list(images.values())))
    everything = np.concatenate(list(images.values()))
    assert space.spread(everything) == pytest.approx(1.0)
    for a, b in ((1, 2), (1, 3), (2, 3), (2, 4)):
        within = space.distance(images[a][:12], images[a][12:]).mean()
        assert space.distance(images[a], images[b]).mean() > 1.5 * within
    assert space.fidelity(images[2], images[1], images[2]) == 0.0
    assert space.fidelity(images[1], images[1], images[2]) == 1.0
    assert shape_correlation(images[1], images[1]) == pytest.approx(1.0)
    assert shape_correlation(255 - images[1], images[1]) == pytest.approx(-1.0)
    assert shape_correlation(images[2], images[1]) > 0.6 > abs(shape_correlation(images[1][::-1], images[1]))
    stripes = np.tile(np.array([0.2, 0.8]), (1, 12, 6))[..., None]
    numbers = style_descriptor(stripes.astype(np.float32))[0]
    assert numbers[:2] == pytest.approx([0.5, 0.3], abs=1e-6)
    assert numbers[3] < -0.9
    assert numbers[4] == pytest.approx(1.0)
    assert numbers[5] == pytest.approx(0.0)
