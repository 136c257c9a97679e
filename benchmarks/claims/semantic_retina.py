"""The claim of semantic_retina: SPADE keeps the label in the image, and the pairs it makes add to few real ones.

On `phantom:exudates` (48×48), six real pairs. SPADE blocks, and a network that sees the label map only at its input, learn to
translate maps; a judge, trained on 240 other pairs, looks for the exudates that were asked for; U-Nets learn from real and synthetic
pairs together and are tested on 100 real ones. A second experiment gates stage 1: a grader of label maps must recognise the grades that
maps were sampled for, with the generator's class term, and must not without it.

    python -m benchmarks.claims.semantic_retina --seeds 0 1 2

Prints each seed's figures and writes them to `benchmarks/claims/results/semantic_retina.json`; exits with 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

import medsynth_tf as ms
from medsynth_tf.core.files import replacing_file, write_text
from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization, BatchStatisticsNormalization
from medsynth_tf.layers.spade import SPADEResidualBlock
from medsynth_tf.losses.adversarial import feature_matching, hinge_discriminator, hinge_generator
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.translation.semantic_retina.label_model import LabelGAN
from medsynth_tf.methods.translation.semantic_retina.sampling import harden
from medsynth_tf.metrics.overlap import precision_recall_f1
from medsynth_tf.networks.classifiers import ImageClassifier
from medsynth_tf.networks.patchgan import PatchDiscriminator
from medsynth_tf.networks.unet import UNet2D
from medsynth_tf.ops import labels as label_ops
from medsynth_tf.ops.resize import downsample_nearest, upsample_nearest

RESULTS = Path(__file__).parent / "results" / "semantic_retina.json"
SIZE, CHANNELS, EXUDATE, FEW, TEST, JUDGED = 48, 4, 2, 6, 100, 240
LATENT, WIDTHS, ENTRY, BATCH = 32, (64, 32, 16, 16), 6, 8
AVERAGE_DECAY = 0.98
RECOVER_MARGIN, F1_MARGIN, ADDED = 0.35, 0.10, ("plus_n", "plus_3n")
GRADES, LABEL_SIZE, GRADER_LEAST, GRADER_MOST_WITHOUT = 3, 64, 0.8, 0.5
LABEL_EPOCHS = 20  # in whose second half learning rates fall
# Stage 1 learns maps with all lesion codes of the fundus (as its networks expect): here exudates are code 4 of nine planes.
LESIONS = ["retina", "optic_disc", "microaneurysm", "haemorrhage", "hard_exudate", "soft_exudate", "neovascularisation", "irma"]
HARD_EXUDATE, OTHER = 4, 3


class Translator(tf.keras.Model):
    """Latent and label planes to an image: by SPADE blocks, or (`spade` false) by an encoder of the planes and plain blocks."""

    def __init__(self, spade: bool, seed: int):
        super().__init__()
        self.spade = spade

        def convolution(filters: int, name: str, stride: int = 1) -> tf.keras.layers.Conv2D:
            glorot = tf.keras.initializers.GlorotUniform(layer_seed(seed, name))
            return tf.keras.layers.Conv2D(filters, 3, stride, "same", kernel_initializer=glorot, name=name)

        self.entry = tf.keras.layers.Dense(
            ENTRY * ENTRY * WIDTHS[0], kernel_initializer=tf.keras.initializers.GlorotUniform(layer_seed(seed, "entry"))
        )
        if spade:
            self.blocks = [
                SPADEResidualBlock(width, 32, "batch", layer_seed(seed, f"block_{i}")) for i, width in enumerate(WIDTHS)
            ]
        else:
            self.encoder = [convolution(width, f"encoder_{i}", 2) for i, width in enumerate((32, 48, 64))]
            self.blocks = [convolution(width, f"block_{i}") for i, width in enumerate(WIDTHS)]
            self.norms = [BatchNormalization(name=f"norm_{i}") for i in range(len(WIDTHS))]
        self.to_image = convolution(3, "to_image")
        self([tf.zeros([1, LATENT]), tf.zeros([1, SIZE, SIZE, CHANNELS])])

    def call(self, inputs: list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """[latent [B, 32], planes [B, 48, 48, 4]] → image [B, 48, 48, 3] in [-1, 1]."""
        latent, planes = inputs
        x = tf.reshape(self.entry(latent), [-1, ENTRY, ENTRY, WIDTHS[0]])
        if not self.spade:
            code = planes
            for layer in self.encoder:
                code = tf.nn.relu(layer(code))
            x = tf.concat([x, code], -1)
        for i, block in enumerate(self.blocks):
            if i:
                x = upsample_nearest(x)
            if self.spade:
                x = block((x, downsample_nearest(planes, SIZE // x.shape[1])), training=training)
            else:
                x = tf.nn.relu(self.norms[i](block(x), training=training))
        return tf.tanh(self.to_image(tf.nn.leaky_relu(x, 0.2)))


def drawn(seed: int, count: int, size: int = SIZE) -> dict[str, np.ndarray]:
    """Images uint8, label maps uint8 and grades of a series of phantoms."""
    source = PhantomSource("exudates", count, size=size, seed=seed)
    records = [source.read(key) for key in source.keys()]
    return {name: np.stack([record[name] for record in records]) for name in ("image", "mask", "label")}


def batches(seed: int, *arrays: np.ndarray, count: int = BATCH) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """A graph function: step → a random batch of the arrays; images and maps are flipped along both axes at random, together."""
    constants = [tf.constant(array) for array in arrays]

    def batch(step: tf.Tensor) -> list[tf.Tensor]:
        key = tf.stack([tf.constant(seed % 2**31, tf.int32), step])
        chosen = tf.random.stateless_uniform([count], key, 0, len(arrays[0]), tf.int32)
        turns = tf.random.stateless_uniform([2, count], tf.bitwise.bitwise_xor(key, 2**30)) < 0.5
        found = []
        for constant in constants:
            x = tf.gather(constant, chosen)
            for axis in (0, 1) if x.shape.rank > 1 else ():
                turn = tf.reshape(turns[axis], [count] + [1] * (x.shape.rank - 1))
                x = tf.where(turn, tf.reverse(x, [axis + 1]), x)
            found.append(x)
        return found

    return batch


def unit(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(image, tf.float32) / 127.5 - 1.0


def translator(spade: bool, data: dict[str, np.ndarray], seed: int, steps: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """A trained translator as a function (label maps, seed) → images uint8."""
    generator = Translator(spade, layer_seed(seed, "translator"))
    discriminator = PatchDiscriminator(16, 3, layer_seed(seed, "discriminator"))
    discriminator(tf.zeros([1, SIZE, SIZE, CHANNELS + 3]))
    players = (generator, discriminator)
    statistics = [
        v
        for part in generator.submodules
        if isinstance(part, BatchStatisticsNormalization)
        for v in part.non_trainable_variables
    ]
    average = WeightAverage(generator.trainable_variables + statistics, AVERAGE_DECAY)  # as the method keeps one
    optimizers = [tf.keras.optimizers.Adam(4e-4, 0.0, 0.9) for _ in players]
    for optimizer, player in zip(optimizers, players):
        optimizer.build(player.trainable_variables)
    batch = batches(derive_seed(seed, "pairs"), data["image"], data["mask"])

    @tf.function
    def train() -> None:
        for step in tf.range(steps):
            image, mask = batch(step)
            real, planes = unit(image), label_ops.one_hot(mask, CHANNELS)
            latent = tf.random.stateless_normal([BATCH, LATENT], tf.stack([step, derive_seed(seed, "latent") % 2**31]))
            with tf.GradientTape() as generator_tape:
                fake = generator([latent, planes], training=True)
                with tf.GradientTape() as discriminator_tape:
                    pairs = tf.concat([tf.concat([planes, fake], -1), tf.concat([planes, real], -1)], 0)
                    halves = [tf.split(output, 2) for output in discriminator(pairs, training=True)]
                    on_fake, on_real = ([half[i] for half in halves] for i in (0, 1))
                    discriminator_loss = hinge_discriminator(on_real[-1], on_fake[-1])
                generator_loss = (
                    hinge_generator(on_fake[-1])
                    + 10.0 * feature_matching([on_real], [on_fake])
                    + 5.0 * tf.reduce_mean(tf.abs(fake - real))
                )
            for tape, loss, player, optimizer in zip(
                (generator_tape, discriminator_tape), (generator_loss, discriminator_loss), players, optimizers
            ):
                variables = player.trainable_variables
                optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            average.update()

    train()
    average.swap()

    def translate(masks: np.ndarray, sample_seed: int) -> np.ndarray:
        latent = numpy_generator(sample_seed, "style").standard_normal([len(masks), LATENT]).astype(np.float32)
        image = generator([latent, label_ops.one_hot(masks, CHANNELS)])
        return np.rint((image.numpy() + 1.0) * 127.5).clip(0, 255).astype(np.uint8)

    return translate


def segmenter(images: np.ndarray, masks: np.ndarray, seed: int, steps: int) -> Callable[[np.ndarray], np.ndarray]:
    """A trained U-Net as a function images uint8 → exudates bool."""
    network = UNet2D(2, (8, 16, 32), seed)
    network(tf.zeros([1, SIZE, SIZE, 3]))
    optimizer = tf.keras.optimizers.Adam(1e-3)
    optimizer.build(network.trainable_variables)
    batch = batches(derive_seed(seed, "segmentation"), images, masks)

    @tf.function
    def train() -> None:
        for step in tf.range(steps):
            image, mask = batch(step)
            with tf.GradientTape() as tape:
                loss = cross_entropy(network(unit(image), training=True), mask == EXUDATE)
            variables = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    train()
    return lambda images: tf.argmax(network(unit(images)), -1).numpy() == 1


def f1(find: Callable[[np.ndarray], np.ndarray], images: np.ndarray, masks: np.ndarray) -> float:
    return float(precision_recall_f1(find(images), masks == EXUDATE)[:, 2].mean())


def translation_experiment(seed: int, steps: int, picture: Path | None) -> dict[str, Any]:
    """The figures of one seed."""
    real, fresh = drawn(4 * seed + 1000, FEW), drawn(4 * seed + 1001, 6 * FEW)
    test, others = drawn(4 * seed + 1002, TEST), drawn(4 * seed + 1003, JUDGED)
    judge = segmenter(others["image"], others["mask"], derive_seed(seed, "judge"), steps)
    found: dict[str, Any] = {"judge_on_real": f1(judge, test["image"], test["mask"])}

    def trained_with(images: np.ndarray, masks: np.ndarray) -> float:
        together = np.concatenate([real["image"], images]), np.concatenate([real["mask"], masks])
        return float(
            np.mean([f1(segmenter(*together, derive_seed(seed, i), steps), test["image"], test["mask"]) for i in range(2)])
        )

    found["real_only"] = trained_with(real["image"][:0], real["mask"][:0])
    rows = [fresh["mask"][:10, ..., np.newaxis].repeat(3, -1) // 2 * 120]
    for name, spade in (("spade", True), ("plain", False)):
        translate = translator(spade, real, derive_seed(seed, name), steps)
        images = translate(fresh["mask"], seed)
        rows.append(images[:10])
        found[name] = {
            "recover": f1(judge, images, fresh["mask"]),
            "plus_n": trained_with(images[:FEW], fresh["mask"][:FEW]),
            "plus_3n": trained_with(images[: 3 * FEW], fresh["mask"][: 3 * FEW]),
        }
    if picture is not None:
        grid = np.concatenate([np.concatenate(list(row), 1) for row in [*rows, fresh["image"][:10]]], 0)
        with replacing_file(picture) as temporary:
            Image.fromarray(grid.astype(np.uint8)).save(temporary)
    found["margins"] = {
        "recover": found["spade"]["recover"] - found["plain"]["recover"] - RECOVER_MARGIN,
        "plus_n": found["spade"]["plus_n"] - found["plain"]["plus_n"] - F1_MARGIN,
    }
    return found


def grader_of_maps(maps: dict[str, np.ndarray], seed: int, steps: int) -> Callable[[np.ndarray], np.ndarray]:
    """A trained classifier of label maps as a function maps uint8 → grades."""
    network = ImageClassifier("small", GRADES, channels=CHANNELS, seed=seed)
    optimizer = tf.keras.optimizers.Adam(2e-3)
    optimizer.build(network.trainable_variables)
    masks, grades = tf.constant(maps["mask"]), tf.constant(maps["label"], tf.int32)

    @tf.function
    def train() -> None:
        for step in tf.range(steps):
            chosen = tf.random.stateless_uniform([32], tf.stack([step, seed % 2**31]), 0, len(maps["mask"]), tf.int32)
            with tf.GradientTape() as tape:
                logits = network(label_ops.one_hot(tf.gather(masks, chosen), CHANNELS), training=True)["logits"]
                loss = cross_entropy(logits, tf.gather(grades, chosen))
            variables = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    train()
    return lambda maps: tf.argmax(network(label_ops.one_hot(maps, CHANNELS))["logits"], -1).numpy()


def label_experiment(seed: int, steps: int, picture: Path | None) -> dict[str, Any]:
    """Accuracy of a grader of real maps on maps that stage 1 sampled, with and without the generator's class term."""
    real, test = drawn(2 * seed + 2000, 400, LABEL_SIZE), drawn(2 * seed + 2001, 150, LABEL_SIZE)
    grade_of = grader_of_maps(real, layer_seed(seed, "grader"), 600)
    found: dict[str, Any] = {"grader_on_real": float((grade_of(test["mask"]) == test["label"]).mean())}
    asked = np.arange(300, dtype=np.int32) % GRADES
    sheet = [real["mask"][np.argsort(real["label"], kind="stable")[:: 400 // 12][:12]]]
    for name, weight in (("with_class_term", 1.0), ("without_class_term", 0.0)):
        config = ms.load_config(
            "semantic_retina",
            "small",
            {
                "seed": seed,
                "image_size": LABEL_SIZE,
                "labels": LESIONS,
                "label_generator": {
                    "enabled": True,
                    "size": LABEL_SIZE,
                    "doublings": 4,  # the discriminator's last map is 4×4
                    "grades": GRADES,
                    "generator_filters": 128,
                    "generator_learning_rate": 2e-4,
                    "discriminator_learning_rate": 2e-4,
                    "generator_class_loss": weight,
                    "batch_size": 32,
                    "epochs": LABEL_EPOCHS,
                    "decay_epochs": LABEL_EPOCHS // 2,
                    "steps_per_epoch": steps // LABEL_EPOCHS,
                },
            },
        )
        model = LabelGAN(config)
        model.compile()
        lesions = np.where(real["mask"] == EXUDATE, np.uint8(HARD_EXUDATE), real["mask"])
        real_batch = batches(derive_seed(seed, "maps"), lesions, real["label"], count=32)
        data = (
            tf.data.Dataset.range(steps)
            .map(
                lambda step, real_batch=real_batch: dict(
                    zip(("label_map", "grade"), real_batch(tf.cast(step, tf.int32))),
                    seed=32 * step + tf.range(32, dtype=tf.int64),
                )
            )
            .prefetch(4)
        )
        model.fit(data, epochs=LABEL_EPOCHS, steps_per_epoch=steps // LABEL_EPOCHS, callbacks=[model.schedule()], verbose=0)
        seeds = tf.range(len(asked), dtype=tf.int64) + 10**9
        maps = _with_codes_of_the_phantom(harden(model({"grade": asked, "seed": seeds}), LABEL_SIZE).numpy())
        graded = grade_of(maps)
        area = [float((maps[asked == grade] == EXUDATE).mean((1, 2)).mean() * LABEL_SIZE**2) for grade in range(GRADES)]
        found[name] = {"accuracy": float((graded == asked).mean()), "exudate_pixels_by_grade": area}
        found[name]["augmentation"] = float(model.augmentation.probability)
        sheet.append(np.concatenate([maps[asked == grade][:4] for grade in range(GRADES)]))
    found["exudate_pixels_by_grade_real"] = [
        float((test["mask"][test["label"] == grade] == EXUDATE).mean() * LABEL_SIZE**2) for grade in range(GRADES)
    ]
    if picture is not None:
        grid = np.concatenate([np.concatenate(list(np.where(row == 255, 0, 60 + 90 * row.astype(int))), 1) for row in sheet], 0)
        with replacing_file(picture) as temporary:
            Image.fromarray(grid.astype(np.uint8)).save(temporary)
    found["margin"] = min(
        found["with_class_term"]["accuracy"] - GRADER_LEAST, GRADER_MOST_WITHOUT - found["without_class_term"]["accuracy"]
    )
    return found


def _with_codes_of_the_phantom(maps: np.ndarray) -> np.ndarray:
    """Exudates as code 2; lesions that real maps never hold as code 3, which the grader has not seen."""
    codes = np.full(256, OTHER, np.uint8)
    codes[[0, 1, HARD_EXUDATE, 255]] = 0, 1, EXUDATE, 255
    return codes[maps]


def verdict(translation: list[dict[str, Any]], labels: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """The report of all seeds: whether each margin holds, and, for the record, what synthetic pairs add to real ones."""
    gain = {name: [row["spade"][name] - row["real_only"] for row in translation] for name in ADDED}
    margins = [margin for row in translation for margin in row["margins"].values()] + [row["margin"] for row in labels]
    return {
        "claim": f"in each seed recover(SPADE) >= recover(plain) + {RECOVER_MARGIN}, and F1(real + n SPADE) >= F1(real + n plain) + "
        f"{F1_MARGIN}; a grader recognises the grades of sampled label maps with accuracy >= {GRADER_LEAST}, and without the "
        f"generator's class term with <= {GRADER_MOST_WITHOUT}",
        "holds": all(margin >= 0 for margin in margins),
        "smallest_margin": min(margins, default=None),
        "mean_gain": {name: float(np.mean(gains)) for name, gains in gain.items()} if translation else None,
        "settings": settings,
        "translation": translation,
        "labels": labels,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1, 2], help="of translation; other seeds that the file holds are kept"
    )
    parser.add_argument("--steps", type=int, default=500, help="of each translator and U-Net")
    parser.add_argument("--label-seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--label-steps", type=int, default=2000, help="of each label generator")
    parser.add_argument("--pictures", type=Path, help="folder for the first seed's pictures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    folder, translation, labels = arguments.pictures, [], []
    settings = {"steps": arguments.steps, "label_steps": arguments.label_steps}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.out.is_file():
        earlier = json.loads(arguments.out.read_text())
        translation = [row for row in earlier["translation"] if row["seed"] not in arguments.seeds]
        labels = [row for row in earlier["labels"] if row["seed"] not in arguments.label_seeds]

    def written() -> dict[str, Any]:
        """The report so far, also in the file: a run that is cut off leaves what it found."""
        report = verdict(translation, labels, settings)
        write_text(arguments.out, json.dumps(report, indent=2) + "\n")
        return report

    for seed in arguments.seeds:
        started = time.perf_counter()
        first = folder if seed == arguments.seeds[0] else None
        found = translation_experiment(seed, arguments.steps, first and first / "translation.png")
        translation.append({"seed": seed, **found})
        report = written()
        print(f"seed {seed}: judge on real {found['judge_on_real']:.3f}, U-Net on real only {found['real_only']:.3f}")
        for name in ("spade", "plain"):
            row = found[name]
            print(f"  {name}: recover {row['recover']:.3f}, +n {row['plus_n']:.3f}, +3n {row['plus_3n']:.3f}")
        print(
            f"  margins: recover {found['margins']['recover']:+.3f}, +n {found['margins']['plus_n']:+.3f} "
            f"({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
    for seed in arguments.label_seeds:
        first = folder if seed == arguments.label_seeds[0] else None
        found = label_experiment(seed, arguments.label_steps, first and first / "labels.png")
        labels.append({"seed": seed, **found})
        report = written()
        print(f"label maps, seed {seed}: {json.dumps(found)}", flush=True)
    print(f"mean gain over real pairs alone, not part of the claim: {report['mean_gain']}")
    print("the claim holds" if report["holds"] else "THE CLAIM DOES NOT HOLD")
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
