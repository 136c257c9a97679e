"""Every registered method goes both roads with nothing changed but its name and configuration: from `medsynth train` to gRPC, and
through the TFX pipeline to a pushed model."""

import json

import pytest
import yaml

import medsynth_tf as ms
from medsynth_tf.cli.main import main
from medsynth_tf.core.card import ModelCard
from serving.smoke import smoke_test
from tests.methods.tiny import TINY
from tfx_pipelines.factory import PipelineSettings
from tfx_pipelines.runners.local import run

SLUGS = [info.slug for info in ms.list_methods()]
QUICK = {
    "training.epochs": 1,
    "training.steps_per_epoch": 1,
    "training.image_steps": 100,
    "data.split_fractions": [0.6, 0.2, 0.2],
    "evaluation.gates": [],  # one step earns no blessing
}


def flat(values, prefix=""):
    """Nested settings as pairs ("a.b", value)."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def tiny(slug):
    """The profile `small` with the method's tiny settings, and one step a stage."""
    return {**dict(flat(TINY[slug][0])), **QUICK}


@pytest.mark.slow  # the pipeline trains and judges by the same functions, and its smoke test is the same
@pytest.mark.parametrize("slug", SLUGS)
def test_the_shell_trains_judges_and_exports_what_answers_over_grpc(slug, tmp_path, capsys):
    settings = [
        f"--set={name}={yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}" for name, value in tiny(slug).items()
    ]
    data = f"--data={TINY[slug][1]}"
    assert main(["train", slug, "--profile=small", data, f"--out={tmp_path}/run", *settings]) == 0, capsys.readouterr().err
    assert main(["evaluate", f"{tmp_path}/run/model", data, f"--out={tmp_path}/report"]) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert (tmp_path / "report" / "index.html").is_file()
    assert main(["export", f"{tmp_path}/run/model", f"--out={tmp_path}/served"]) == 0, capsys.readouterr().err
    [version] = (tmp_path / "served").iterdir()
    smoke_test(version)  # a server process, each signature's example request, the SavedModel's own answers


@pytest.mark.parametrize("slug", SLUGS)
def test_the_pipeline_trains_judges_and_pushes(slug, tmp_path):
    source = TINY[slug][1]
    done = run(ms.load_config(slug, "small", tiny(slug)), source, PipelineSettings(tmp_path / "work", tmp_path / "served"))
    assert done.blessed
    card = ModelCard.read(done.pushed)
    card.verify(done.pushed)
    assert card.data_fingerprint == ms.open_source(source).fingerprint()
    assert (done.evaluation / "index.html").is_file()
