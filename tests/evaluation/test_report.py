import base64
import html.parser
import json

import numpy as np
import pytest
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.evaluation.gates import check_gates
from medsynth_tf.evaluation.report import write_report

METRICS = {"extractor": "some network", "fid": 1.23456, "kid": None, "warnings": ["too <few> images"]}


class _Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_whole_and_stands_alone(tmp_path):
    picture = tmp_path / "sheet.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture)
    verdicts = check_gates(METRICS, ["fid <= 2", "kid <= 1"])
    path = write_report(
        tmp_path / "report",
        title="A & B",
        metrics=METRICS,
        pictures={"Real <and> synthetic": picture},
        verdicts=verdicts,
        config={"training": {"batch_size": 8}},
    )
    page = _Page(path.read_text())
    assert not page.open
    (image,) = page.images
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == picture.read_bytes()
    for words in ("A & B", "SYNTHETIC", "some network", "1.235", "not computed", "too <few> images", "training.batch_size: 8"):
        assert words in page.text
    assert "passes" in page.text
    assert "fails" in page.text
    assert "http" not in path.read_text()


def test_metrics_beside_the_page(tmp_path):
    write_report(tmp_path, title="T", metrics=METRICS)
    assert json.loads((tmp_path / "metrics.json").read_text()) == METRICS


def test_numbers_without_their_extractor_are_refused(tmp_path):
    with pytest.raises(DataError, match="feature extractor"):
        write_report(tmp_path, title="T", metrics={"fid": 1.0})


def test_missing_picture_is_refused_and_no_page_is_left(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        write_report(tmp_path, title="T", metrics=METRICS, pictures={"A": tmp_path / "gone.png"})
    assert not (tmp_path / "index.html").exists()
