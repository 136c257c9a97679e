"""The asyncio client, and both clients' chunks."""

from __future__ import annotations

import asyncio
import time

import grpc
import numpy as np
import pytest

from medsynth_tf.core.errors import ServingError
from serving.aio import AsyncClient
from serving.messages import TLS, chunks
from tests.serving.certificates import self_signed
from tests.serving.test_client import X, scripted

COUNT = 11


@pytest.fixture
def inputs(tmp_path):
    """Memory-mapped, as data too large for memory would be."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "labels.npy", rng.integers(0, 4, (COUNT, 8, 8)).astype(np.uint8))
    return {"label_map": np.load(tmp_path / "labels.npy", mmap_mode="r"), "seed": np.arange(COUNT)}


def test_it_answers_as_the_other_client(server, client):
    async def ask():
        async with AsyncClient(server.address) as twin:
            assert await twin.wait_ready("tiny") == 1
            assert await twin.status("tiny") == client.status("tiny")
            assert await twin.metadata("tiny") == client.metadata("tiny")
            given = {"label_map": np.zeros((2, 8, 8), np.uint8), "seed": np.array([1, 2])}
            return given, await asyncio.gather(*(twin.predict("tiny", given, outputs=["image"]) for _ in range(5)))

    given, answers = asyncio.run(ask())
    for answer in answers:
        np.testing.assert_array_equal(answer["image"], client.predict("tiny", given)["image"])


def test_chunks_come_in_order_and_whole(server, client, inputs, tiny_model):
    expected = tiny_model(np.array(inputs["label_map"]), inputs["seed"])

    async def ask():
        async with AsyncClient(server.address) as twin:
            return [part["image"] async for part in twin.predict_chunks("tiny", inputs, 4)]

    for parts in (asyncio.run(ask()), [part["image"] for part in client.predict_chunks("tiny", inputs, 4)]):
        assert [len(part) for part in parts] == [4, 4, 3]
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_a_chunk_that_fails_ends_it_after_the_good_ones(client, inputs):
    broken = {"label_map": np.array(inputs["label_map"]), "seed": inputs["seed"]}
    broken["label_map"][5] = 77
    answers = client.predict_chunks("tiny", broken, 4)
    assert len(next(answers)["image"]) == 4
    with pytest.raises(ServingError, match="labels are 0 to 3"):
        next(answers)


def test_no_more_chunks_are_read_than_are_in_flight(client, inputs):
    class Watched:
        read = 0

        def __len__(self):
            return COUNT

        def __getitem__(self, rows):
            Watched.read = rows.stop
            return inputs["label_map"][rows]

    answers = client.predict_chunks("tiny", {"label_map": Watched(), "seed": inputs["seed"]}, 1, in_flight=2)
    next(answers)
    assert Watched.read == 3
    answers.close()


@pytest.mark.parametrize(("arrays", "size"), [({"a": [1], "b": [1, 2]}, 1), ({}, 1), ({"a": [1]}, 0)])
def test_chunks_that_cannot_be_cut(arrays, size):
    with pytest.raises(ServingError, match="same number of rows"):
        list(chunks(arrays, size))


def test_retries_refusals_token_and_tls(tmp_path):
    key, certificate = self_signed(tmp_path)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    codes = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]

    async def ask(address):
        async with AsyncClient(address, token="secret", tls=TLS(certificate)) as twin:
            return await twin.predict("m", X)

    with scripted(codes, credentials) as (service, address):
        np.testing.assert_array_equal(asyncio.run(ask(address))["x"], X["x"])
        assert len(service.times) == 3
        assert service.metadata["authorization"] == "Bearer secret"
    with scripted([grpc.StatusCode.INTERNAL], credentials) as (service, address):
        with pytest.raises(ServingError, match="on purpose") as caught:
            asyncio.run(ask(address))
        assert (caught.value.code, len(service.times)) == ("INTERNAL", 1)


def test_nobody_listens():
    async def wait():
        async with AsyncClient("127.0.0.1:1") as twin:
            await twin.wait_ready("m", timeout=0.3)

    started = time.monotonic()
    with pytest.raises(ServingError, match=r"model 'm' at 127\.0\.0\.1:1 was not ready within 0\.3 s"):
        asyncio.run(wait())
    assert time.monotonic() - started < 2
