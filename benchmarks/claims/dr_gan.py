"""DR-GAN's claim: grading vectors decide the grade that an image shows, lesion masks decide where its lesions are.

    python benchmarks/claims/dr_gan.py [--seeds 0 1] [--steps 450] [--pictures FOLDER]

On phantom eyes whose grade shows in colour alone (`phantom:graded_lesions`, 64×64, 400 to train on and 90 held out) three
generators are trained: the whole method, without adaptive grading manipulation (use_agm), without lesion masks
(use_lesion_masks). A grading network with a seed of its own judges images of the held-out masks, each asked for at every grade.
For every seed must hold

    judge(full) >= judge(without grading manipulation) + 0.40        (chance is 1/3)
    contrast(full) >= 4 * contrast(without lesion masks)

where contrast is the mean absolute difference in colour, in [0, 1], between lesions and the ring around them.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from medsynth_tf.core.files import write_text
from medsynth_tf.data.phantoms.graded_lesions import GRADES, LABELS
from medsynth_tf.data.phantoms.source import PhantomSource
from medsynth_tf.methods.saving import create
from medsynth_tf.methods.translation.dr_gan.config import DRGANConfig
from medsynth_tf.methods.translation.dr_gan.grading import Grader, unit_range
from medsynth_tf.metrics.label_contrast import label_contrast

CLAIM = (
    "in each seed the judge's accuracy on images asked for a grade is >= that without grading manipulation + 0.40, "
    "and lesion contrast is >= 4 times that without lesion masks"
)
RESULTS = Path(__file__).parent / "results" / "dr_gan.json"
TRAIN, TEST = 400, 90
ARMS = {"full": {}, "without_agm": {"use_agm": False}, "without_lesion_masks": {"use_lesion_masks": False}}
SETTINGS = {
    "image_size": 64,
    "grades": GRADES,
    "labels": ["retina", "vessel", "optic_disc", "lesion"],
    "structures": ["vessel", "optic_disc"],
    "lesions": ["lesion"],
    "grading": {"backbone": "small", "filters": 16, "image_size": 64, "epochs": 10, "learning_rate": 1e-3},
    "generator": {"filters": 12, "mapping_width": 64},
    "fine": {"enabled": False},
    "attention": {"implementation": "exact", "reductions": [8, 8, 8]},
    "discriminator": {"count": 3, "filters": 16},
    "optimiser": {"generator_learning_rate": 4e-4, "discriminator_learning_rate": 2e-4},
    "data": {"split_fractions": [TRAIN / (TRAIN + TEST), 0.0, TEST / (TRAIN + TEST)], "cache": True},
    "training": {"batch_size": 8, "epochs": 1},
}
JUDGE_GAP, CONTRAST_RATIO = 0.40, 4.0


def trained_judge(seed, source):
    """A grading network that the generators know nothing of."""
    config = DRGANConfig().replace({**SETTINGS, "seed": seed})
    method = create("dr_gan", config)
    judge = Grader(config)
    judge.compile_for(tf.keras.optimizers.Adam(config.grading.learning_rate), jit_compile=False)
    judge.fit(method.dataset(source, config, "train", seed, epochs=config.grading.epochs), verbose=0)
    return judge


def trained_generator(arm, seed, steps, source, grader_weights):
    """The arm's model after all its stages; one grading network a seed, which the arms share."""
    config = DRGANConfig().replace({**SETTINGS, "seed": seed, "training.steps_per_epoch": steps, **ARMS[arm]})
    model = create("dr_gan", config)
    model.compile()
    for stage in model.stages(source):
        if stage.begin is not None:
            stage.begin()
        if stage.name == "grading":
            if grader_weights:
                model.grader.set_weights(grader_weights)
                continue
            passes = model.dataset(source, config, "train", seed, epochs=config.grading.epochs)
            model.grader.fit(passes, verbose=0)
            grader_weights.extend(model.grader.get_weights())
        else:
            stage.model.fit(stage.batches(0), epochs=stage.epochs, steps_per_epoch=stage.steps_per_epoch, verbose=0)
    return model


def with_one_more_lesion(label_map, seed):
    """The map with a lesion of radius 3 in plain retina, and where the distance to its centre is at most 9 pixels."""
    rows, columns = np.indices(label_map.shape)
    room = ndimage.distance_transform_edt(label_map == LABELS["retina"])
    candidates = np.argwhere(room > min(5.0, room.max() - 0.5))
    centre = candidates[np.random.default_rng(seed).integers(len(candidates))]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    return np.where(distance <= 3, np.uint8(LABELS["lesion"]), label_map), distance <= 9


def edit_locality(generate, test, count=30):
    """Of the change that one more lesion makes to an image, the share within 9 pixels of its centre (6 % of the image)."""
    maps, near = zip(*(with_one_more_lesion(label_map, i) for i, label_map in enumerate(test["label_map"][:count])))
    others = tf.constant(test["grade"][:count]), tf.range(count, dtype=tf.int64)
    before, after = (generate(tf.constant(m), *others).numpy() for m in (test["label_map"][:count], np.stack(maps)))
    change = np.abs(after - before).sum(-1)
    return float((change * np.stack(near)).sum() / max(change.sum(), 1e-12))


def measured(model, judge, test):
    """Judge's accuracy over all masks and grades, lesion contrast, deviation over grades, L1 to the real image, locality of edits;
    and the images in [0, 1] by grade asked for."""

    @tf.function
    def generate(label_map, grade, seed):
        return model.generate(model.condition({"label_map": label_map}), grade, seed)["image"]

    count = len(test["image"])
    by_grade = []
    for grade in range(GRADES):
        parts = [
            generate(
                tf.constant(test["label_map"][start : start + 30]),
                tf.fill([30], tf.constant(grade, tf.int64)),
                tf.range(start, start + 30, dtype=tf.int64) + 10**6,
            )
            for start in range(0, count, 30)
        ]
        by_grade.append(tf.concat(parts, 0).numpy())
    images = np.stack(by_grade)  # [grade, image, H, W, 3]
    judged = np.stack([np.argmax(judge(tf.constant(batch))["logits"], -1) for batch in images])
    unit = np.clip((images + 1) / 2, 0, 1)
    real = test["image"] / 255.0
    own = unit[test["grade"], np.arange(count)]
    return {
        "judge": float((judged == np.arange(GRADES)[:, None]).mean()),
        "contrast": float(np.mean([label_contrast(batch, test["label_map"], LABELS["lesion"]) for batch in unit])),
        "grade_effect": float(unit.std(0).mean()),
        "l1": float(np.abs(own - real).mean()),
        "edit_locality": edit_locality(generate, test),
    }, unit


def write_picture(path, test, unit):
    """Rows: masks, real images, then the synthetic ones by grade asked for; the first ten eyes."""
    shades = np.where(test["label_map"] == 255, 0, 40 + test["label_map"] * 70).astype(np.uint8)
    rows = [np.repeat(shades[:10, ..., None], 3, -1), test["image"][:10]]
    rows += [np.clip(np.rint(batch[:10] * 255), 0, 255).astype(np.uint8) for batch in unit]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)).save(path)


def run(seed, steps, pictures):
    source = PhantomSource("graded_lesions", TRAIN + TEST, seed=seed)
    judge = trained_judge(seed + 1000, source)
    config = DRGANConfig().replace({**SETTINGS, "seed": seed})
    model_class = type(create("dr_gan", config))
    held_out = list(model_class.dataset(source, config, "test", seed).as_numpy_iterator())
    test = {name: np.concatenate([batch[name] for batch in held_out]) for name in held_out[0]}
    answers = judge(unit_range(tf.constant(test["image"])))["logits"].numpy().argmax(-1)
    figures = {
        "seed": seed,
        "judge_on_real": float((answers == test["grade"]).mean()),
        "contrast_real": label_contrast(test["image"], test["label_map"], LABELS["lesion"]),
        "arms": {},
    }
    print(
        f"seed {seed}: judge on {len(answers)} real held-out images {figures['judge_on_real']:.3f}, "
        f"their contrast {figures['contrast_real']:.3f}",
        flush=True,
    )
    grader_weights = []
    for arm in ARMS:
        started = time.perf_counter()
        model = trained_generator(arm, seed, steps, source, grader_weights)
        values, unit = measured(model, judge, test)
        values["seconds"] = time.perf_counter() - started
        figures["arms"][arm] = values
        print(f"seed {seed} {arm:>21}: " + "  ".join(f"{name} {value:.3f}" for name, value in values.items()), flush=True)
        if pictures is not None:
            write_picture(pictures / f"{arm}_{seed}.png", test, unit)
    return figures


def verdict(figures):
    """The seed's two inequalities, each with its margin: at least 0 where it holds."""
    arms = figures["arms"]
    return {
        "judge_margin": arms["full"]["judge"] - arms["without_agm"]["judge"] - JUDGE_GAP,
        "contrast_margin": arms["full"]["contrast"] - CONTRAST_RATIO * arms["without_lesion_masks"]["contrast"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--pictures", type=Path, help="write a sheet an arm and seed to this folder")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    arguments = parser.parse_args()
    tf.keras.utils.set_random_seed(0)
    results = []
    for seed in arguments.seeds:
        figures = run(seed, arguments.steps, arguments.pictures)
        figures |= verdict(figures)
        results.append(figures)
        arms = figures["arms"]
        print(
            f"seed {seed}: judge {arms['full']['judge']:.3f} >= {arms['without_agm']['judge']:.3f} + {JUDGE_GAP} "
            f"(margin {figures['judge_margin']:+.3f}); contrast {arms['full']['contrast']:.3f} >= {CONTRAST_RATIO:g} * "
            f"{arms['without_lesion_masks']['contrast']:.3f} (margin {figures['contrast_margin']:+.3f})",
            flush=True,
        )
    holds = all(figures["judge_margin"] >= 0 and figures["contrast_margin"] >= 0 for figures in results)
    report = {"claim": CLAIM, "steps": arguments.steps, "holds": holds, "seeds": results}
    write_text(arguments.json, json.dumps(report, indent=2) + "\n")
    print("the claim holds" if holds else "the claim DOES NOT hold")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
