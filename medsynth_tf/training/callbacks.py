"""Keras callbacks of a run: the guard against NaN, checkpoints, interrupts, the progress bar, the log and pictures."""

from __future__ import annotations

import csv
import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from medsynth_tf.core.errors import NonFiniteLossError
from medsynth_tf.core.files import replacing_file
from medsynth_tf.training.checkpoints import RunCheckpoint


class StepCallback(tf.keras.callbacks.Callback):
    """Counts the stage's steps, which Keras counts anew in each epoch.

    Args:
        first_step: the stage's step that the run starts or resumes with.
    """

    def __init__(self, first_step: int):
        super().__init__()
        self.step = first_step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """After step `self.step` (counted from 1)."""
        self.step += 1
        self.after_step(logs or {})

    def after_step(self, logs: dict[str, Any]) -> None:
        """What the callback does; `self.step` steps are done."""


class FiniteLossGuard(StepCallback):
    """Stops the run at the first loss that is NaN or infinite.

    Raises:
        NonFiniteLossError: names the step and the losses.
    """

    def after_step(self, logs: dict[str, Any]) -> None:
        """Checks every loss."""
        broken = [f"{name} = {float(value)}" for name, value in logs.items() if not math.isfinite(float(value))]
        if broken:
            raise NonFiniteLossError(f"step {self.step}: {', '.join(broken)}; the last checkpoint is from before")


class Checkpointing(StepCallback):
    """Writes a checkpoint every so many steps, and when the process is asked to stop.

    On SIGINT or SIGTERM the step in progress is finished, a checkpoint written and the fit ended; a second SIGINT stops at once.

    Args:
        first_step: as for StepCallback.
        checkpoint: where to.
        stage: number of the stage.
        every: steps between checkpoints.
    """

    def __init__(self, first_step: int, checkpoint: RunCheckpoint, stage: int, every: int):
        super().__init__(first_step)
        self.checkpoint, self.stage, self.every = checkpoint, stage, every
        self.interrupted = False
        self._handlers: dict[int, Any] = {}

    def after_step(self, logs: dict[str, Any]) -> None:
        """Saves if it is time."""
        if self.interrupted or self.step % self.every == 0:
            self.checkpoint.save(self.stage, self.step)
        if self.interrupted:
            self.model.stop_training = True
            # ends the epoch as well: Keras looks at stop_training only between epochs
            raise Interrupted

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes over the signals, where this thread may."""
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._interrupt)
        except ValueError:  # not the main thread: whoever owns it decides
            self._handlers = {}

    def release_signals(self) -> None:
        """Gives the signals back; also after an error, when Keras does not call `on_train_end`."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _interrupt(self, number: int, frame: Any) -> None:
        if self.interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.interrupted = True
        print(f"\n{signal.Signals(number).name}: finishing this step, then saving a checkpoint", file=sys.stderr)


class Interrupted(Exception):
    """The run was asked to stop and has saved a checkpoint."""


class ProgressBar(StepCallback):
    """One bar for the whole stage: losses by name, steps, time left."""

    def __init__(self, first_step: int, total: int, name: str):
        super().__init__(first_step)
        terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=first_step, desc=name, unit="step", mininterval=0.2 if terminal else 20.0, dynamic_ncols=True
        )

    def after_step(self, logs: dict[str, Any]) -> None:
        """Moves the bar."""
        self.bar.set_postfix({name: f"{float(value):.3g}" for name, value in logs.items()}, refresh=False)
        self.bar.update(1)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self.bar.close()


class History(StepCallback):
    """Writes each epoch's mean losses to `log.csv` and TensorBoard.

    On resume, rows of steps that will be run again are dropped from the CSV file.

    Args:
        first_step: as for StepCallback.
        folder: of the run.
        stage: name of the stage.
    """

    def __init__(self, first_step: int, folder: Path, stage: str):
        super().__init__(first_step)
        self.path, self.stage = folder / "log.csv", stage
        self.rows = [row for row in read_log(self.path) if row["stage"] != stage or int(row["step"]) <= first_step]
        self.writer = tf.summary.create_file_writer(str(folder / "tensorboard" / stage))
        self.started = time.time()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds a row."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"stage": self.stage, "step": self.step, "epoch": epoch + 1, **values})
        with replacing_file(self.path) as temporary, temporary.open("w", newline="") as file:
            names = list(dict.fromkeys(name for row in self.rows for name in row))
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(self.rows)
        with self.writer.as_default(step=self.step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self.writer.flush()


class Pictures(StepCallback):
    """Every so many steps, a grid of what the model makes of one fixed batch: a PNG in `pictures/` and an image in TensorBoard.

    Args:
        first_step: as for StepCallback.
        folder: of the run; None to draw and write nothing.
        stage: name of the stage.
        batch: makes the fixed batch.
        preview: batch → pictures by name, uint8 [B, H, W, 1 or 3].
        every: steps between pictures.
        total: steps of the stage; there is a picture after the last one too.
    """

    ROWS = 6

    def __init__(
        self,
        first_step: int,
        folder: Path | None,
        stage: str,
        batch: Callable[[], dict[str, tf.Tensor]],
        preview: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
        every: int,
        total: int,
    ):
        super().__init__(first_step)
        self.folder, self.stage, self.every, self.total = folder, stage, every, total
        self.preview = preview
        self.batch = {name: value[: self.ROWS] for name, value in batch().items()}
        self.writer = tf.summary.create_file_writer(str(folder / "tensorboard" / stage)) if folder is not None else None

    def after_step(self, logs: dict[str, Any]) -> None:
        """Draws if it is time."""
        if self.step % self.every and self.step != self.total:
            return
        columns = [_rgb(np.asarray(picture)) for picture in self.preview(self.batch).values()]
        if self.folder is None or self.writer is None:
            return
        grid = np.concatenate([np.concatenate(list(column), axis=0) for column in columns], axis=1)
        with replacing_file(self.folder / "pictures" / f"{self.stage}-{self.step:07d}.png") as temporary:
            Image.fromarray(grid).save(temporary)
        with self.writer.as_default(step=self.step):
            tf.summary.image("preview", grid[np.newaxis])
        self.writer.flush()


def _rgb(pictures: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's `log.csv`; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
