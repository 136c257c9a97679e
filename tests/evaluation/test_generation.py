import json

import numpy as np
import pytest

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation.generation import GenerationImages, evaluate_generation, write_generation_report
from medsynth_tf.metrics.extractors import TextureExtractor
from medsynth_tf.metrics.tfgan import frechet_distance, kernel_distance


def _phantoms(seed, count):
    source = PhantomSource("fundus", count, size=96, seed=seed, labels="vessels")
    keys = source.keys()
    records = [source.read(key) for key in keys]
    return np.stack([r["image"] for r in records]), np.stack([r["mask"] for r in records])


@pytest.fixture(scope="module")
def sets():
    return _phantoms(0, 70), _phantoms(1, 60), _phantoms(2, 64)


def test_all_measures_of_good_images(sets):
    (train, _), (real, real_masks), (synthetic, masks) = sets
    metrics = evaluate_generation(real, synthetic, real_masks, masks, train)
    extract = TextureExtractor()
    assert metrics["extractor"] == extract.name
    assert metrics["fid"] == pytest.approx(frechet_distance(extract(real), extract(synthetic)))
    assert metrics["kid"] == pytest.approx(kernel_distance(extract(real), extract(synthetic)))
    assert metrics["images_real"] == 60
    assert 0 < metrics["ms_ssim_synthetic"] < 0.9
    assert metrics["label_agreement"]["ratio"] == pytest.approx(1, abs=0.1)
    assert metrics["memorisation"]["pixels"]["copies"] == 0
    assert metrics["warnings"] == []
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_a_collapsed_generator_shows(sets):
    _, (real, _), (synthetic, _) = sets
    collapsed = np.repeat(synthetic[:1], 20, axis=0)
    metrics = evaluate_generation(real, collapsed)
    assert metrics["ms_ssim_synthetic"] == pytest.approx(1)
    assert metrics["ms_ssim_real"] < 0.9
    assert metrics["fid"] > evaluate_generation(real, synthetic[:20])["fid"]
    assert "label_agreement" not in metrics
    assert "memorisation" not in metrics


def test_too_few_images_are_said_not_hidden(sets):
    (train, _), (real, _), (synthetic, _) = sets
    metrics = evaluate_generation(real[:5], synthetic[:1], train=train)
    assert metrics["fid"] is metrics["kid"] is metrics["ms_ssim_synthetic"] is None
    assert metrics["ms_ssim_real"] is not None
    text = " | ".join(metrics["warnings"])
    for words in ("fid is not computed", "kid is not computed", "biased upwards", "percentiles of 5 held-out"):
        assert words in text


def test_copies_and_leaks_are_said(sets):
    (train, _), (real, _), (synthetic, _) = sets
    synthetic, real = synthetic.copy(), real.copy()
    synthetic[3], real[4] = train[1], train[2]
    metrics = evaluate_generation(real, synthetic, train=train)
    assert "1 synthetic image(s) equal a training image" in " ".join(metrics["warnings"])
    assert "the split leaks" in " ".join(metrics["warnings"])
    assert metrics["memorisation"]["pixels"]["copies"] == 1


def test_images_that_do_not_fit_are_refused(sets):
    _, (real, real_masks), (synthetic, _) = sets
    broken = (synthetic / 255).astype(np.float32)
    broken[2, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="sizes must be the same"):
        evaluate_generation(real, synthetic[:, :64])
    with pytest.raises(DataError, match="or of neither"):
        evaluate_generation(real, synthetic, real_masks)
    with pytest.raises(DataError, match="synthetic images: image 2 has values that are not finite"):
        evaluate_generation(real, broken)
    with pytest.raises(DataError, match="0 image"):
        evaluate_generation(real, synthetic[:0])


def test_report_holds_all_pictures(sets, tmp_path):
    (train, _), (real, real_masks), (synthetic, masks) = sets
    log = tmp_path / "log.csv"
    log.write_text("step,g_loss\n0,3\n1,2\n2,1.5\n")
    images = GenerationImages(real[:8], synthetic[:8], real_masks[:8], masks[:8], train)
    metrics = write_generation_report(
        tmp_path / "report", "Phantoms", images, gates=["label_agreement.ratio >= 0.8"], log=log, config={"seed": 3}
    )
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {
        "index.html",
        "metrics.json",
        "real_and_synthetic.png",
        "masks_and_images.png",
        "nearest_in_pixels.png",
        "nearest_in_features.png",
        "losses.png",
    }
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert metrics["extractor"] in page
    assert "passes" in page
