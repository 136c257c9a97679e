"""`medsynth demo`: the whole road on real photographs, from files to a server's synthetic images."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core import registry
from medsynth_tf.core.errors import DataError

METHOD = "semantic_retina"
BUILT_IN = "skimage:retina?size={size}"
COUNT = 16
# epochs of a hundred steps each: four and eight minutes on two cores. Whole photographs have finer vessels than the built-in
# one's patches, and need longer
QUICK = {"training.epochs": 20}
BUILT_IN_QUICK = {"training.epochs": 10}
# the built-in photograph's masks are the judging filter's own, so that real patches agree with them far better than with a
# person's, and the same synthetic image comes out lower relative to them
BUILT_IN_GATES = {"evaluation.gates": ["label_agreement.ratio >= 0.7", "memorisation.pixels.copies <= 0"]}
REFUSED = 7


def run(data: str | None, out: Path, profile: str, overrides: Mapping[str, Any]) -> int:
    """Pipeline, server, 16 images as PNG and DICOM, report. Run again in the same folder, it goes on where it stopped.

    Args:
        data: source of photographs with masks; None for the photograph that scikit-image ships.
        out: folder of everything it makes: `pipeline/`, `served/`, `synthetic/`, `report/`.
        profile: of the method's configuration.
        overrides: settings to replace.

    Returns:
        Exit code: 0, or 7 if the model was refused by its quality gates.
    """
    started = time.monotonic()
    config = registry.load_config(
        METHOD, profile, {**QUICK, **({} if data else {**BUILT_IN_QUICK, **BUILT_IN_GATES}), **overrides}
    )
    source = data or BUILT_IN.format(size=config.to_dict()["image_size"])
    from medsynth_tf.data.open import open_source
    from serving.embedded import running_server
    from serving.synthesize import synthesize
    from tfx_pipelines.factory import PipelineSettings
    from tfx_pipelines.runners.local import run as run_pipeline

    opened = open_source(source)
    keys = opened.split("test", config.data.split_fractions, config.seed)
    if not keys:
        raise DataError(f"{source}: no records are left for the test split; it needs five patients or more")
    print(f"1/4  TFX pipeline on {source}: ingest, validate, train, judge, push")
    settings = PipelineSettings(root=(out / "pipeline").absolute(), push_to=(out / "served" / METHOD).absolute())
    outcome = run_pipeline(config, source, settings)
    for reason in outcome.reasons:
        print(f"     {reason}")
    report = out / "report"
    shutil.rmtree(report, ignore_errors=True)
    shutil.copytree(outcome.evaluation, report)
    if outcome.pushed is None:
        print(f"     the model was refused and not pushed; see {report / 'index.html'}")
        return REFUSED
    print(f"     pushed as version {outcome.pushed.name}")
    print("2/4  model server")
    with running_server(METHOD, settings.push_to, log=out / "server.log") as address:
        print(f"3/4  {COUNT} images over gRPC from {address}, from label maps that training has not seen")
        synthetic = out / "synthetic"
        synthesize(address, METHOD, opened, COUNT, synthetic, formats=("png", "dicom"), keys=keys, method=METHOD)
    print("4/4  contact sheet")
    sheet = _contact_sheet(synthetic)
    print(
        f"done in {time.monotonic() - started:.0f} s\n  report    {report / 'index.html'}\n  pictures  {sheet}\n  images    {synthetic}"
    )
    return 0


def _contact_sheet(folder: Path) -> Path:
    """All label maps above the images made from them."""
    from PIL import Image

    from medsynth_tf.evaluation.sheets import write_masks_and_images

    names = sorted(path.name for path in (folder / "images").glob("*.png"))
    masks, images = (np.stack([np.asarray(Image.open(folder / kind / name)) for name in names]) for kind in ("masks", "images"))
    return write_masks_and_images(folder / "contact_sheet.png", masks, images, count=COUNT)
