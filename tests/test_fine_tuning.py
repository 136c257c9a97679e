"""The snippets of docs/fine_tuning.md, run as they stand on models and folders made for them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medsynth_tf as ms

ROOT = Path(__file__).parents[1]
TINY = {
    "tvps": (
        {
            "image_size": 32,
            "generator": {"levels": 3, "filters": 2, "hidden": 4, "components": 2, "latent": 4},
            "discriminator": {"filters": 2, "patch": 16},
            "classifier": {"filters": 4},
            "training": {"batch_size": 4},
        },
        "phantom:vessel_classes?count=30&size=32",
    ),
    "semantic_retina": (
        {
            "image_size": 32,
            "generator": {"filters": 2, "hidden_filters": 4},
            "style": {"size": 4, "filters": 2},
            "discriminator": {"filters": 4},
            "data.split_fractions": [0.7, 0.3, 0.0],
            "training": {"batch_size": 2},
        },
        "phantom:fundus?count=12&size=32&labels=vessels",
    ),
}


def snippet(slug):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "fine_tuning.md").read_text(), re.S)
    return next(text for text in snippets if f'load_data("{slug}"' in text)


def write_folder(folder, spec):
    """The phantom's records as a folder with a manifest."""
    folder.mkdir()
    source, rows = ms.open_source(spec), ["image,mask,id,patient_id,label"]
    for key in source.keys():
        record = source.read(key)
        Image.fromarray(np.squeeze(record["image"])).save(folder / f"{key.id}.png")
        Image.fromarray(record["mask"]).save(folder / f"{key.id}_mask.png")
        rows.append(f"{key.id}.png,{key.id}_mask.png,{key.id},{key.patient_id},{key.label}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("slug", sorted(TINY))
def test_snippet(slug, tmp_path):
    text = snippet(slug)
    overrides, spec = TINY[slug]
    model = ms.create(slug, ms.load_config(slug, overrides=overrides))
    model.compile()
    start = tmp_path / re.search(r'load\("(.*?)"\)', text).group(1)
    start.parent.mkdir(parents=True)
    model.save(start)
    write_folder(tmp_path / re.search(r'"folder:(.*?)"', text).group(1), spec)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    version = tmp_path / done.stdout.strip().splitlines()[-1]
    assert (version / "saved_model.pb").is_file()
    tuned = ms.load(tmp_path / re.search(r'save\("(.*?)"\)', text).group(1))
    kept = [np.array_equal(a, b) for a, b in zip(tuned.encoder.trainable_variables, model.encoder.trainable_variables)]
    head = tuned.classifier if slug == "tvps" else tuned.generator
    before = model.classifier if slug == "tvps" else model.generator
    moved = [not np.array_equal(a, b) for a, b in zip(head.trainable_variables, before.trainable_variables)]
    assert all(kept)
    assert np.mean(moved) > 0.9
