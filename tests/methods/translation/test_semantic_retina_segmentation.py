"""Card 29: the items of stage 3 (segmentation with synthetic pairs), each by its number."""

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.concatenated_source import ConcatenatedSource
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.methods.translation.semantic_retina.segmentation import (
    LesionSegmenter,
    pairs,
    scores,
    share_table_text,
    synthetic_count,
    synthetic_share_table,
    train_segmenter,
)
from medsynth_tf.metrics.overlap import precision_recall_f1

TINY = {
    "image_size": 32,
    "labels": ["retina", "vessel", "bright_lesion"],
    "segmenter": {"lesion": "vessel", "widths": [4, 8], "batch_size": 2, "epochs": 1, "contrast_normalised": False},
    "data": {"split_fractions": [0.5, 0.0, 0.5]},
}


def tiny(**settings):
    overrides = {f"segmenter.{name}": value for name, value in settings.items()}
    return ms.load_config("semantic_retina", overrides={**TINY, "instance_label": None}).replace(overrides)


def fundus(count, seed=0):
    return ms.open_source(f"phantom:fundus?count={count}&size=32&labels=vessels&seed={seed}")


def test_m16_empty_images_count_fully_and_missed_ones_not_at_all():
    empty, full = np.zeros([1, 4, 4], bool), np.ones([1, 4, 4], bool)
    half = full.copy()
    half[0, :2] = False
    rows = precision_recall_f1(np.concatenate([empty, full, empty, half]), np.concatenate([empty, empty, full, full]))
    np.testing.assert_allclose(rows, [[1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 0.5, 2 / 3]])


def test_m16_the_mean_f1_is_over_images_and_not_of_the_means():
    source, config = fundus(6), tiny()
    segmenter = LesionSegmenter(config, seed=1)
    each = scores(segmenter, pairs(source, source.keys(), config, 0, training=False))
    assert each.shape == (6, 3)
    found, wanted = [], []
    for batch in pairs(source, source.keys(), config, 0, training=False):
        logits = segmenter(tf.cast(batch["image"], tf.float32) / 127.5 - 1.0).numpy()
        found.append(logits[..., 1] > logits[..., 0])
        wanted.append(batch["label_map"].numpy() == 1)
    found, wanted = np.concatenate(found), np.concatenate(wanted)
    hits = (found & wanted).sum((1, 2))
    np.testing.assert_allclose(each[:, 2], 2 * hits / (found.sum((1, 2)) + wanted.sum((1, 2))))


def test_m17_counts_are_the_papers():
    assert [synthetic_count(738, share) for share in (0.0, 0.25, 0.5, 0.75)] == [0, 246, 738, 2214]


def test_m17_the_table_has_every_share_and_seed_and_repeats():
    real, synthetic, config = fundus(8), fundus(12, seed=5), tiny()
    rows = synthetic_share_table(real, synthetic, config, shares=(0.0, 0.75), seeds=(0, 1))
    assert [(row.share, row.real, row.synthetic, row.seed) for row in rows] == [
        (share, 4, count, seed) for share, count in ((0.0, 0), (0.75, 12)) for seed in (0, 1)
    ]
    again = synthetic_share_table(real, synthetic, config, shares=(0.75,), seeds=(1,))
    assert again == [rows[3]]
    text = share_table_text(rows).splitlines()
    assert len(text) == 4
    assert text[-1].startswith("| 75 | 12 | ")
    with pytest.raises(DataError, match="needs 76 synthetic pairs beside 4 real ones; there are 12"):
        synthetic_share_table(real, synthetic, config, shares=(0.95,))


class Squares(Source):
    """Dark images; the chosen ones have a bright square, which the mask calls a vessel."""

    def __init__(self, count, bright):
        self.count, self.bright = count, bright

    def keys(self):
        return [RecordKey(str(i), str(i)) for i in range(self.count)]

    def read(self, key):
        image, mask = np.full([32, 32, 3], 60, np.uint8), np.zeros([32, 32], np.uint8)
        if self.bright:
            row, column = np.random.default_rng(int(key.id)).integers(0, 20, 2)
            image[row : row + 12, column : column + 12] = 200
            mask[row : row + 12, column : column + 12] = 1
        return {"id": key.id, "patient_id": key.patient_id, "image": image, "mask": mask}

    def describe(self):
        return {"kind": "squares", "count": self.count}


def test_m17_synthetic_pairs_are_really_trained_on():
    """Real pairs that show no lesion teach nothing of it; synthetic ones that do, do."""
    config = tiny(epochs=15, learning_rate=2e-3, batch_size=4)
    real, synthetic, test = Squares(8, False), Squares(8, True), Squares(30, True)
    f1 = {}
    for name, parts in (("real", [(real, real.keys())]), ("both", [(real, real.keys()), (synthetic, synthetic.keys())])):
        segmenter = train_segmenter(ConcatenatedSource(parts), config)
        f1[name] = scores(segmenter, pairs(test, test.keys()[10:], config, 0, training=False))[:, 2].mean()
    assert f1["real"] < 0.3
    assert f1["both"] > 0.7


def test_one_step_follows_rmsprop_with_decay_and_clipping():
    config = tiny(weight_decay=0.01, clip_value=0.001)
    segmenter = LesionSegmenter(config, seed=2)
    segmenter.compile()
    source = fundus(4)
    batch = next(iter(pairs(source, source.keys(), config, 0, training=True)))
    variables = segmenter.trainable_variables
    before = [v.numpy() for v in variables]
    with tf.GradientTape() as tape:
        logits = segmenter(tf.cast(batch["image"], tf.float32) / 127.5 - 1.0, training=True)
        target = tf.cast(batch["label_map"] == 1, tf.int32)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=logits))
    gradients = tape.gradient(loss, variables)
    segmenter.train_step(batch)
    for variable, old, gradient in zip(variables, before, gradients):
        clipped = np.clip(gradient.numpy() + 0.01 * old, -0.001, 0.001)
        expected = old - 5e-4 * clipped / (np.sqrt((1 - 0.99) * clipped**2) + 1e-8)
        np.testing.assert_allclose(variable.numpy(), expected, atol=2e-4)


def test_concatenated_sources_keep_records_and_patients_apart():
    first, second = fundus(4), fundus(2, seed=1)
    both = ConcatenatedSource([(first, first.keys()[1:3]), (second, second.keys())])
    keys = both.keys()
    assert [key.id for key in keys] == ["0/fundus-000001", "0/fundus-000002", "1/fundus-000000", "1/fundus-000001"]
    assert len({key.patient_id for key in keys}) == 3
    np.testing.assert_array_equal(both.read(keys[1])["image"], first.read(first.keys()[2])["image"])
    np.testing.assert_array_equal(both.read(keys[3])["mask"], second.read(second.keys()[1])["mask"])
    assert both.describe()["count"] == 4
    streamed = [element["id"].numpy().decode() for element in both.stream(keys, shuffle=False, epochs=1)]
    assert streamed == [key.id for key in keys]
