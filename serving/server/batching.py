"""Batching across requests: TensorFlow's own scheduler decides which requests run together, and when.

What goes through the scheduler (the BatchFunction op, over the C++ SharedBatchScheduler that TensorFlow Serving uses) are not the
tensors but a row (request, position) per example. The scheduler's answer, a batch of rows, says what to concatenate for one run. So
the same batching serves SavedModels of both kinds and TFLite models, requests of different shapes do not spoil each other's batch,
and a request whose input the model refuses fails alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from medsynth_tf.core.errors import ConfigError
from serving.server.status import StatusError, from_tensorflow

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds, Sequence[str], int], list[np.ndarray]]  # (feeds, fetches, timeout in ms or 0) → values
_OP_FRAME = re.compile(r"\{\{function_node [^}]*\}\} ?|\s*\[Op:\w+\]( name: ?)?\s*$")


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """What a BatchingParameters file says, with TensorFlow Serving's defaults.

    Attributes:
        max_batch_size: rows of a request at most; also rows of a batch, unless large requests are split.
        batch_timeout_micros: how long a batch that is not full waits for more.
        max_enqueued_batches: batches that wait for a thread, per signature; beyond, requests are UNAVAILABLE.
        num_batch_threads: batches that run at the same time.
        allowed_batch_sizes: batches are filled up to the next of these (ascending, the last being the largest batch); (): any.
        pad_variable_length_inputs: requests whose shapes differ beyond the first axis are padded to the largest of the batch.
        enable_large_batch_splitting: requests above `max_execution_batch_size` run in parts.
        max_execution_batch_size: rows of a batch where requests are split; 0: `max_batch_size`.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    @property
    def largest_batch(self) -> int:
        """Rows of a batch at most."""
        return self.max_execution_batch_size or self.max_batch_size

    @classmethod
    def from_proto(cls, proto: Any, threads: int) -> BatchingOptions:
        """Of a BatchingParameters message; `threads` where it does not name num_batch_threads.

        Raises:
            ConfigError: a number is out of range, or they contradict each other.
        """
        values: dict[str, Any] = {"num_batch_threads": threads}
        for field, value in proto.ListFields():
            if field.name == "allowed_batch_sizes":
                values[field.name] = tuple(value)
            elif field.name != "thread_pool_name":  # names threads in traces, decides nothing
                values[field.name] = getattr(value, "value", value)
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"batching parameters: {name} must be positive; was {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise ConfigError(
                f"batching parameters: batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}"
            )
        if self.max_execution_batch_size and not self.enable_large_batch_splitting:
            raise ConfigError("batching parameters: max_execution_batch_size needs enable_large_batch_splitting")
        if not 0 <= self.max_execution_batch_size <= self.max_batch_size:
            raise ConfigError("batching parameters: max_execution_batch_size must be 1 to max_batch_size")
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.largest_batch):
            raise ConfigError(
                f"batching parameters: allowed_batch_sizes {list(sizes)} must be positive, ascending, and end with the size of "
                f"the largest batch, {self.largest_batch}"
            )


@dataclasses.dataclass
class _Task:
    """A request on its way through the scheduler."""

    run: Run
    feeds: Feeds
    fetches: tuple[str, ...]
    size: int
    deadline: float | None  # of time.monotonic, as `since`
    since: float
    parts: dict[int, list[np.ndarray]] = dataclasses.field(default_factory=dict)  # outputs, by their first row
    error: Exception | None = None


@dataclasses.dataclass(frozen=True)
class _Part:
    """Rows [start, stop) of a task, which one batch holds."""

    task: _Task
    start: int
    stop: int

    def feeds(self) -> dict[str, np.ndarray]:
        return {name: array[self.start : self.stop] for name, array in self.task.feeds.items()}


class Batcher:
    """One scheduler with its threads, shared by all models of a server; each signature has a queue in it."""

    def __init__(
        self,
        options: BatchingOptions,
        observe_size: Callable[[int], None] = lambda rows: None,
        observe_wait: Callable[[float], None] = lambda micros: None,
    ):
        """`observe_size` is told the rows of each batch that runs, `observe_wait` how long each request waited for its batch."""
        self._options = options
        self._observe_size = observe_size
        self._observe_wait = observe_wait
        self._tasks: dict[int, _Task] = {}
        self._numbers = itertools.count()
        self._name = f"batcher_{id(self)}"

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int64)])
        def process(rows: tf.Tensor) -> tf.Tensor:
            done = tf.numpy_function(self._process, [rows], tf.int64)
            done.set_shape([None, 2])
            return done

        self._body = process.get_concrete_function()

    def run(self, queue: str, run: Run, feeds: Feeds, fetches: Sequence[str], timeout_ms: int = 0) -> list[np.ndarray]:
        """As `run(feeds, fetches, timeout_ms)`, together with other requests in `queue` that come at the same time.

        Raises:
            StatusError: INVALID_ARGUMENT: the inputs have no common first axis, or are too many; UNAVAILABLE: the queue is full;
                DEADLINE_EXCEEDED; FAILED_PRECONDITION: the outputs are not one row per input row. And what `run` raises.
        """
        size = self._size(feeds)
        deadline = time.monotonic() + timeout_ms / 1000 if timeout_ms else None
        task = _Task(run, feeds, tuple(fetches), size, deadline, time.monotonic())
        number = next(self._numbers)
        self._tasks[number] = task
        try:
            self._schedule(queue, np.stack([np.full(size, number), np.arange(size)], axis=1))
        except tf.errors.OpError as error:
            status = from_tensorflow(error)
            raise StatusError(status.code, _OP_FRAME.sub("", status.message)) from error
        finally:
            del self._tasks[number]
        if task.error is not None:
            raise task.error
        return [
            np.concatenate(rows) if len(rows) > 1 else rows[0] for rows in zip(*(task.parts[k] for k in sorted(task.parts)))
        ]

    def _size(self, feeds: Feeds) -> int:
        if not feeds or any(array.ndim == 0 for array in feeds.values()):
            raise StatusError(StatusCode.INVALID_ARGUMENT, "Batching Run() input tensors must have at least one dimension.")
        sizes = {len(array) for array in feeds.values()}
        if len(sizes) > 1:
            raise StatusError(StatusCode.INVALID_ARGUMENT, "Batching Run() input tensors must have equal 0th-dimension size.")
        (size,) = sizes
        if size == 0:
            raise StatusError(StatusCode.INVALID_ARGUMENT, "Batching Run() input tensors must have at least one row.")
        return size

    def _schedule(self, queue: str, rows: np.ndarray) -> None:
        options = self._options
        splitting = options.enable_large_batch_splitting
        with tf.device("CPU:0"):
            tf.raw_ops.BatchFunction(
                in_tensors=[tf.constant(rows, tf.int64)],
                captured_tensors=[],
                f=self._body,
                Tout=[tf.int64],
                num_batch_threads=options.num_batch_threads,
                max_batch_size=options.max_batch_size,
                batch_timeout_micros=options.batch_timeout_micros,
                max_enqueued_batches=options.max_enqueued_batches,
                # where requests are split, the largest allowed size is the size they are split to
                allowed_batch_sizes=[options.largest_batch] if splitting else [],
                enable_large_batch_splitting=splitting,
                shared_name=self._name,
                batching_queue=queue,
            )

    def _process(self, rows: np.ndarray) -> np.ndarray:
        """Runs one batch, in a thread of the scheduler; what fails is told to the task, never to the scheduler."""
        groups: dict[Any, list[_Part]] = {}
        for part in self._parts(rows):
            task = part.task
            if task.error is not None:
                continue
            self._observe_wait(1e6 * (time.monotonic() - task.since))
            if task.deadline is not None and task.deadline <= time.monotonic():
                task.error = StatusError(
                    StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded while the request waited for its batch"
                )
                continue
            pads = self._options.pad_variable_length_inputs
            shapes = tuple(sorted((name, array.shape[1:] if not pads else array.ndim) for name, array in task.feeds.items()))
            groups.setdefault((task.fetches, shapes), []).append(part)
        for parts in groups.values():
            self._run_parts(parts)
        return rows

    def _parts(self, rows: np.ndarray) -> list[_Part]:
        """Contiguous rows of a task, once each: the scheduler fills batches up with copies of rows that are there already."""
        starts = np.flatnonzero(np.any(rows[1:] - rows[:-1] != [0, 1], axis=1)) + 1
        found: dict[tuple[int, int], _Part] = {}
        for run in np.split(rows, starts):
            (number, start), stop = run[0].tolist(), int(run[-1, 1]) + 1
            task = self._tasks.get(number)  # None: its caller was told of a failure already
            if task is not None and (number, start) not in found:
                found[number, start] = _Part(task, start, stop)
        return list(found.values())

    def _run_parts(self, parts: list[_Part]) -> None:
        try:
            self._run_together(parts)
        except Exception as error:
            if len(parts) == 1:
                parts[0].task.error = error
                return
            for part in parts:  # one of them is at fault, or the batch was: alone, each gets its own answer
                self._run_parts([part])

    def _run_together(self, parts: list[_Part]) -> None:
        task = parts[0].task
        merged = {
            name: _concatenated(arrays)
            for name, arrays in ((name, [part.feeds()[name] for part in parts]) for name in task.feeds)
        }
        rows = sum(part.stop - part.start for part in parts)
        size = next((allowed for allowed in self._options.allowed_batch_sizes if allowed >= rows), rows)
        if size > rows:
            merged = {
                name: np.concatenate([array, np.repeat(array[:1], size - rows, axis=0)]) for name, array in merged.items()
            }
        self._observe_size(size)
        values = task.run(merged, task.fetches, _timeout_ms([part.task.deadline for part in parts]))
        for name, value in zip(task.fetches, values):
            if np.ndim(value) == 0 or len(value) != size:
                raise StatusError(
                    StatusCode.FAILED_PRECONDITION,
                    f"Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                    f"tensors: output {name} has shape {list(np.shape(value))}, the inputs have {size} rows",
                )
        offset = 0
        for part in parts:
            length = part.stop - part.start
            part.task.parts[part.start] = [value[offset : offset + length] for value in values]
            offset += length


def _concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    """Along the first axis; where others differ, padded at their ends to the largest with each array's first element."""
    if len(arrays) == 1:
        return arrays[0]
    largest = np.max([array.shape[1:] for array in arrays], axis=0).astype(int)
    return np.concatenate([_padded(array, largest) for array in arrays])


def _padded(array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    widths = [(0, 0), *((0, int(target) - size) for size, target in zip(array.shape[1:], shape))]
    if not any(after for _, after in widths):
        return array
    return np.pad(array, widths, constant_values=array.flat[0] if array.size else array.dtype.type())


def _timeout_ms(deadlines: Sequence[float | None]) -> int:
    """The longest of the deadlines, as milliseconds from now; 0: one has none."""
    ends = [end for end in deadlines if end is not None]
    if len(ends) < len(deadlines):
        return 0
    return max(1, int(1000 * (max(ends) - time.monotonic())))
