"""Sorting is judged against labels where there are some, and shown cluster by cluster."""

import json

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.source import RecordKey
from medsynth_tf.evaluation.categories import judge_categories
from tests.methods.tiny import TINY


class Unlabelled(PhantomSource):
    """The phantom without its labels."""

    def keys(self):
        return [RecordKey(key.id, key.patient_id) for key in super().keys()]

    def read(self, key):
        return {name: value for name, value in super().read(key).items() if name != "label"}


def settings(**more):
    return ms.load_config("deepmcat", overrides={**TINY["deepmcat"][0], "data.split_fractions": [0.4, 0.0, 0.6], **more})


class Sorter:
    """Answers with given clusters, image after image."""

    def __init__(self, clusters, named=None):
        self.clusters, self.named, self.asked = clusters, named or {}, 0

    def __call__(self, batch):
        count = len(batch["image"])
        own = self.clusters[self.asked : self.asked + count]
        self.asked += count
        label = [self.named.get(cluster, -1) for cluster in own]
        return {"cluster": tf.constant(own), "distance": tf.linspace(0.1, 0.3, count), "label": tf.constant(label)}


def judged(tmp_path, clusters, source, config=None, **named):
    return judge_categories(Sorter(clusters, **named), config or settings(), source, tmp_path, "test", None, None)


def test_perfect_clusters_are_pure_and_named_ones_are_right(tmp_path):
    source, config = PhantomSource("cardiac_views", 20, size=32), settings()
    labels = [key.label for key in source.split("test", config.data.split_fractions, config.seed)]
    found = judged(tmp_path, [10 + label for label in labels], source, named={10: 0, 11: 1, 12: 2, 13: 0})["clusters"]
    assert found["purity"] == 1.0
    assert found["nmi_labels"] == pytest.approx(1.0)
    assert found["named_accuracy"] == pytest.approx(np.mean([label != 3 for label in labels]))
    assert (found["images"], found["nonempty"]) == (12, len(set(labels)))
    assert found["largest"] == np.bincount(labels).max()
    assert (tmp_path / "clusters-01.png").is_file()
    assert json.loads((tmp_path / "metrics.json").read_text())["clusters"]["purity"] == 1.0


def test_one_cluster_is_as_pure_as_its_commonest_label(tmp_path):
    source, config = PhantomSource("cardiac_views", 20, size=32), settings()
    labels = [key.label for key in source.split("test", config.data.split_fractions, config.seed)]
    found = judged(tmp_path, [5] * len(labels), source)["clusters"]
    assert found["purity"] == pytest.approx(np.bincount(labels).max() / len(labels))
    assert found["nmi_labels"] == 0.0
    assert found["named_accuracy"] is None


def test_an_archive_without_labels_gets_its_report_and_does_not_pass_a_gate_on_purity(tmp_path):
    config = settings(**{"evaluation.gates": ["clusters.purity >= 0.5", "clusters.nonempty >= 2"]})
    source = Unlabelled("cardiac_views", 20, size=32)
    metrics = judged(tmp_path, [0, 1] * 6, source, config)
    assert metrics["clusters"]["purity"] is None
    assert "no labels" in metrics["warnings"][0]
    page = (tmp_path / "index.html").read_text()
    assert "not computed" in page


def test_many_clusters_take_several_sheets_and_an_empty_split_is_refused(tmp_path):
    source = PhantomSource("cardiac_views", 40, size=32)
    judged(tmp_path, list(range(24)), source)
    assert sorted(path.name for path in tmp_path.glob("clusters-*.png")) == ["clusters-01.png", "clusters-02.png"]
    empty = settings(**{"data.split_fractions": [1.0, 0.0, 0.0]})
    with pytest.raises(DataError, match="empty"):
        judged(tmp_path, [], source, empty)
