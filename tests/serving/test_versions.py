"""Versions come and go while requests run."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from medsynth_tf.core.errors import ServingError
from medsynth_tf.training.export import export
from serving.client import Client
from tests.serving.conftest import local_server
from tests.serving.tiny_method import TinyConfig, TinyMethod

INPUTS = {"label_map": np.zeros((2, 8, 8), np.uint8), "seed": np.array([1, 2])}


def _state(client, version):
    return {one.version: one for one in client.status("tiny")}.get(version)


def _wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path, tiny_model):
    export(tiny_model, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def polling(folder):
    flags = (
        "--model_name=tiny",
        f"--model_base_path={folder}",
        "--file_system_poll_wait_seconds=0.1",
        f"--reload_base_paths={folder.parent}",
    )
    with local_server(*flags) as server, Client(server.address) as client:
        yield client


def test_hot_swap_under_load_fails_no_request(folder, polling):
    """Four clients ask without retries while versions 2 and 3 replace version 1; each answer is of a version that was there."""
    expected = {number: TinyMethod(TinyConfig(seed=number - 1)) for number in (1, 2, 3)}
    images = {number: model(INPUTS["label_map"], INPUTS["seed"]).numpy() for number, model in expected.items()}
    stop, wrong, answers = threading.Event(), [], {1: 0, 2: 0, 3: 0}

    def ask():
        while not stop.is_set():
            try:
                outputs = polling.predict("tiny", INPUTS)
                answers[outputs.version] += 1
                if not np.array_equal(outputs["image"], images[outputs.version]):
                    wrong.append(f"version {outputs.version} gave another's image")
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in (2, 3):
        export(expected[number], folder)
        _wait_for(lambda number=number: answers[number] > 20)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(answers.values()) > 0
    _wait_for(
        lambda: (_state(polling, 1).state, _state(polling, 2).state, _state(polling, 3).state) == ("END", "END", "AVAILABLE")
    )
    with pytest.raises(ServingError, match=r"Specific\(tiny, 1\)") as caught:
        polling.predict("tiny", INPUTS, version=1, timeout=0.2)
    assert caught.value.code == "UNAVAILABLE"


def test_long_request_finishes_on_the_version_it_began_with(folder, polling, tmp_path):
    second = export(
        TinyMethod(TinyConfig(seed=1)), tmp_path / "elsewhere"
    )  # not in the time of the request, which must outlast the rest
    shutil.copytree(second, folder / ".copy")
    started = time.monotonic()
    polling.predict("tiny", {"steps": np.array([20_000], np.int32)}, "spin")
    steps = int(20_000 * 4.0 / (time.monotonic() - started))
    results = []
    worker = threading.Thread(
        target=lambda: results.append(polling.predict("tiny", {"steps": np.array([steps], np.int32)}, "spin"))
    )
    worker.start()
    time.sleep(0.3)
    (folder / ".copy").rename(folder / "2")
    _wait_for(lambda: _state(polling, 2) is not None and _state(polling, 2).state == "AVAILABLE")
    assert _state(polling, 1).state in ("AVAILABLE", "UNLOADING")
    assert polling.predict("tiny", INPUTS).version == 2
    worker.join()
    assert results[0].version == 1
    _wait_for(lambda: _state(polling, 1).state == "END")


def _damage_weights(version: Path):
    data = version / "variables" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[0] ^= 0xFF
    data.write_bytes(content)


def test_bad_version_is_refused_while_the_old_one_serves_and_taken_once_repaired(folder, polling, tmp_path):
    good = export(TinyMethod(TinyConfig(seed=1)), tmp_path / "elsewhere")
    shutil.copytree(good, folder / ".copy")
    _damage_weights(folder / ".copy")
    (folder / ".copy").rename(folder / "2")
    _wait_for(lambda: _state(polling, 2) is not None and _state(polling, 2).state == "END")
    status = _state(polling, 2)
    assert "variables.data-00000-of-00001 was altered" in status.error_message
    assert status.error_code != "OK"
    assert polling.predict("tiny", INPUTS).version == 1
    assert _state(polling, 1).state == "AVAILABLE"
    with pytest.raises(ServingError) as caught:
        polling.predict("tiny", INPUTS, version=2)
    assert caught.value.code == "NOT_FOUND"

    _damage_weights(folder / "2")  # the same flip again restores it
    _wait_for(lambda: _state(polling, 2).state == "AVAILABLE")
    assert polling.predict("tiny", INPUTS).version == 2


def test_half_copied_versions_and_temporary_folders_wait(folder, polling, tmp_path):
    good = export(TinyMethod(TinyConfig(seed=1)), tmp_path / "elsewhere")
    shutil.copytree(good, folder / ".7-partial")
    shutil.copytree(good, folder / "7", ignore=shutil.ignore_patterns("saved_model.pb"))
    time.sleep(0.5)
    assert [one.version for one in polling.status("tiny")] == [1]
    shutil.copy(good / "saved_model.pb", folder / "7")
    _wait_for(lambda: _state(polling, 7) is not None and _state(polling, 7).state == "AVAILABLE")
    assert polling.predict("tiny", INPUTS).version == 7


def test_models_are_replaced_by_a_reload_request(folder, polling, tmp_path):
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path=str(folder), model_platform="tensorflow")
    with grpc.insecure_channel(polling.address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert stub.HandleReloadConfigRequest(request, timeout=30).status.error_code == 0
        assert polling.predict("other", INPUTS).version == 1
        with pytest.raises(ServingError, match=r"Latest\(tiny\)"):
            polling.predict("tiny", INPUTS)

        _damage_weights(export(TinyMethod(), tmp_path / "bad"))
        request.config.model_config_list.config.add(name="bad", base_path=str(tmp_path / "bad"), model_platform="tensorflow")
        with pytest.raises(grpc.RpcError) as caught:
            stub.HandleReloadConfigRequest(request, timeout=30)
    assert caught.value.code() == grpc.StatusCode.UNKNOWN
    assert "{name: bad version: 1} due to error" in caught.value.details()
    assert polling.predict("other", INPUTS).version == 1


def test_server_waits_for_its_first_version(tmp_path, tiny_model):
    def arrive():
        time.sleep(0.5)
        export(tiny_model, tmp_path / "tiny")

    worker = threading.Thread(target=arrive)
    worker.start()
    flags = ("--model_name=tiny", f"--model_base_path={tmp_path}/tiny", "--file_system_poll_wait_seconds=0.1")
    with local_server(*flags) as server, Client(server.address) as client:
        assert client.predict("tiny", INPUTS).version == 1
    worker.join()


def test_server_refuses_to_start_on_a_bad_only_version(tmp_path, tiny_model, capsys):
    from serving.server.process import main

    _damage_weights(export(tiny_model, tmp_path / "tiny"))
    assert main(["--port=0", "--model_name=tiny", f"--model_base_path={tmp_path}/tiny"]) == 6
    error = capsys.readouterr().err
    assert (
        "error: Failed to start server. Error: 1 servable(s) did not become available: {{{name: tiny version: 1} due to"
        in error
    )
    assert "Traceback" not in error
