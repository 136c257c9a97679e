"""Batching through TensorFlow's scheduler: which requests run together, and that none notices."""

from __future__ import annotations

import re
import threading
import time
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc import StatusCode

from medsynth_tf.core.errors import ConfigError, ServingError
from serving.client import Client
from serving.server import protos
from serving.server.batching import Batcher, BatchingOptions
from serving.server.status import StatusError
from tests.serving.conftest import local_server

FETCHES = ["y"]


class Doubler:
    """A run that records its batches; can be held back until told."""

    def __init__(self):
        self.batches, self.timeouts, self.free = [], [], threading.Event()
        self.free.set()

    def __call__(self, feeds, fetches, timeout_ms):
        self.free.wait(10)
        x = feeds["x"]
        self.batches.append(x.shape)
        self.timeouts.append(timeout_ms)
        if np.any(x < 0):
            raise tf.errors.InvalidArgumentError(None, None, f"negative: {x.min()}")
        return [2 * x]


@pytest.fixture
def doubler():
    return Doubler()


def _ask(batcher, run, arrays, timeout_ms=0):
    """All at the same time; answers or errors in the order of `arrays`."""

    def one(array):
        try:
            return batcher.run("queue", run, {"x": np.asarray(array)}, FETCHES, timeout_ms)[0]
        except Exception as error:
            return error

    with futures.ThreadPoolExecutor(len(arrays)) as pool:
        return list(pool.map(one, arrays))


def _batcher(**options):
    return Batcher(BatchingOptions(**{"max_batch_size": 4, "batch_timeout_micros": 200_000, **options}))


def test_requests_run_together_and_each_gets_its_own_rows(doubler):
    arrays = [np.full((1 + i % 2, 3), i) for i in range(8)]
    answers = _ask(_batcher(max_enqueued_batches=100), doubler, arrays)
    for array, answer in zip(arrays, answers):
        np.testing.assert_array_equal(answer, 2 * array)
    assert sum(shape[0] for shape in doubler.batches) == 12
    assert len(doubler.batches) < 8
    assert max(shape[0] for shape in doubler.batches) <= 4


def test_a_full_batch_does_not_wait_and_a_lone_request_waits_only_its_time(doubler):
    slow = _batcher(batch_timeout_micros=2_000_000)
    started = time.monotonic()
    _ask(slow, doubler, [np.ones((4, 1))])
    assert time.monotonic() - started < 1.0
    quick = _batcher(batch_timeout_micros=300_000)
    started = time.monotonic()
    _ask(quick, doubler, [np.ones((1, 1))])
    assert 0.25 < time.monotonic() - started < 1.5


def test_one_bad_request_fails_alone(doubler):
    answers = _ask(_batcher(), doubler, [[[1]], [[-7]], [[3]], [[4]]])
    assert isinstance(answers[1], tf.errors.InvalidArgumentError)
    assert "negative: -7" in str(answers[1])
    assert [answers[i].tolist() for i in (0, 2, 3)] == [[[2]], [[6]], [[8]]]


def test_shapes_that_differ_run_apart_or_padded(doubler):
    arrays = [np.array([[1, 2]]), np.array([[3, 4, 5]])]
    apart = _ask(_batcher(max_batch_size=2), doubler, arrays)
    assert [answer.tolist() for answer in apart] == [[[2, 4]], [[6, 8, 10]]]
    assert sorted(doubler.batches) == [(1, 2), (1, 3)]
    doubler.batches.clear()
    padded = _ask(_batcher(max_batch_size=2, pad_variable_length_inputs=True), doubler, arrays)
    assert doubler.batches == [(2, 3)]
    assert [answer.tolist() for answer in padded] == [[[2, 4, 2]], [[6, 8, 10]]]  # padded with its own first element


def test_allowed_sizes_fill_up_with_rows_nobody_gets(doubler):
    answers = _ask(_batcher(max_batch_size=8, allowed_batch_sizes=(2, 8)), doubler, [[[i]] for i in range(3)])
    assert [answer.tolist() for answer in answers] == [[[0]], [[2]], [[4]]]
    assert {shape[0] for shape in doubler.batches} <= {2, 8}


def test_large_requests_run_in_parts_where_asked(doubler):
    large = np.arange(10)[:, None]
    (refused,) = _ask(_batcher(), doubler, [large])
    assert (refused.code, "larger than maximum" in refused.message) == (StatusCode.INVALID_ARGUMENT, True)
    assert "function_node" not in refused.message
    splitting = _batcher(max_batch_size=12, enable_large_batch_splitting=True, max_execution_batch_size=4)
    (answer,) = _ask(splitting, doubler, [large])
    np.testing.assert_array_equal(answer, 2 * large)
    assert max(shape[0] for shape in doubler.batches) <= 4
    assert sum(shape[0] for shape in doubler.batches) == 10


def test_over_the_queue_is_unavailable(doubler):
    doubler.free.clear()
    batcher = _batcher(max_batch_size=1, max_enqueued_batches=2, num_batch_threads=1)
    with futures.ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(batcher.run, "queue", doubler, {"x": np.ones((1, 1))}, FETCHES) for _ in range(12)]
        time.sleep(0.5)
        doubler.free.set()
        errors = [future.exception() for future in asked if future.exception() is not None]
    assert 0 < len(errors) < 12
    for error in errors:
        assert error.code == StatusCode.UNAVAILABLE
        assert "batch scheduling queue to which this task was submitted is full" in error.message


def test_expired_requests_are_dropped_and_the_longest_deadline_bounds_the_run(doubler):
    doubler.free.clear()
    batcher = _batcher(max_batch_size=1, num_batch_threads=1)
    with futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(batcher.run, "queue", doubler, {"x": np.ones((1, 1))}, FETCHES)
        time.sleep(0.1)
        late = pool.submit(batcher.run, "queue", doubler, {"x": np.ones((1, 1))}, FETCHES, 100)
        time.sleep(0.3)
        doubler.free.set()
        first.result()
        assert late.exception().code == StatusCode.DEADLINE_EXCEEDED
    assert len(doubler.batches) == 1
    _ask(_batcher(max_batch_size=2), doubler, [[[1]], [[2]]], timeout_ms=5000)
    assert 4000 < doubler.timeouts[-1] <= 5000


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": np.float32(1)}, "at least one dimension"),
        ({"x": np.ones((2, 1)), "z": np.ones((3, 1))}, "equal 0th-dimension size"),
        ({"x": np.ones((0, 1))}, "at least one row"),
    ],
)
def test_inputs_that_cannot_be_batched(doubler, feeds, message):
    with pytest.raises(StatusError, match=message) as caught:
        _batcher().run("queue", doubler, {name: np.asarray(value) for name, value in feeds.items()}, FETCHES)
    assert caught.value.code == StatusCode.INVALID_ARGUMENT


def test_outputs_without_a_row_per_input_row():
    (error,) = _ask(_batcher(), lambda feeds, fetches, timeout_ms: [feeds["x"].sum()], [[[1]]])
    assert error.code == StatusCode.FAILED_PRECONDITION
    assert "Batched output tensor's 0th dimension" in error.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "end with the size of the largest batch, 8"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 8 allowed_batch_sizes: 4", "ascending"),
        ("batch_timeout_micros { value: -1 }", "must be non-negative; was -1"),
        ("max_execution_batch_size { value: 4 }", "needs enable_large_batch_splitting"),
    ],
)
def test_parameters_that_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        BatchingOptions.from_proto(text_format.Parse(text, protos.BatchingParameters()), threads=2)


def test_parameters_file_through_a_server_gives_the_same_bytes(served_folder, tiny_model, tmp_path):
    """Same seeds, same bytes, whatever is batched with them; a refused label map does not spoil its neighbours."""
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 16 } batch_timeout_micros { value: 20000 } max_enqueued_batches { value: 100 } "
        "num_batch_threads { value: 2 }"
    )
    flags = (
        "--model_name=tiny",
        f"--model_base_path={served_folder}",
        "--enable_batching",
        f"--batching_parameters_file={file}",
    )
    rng = np.random.default_rng(1)
    requests = [(rng.integers(0, 4, (1 + i % 3, 8, 8)).astype(np.uint8), rng.integers(0, 2**62, 1 + i % 3)) for i in range(24)]
    with local_server(*flags) as server, Client(server.address) as client:

        def ask(index):
            labels, seed = requests[index]
            if index % 8 == 5:
                with pytest.raises(ServingError, match="label_map: labels are 0 to 3") as caught:
                    client.predict("tiny", {"label_map": labels + 9, "seed": seed})
                return caught.value.code
            return client.predict("tiny", {"label_map": labels, "seed": seed}, outputs=["image"] if index % 2 else None)[
                "image"
            ]

        with futures.ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(ask, range(24)))
        page = server.server.metrics.page()
    for (labels, seed), answer in zip(requests, answers):
        if isinstance(answer, str):
            assert answer == "INVALID_ARGUMENT"
        else:
            np.testing.assert_array_equal(answer, tiny_model(labels, seed))
    runs, small = (
        int(re.search(pattern + r"(\d+)", page)[1]) for pattern in (r"batch_size_count\{\} ", r'batch_size.*le="4"\} ')
    )
    assert small < runs  # a batch of more rows than any request had
