"""The life of versions, with servables that cost nothing."""

from __future__ import annotations

import threading

import pytest
from google.protobuf import text_format
from grpc import StatusCode
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.server.manager import Manager, State
from serving.server.status import StatusError


class FakeServable:
    def __init__(self, name, version, path):
        if (path / "bad").exists():
            raise RuntimeError("weights are damaged")
        self.name, self.version, self.closed = name, version, False

    def close(self):
        self.closed = True


def _version(folder, number, bad=False):
    (folder / str(number)).mkdir(parents=True)
    (folder / str(number) / "saved_model.pb").touch()
    if bad:
        (folder / str(number) / "bad").touch()


def _config(folder, extra="", name="m"):
    text = f'model_config_list {{ config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow" {extra} }} }}'
    return text_format.Parse(text, ModelServerConfig())


def _states(manager, name="m"):
    return {version.number: State.Name(version.state) for version in manager.statuses(ModelSpec(name=name))}


@pytest.fixture
def manager():
    made = Manager(poll_seconds=0, load=FakeServable)
    yield made
    made.stop()


def _settle(manager, expected):
    """Unloading runs in its own thread."""
    for _ in range(500):
        if _states(manager) == expected:
            return
        threading.Event().wait(0.01)
    assert _states(manager) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", {10}),
        ("latest { num_versions: 2 }", {9, 10}),
        ("all {}", {2, 9, 10}),
        ("specific { versions: 2 versions: 9 versions: 44 }", {2, 9}),
    ],
)
def test_version_policies(manager, tmp_path, policy, expected):
    for number in (2, 9, 10):
        _version(tmp_path, number)
    manager.configure(_config(tmp_path, f"model_version_policy {{ {policy} }}"))
    assert set(_states(manager)) == expected


def test_a_version_is_closed_only_after_its_requests(manager, tmp_path):
    _version(tmp_path, 1)
    manager.configure(_config(tmp_path))
    with manager.servable(ModelSpec(name="m")) as old:
        _version(tmp_path, 2)
        manager.reconcile()
        _settle(manager, {2: "AVAILABLE", 1: "UNLOADING"})
        assert not old.closed
        with manager.servable(ModelSpec(name="m")) as new:
            assert new.version == 2
    _settle(manager, {2: "AVAILABLE", 1: "END"})
    assert old.closed


def test_the_old_version_stays_while_the_new_one_fails(manager, tmp_path):
    _version(tmp_path, 1)
    manager.configure(_config(tmp_path))
    _version(tmp_path, 2, bad=True)
    for _ in range(2):  # not loaded again and again while nothing changes
        manager.reconcile()
        assert _states(manager) == {2: "END", 1: "AVAILABLE"}
    failed = manager.statuses(ModelSpec(name="m"))[0]
    assert failed.error.message == "weights are damaged"
    (tmp_path / "2" / "bad").unlink()
    manager.reconcile()
    _settle(manager, {2: "AVAILABLE", 1: "END"})


def test_versions_go_when_their_folders_do_but_not_when_the_disk_does(manager, tmp_path):
    base = tmp_path / "base"
    _version(base, 1)
    manager.configure(_config(base))
    base.rename(tmp_path / "unmounted")
    manager.reconcile()
    assert _states(manager) == {1: "AVAILABLE"}
    base.mkdir()
    manager.reconcile()
    _settle(manager, {1: "END"})
    with pytest.raises(StatusError) as caught, manager.servable(ModelSpec(name="m")):
        pass
    assert (caught.value.code, caught.value.message) == (StatusCode.NOT_FOUND, "Servable not found for request: Latest(m)")


def test_an_older_version_comes_back_when_the_newer_is_withdrawn(manager, tmp_path):
    _version(tmp_path, 1)
    manager.configure(_config(tmp_path))
    _version(tmp_path, 2)
    manager.reconcile()
    _settle(manager, {2: "AVAILABLE", 1: "END"})
    (tmp_path / "2").rename(tmp_path / ".withdrawn")
    manager.reconcile()
    _settle(manager, {2: "END", 1: "AVAILABLE"})


def test_reconfiguration(manager, tmp_path):
    _version(tmp_path / "a", 1)
    _version(tmp_path / "b", 5)
    manager.configure(_config(tmp_path / "a", name="a"))
    manager.configure(_config(tmp_path / "b", 'version_labels { key: "stable" value: 5 }', name="b"))
    with manager.servable(ModelSpec(name="b", version_label="stable")) as servable:
        assert servable.version == 5
    with pytest.raises(StatusError, match=r"Latest\(a\)"), manager.servable(ModelSpec(name="a")):
        pass


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("model_config_list { config { name: 'm' } }", StatusCode.INVALID_ARGUMENT, "both name and base_path"),
        (
            "model_config_list { config { name: 'm' base_path: '/a' } config { name: 'm' base_path: '/b' } }",
            StatusCode.INVALID_ARGUMENT,
            "Illegal to list model m multiple times",
        ),
        (
            "model_config_list { config { name: 'm' base_path: '/a' model_platform: 'caffe' } }",
            StatusCode.INVALID_ARGUMENT,
            "'caffe' is not 'tensorflow'",
        ),
        ("custom_model_config {}", StatusCode.INVALID_ARGUMENT, "only model_config_list is"),
    ],
)
def test_configurations_that_are_refused(manager, tmp_path, text, code, message):
    _version(tmp_path, 1)
    manager.configure(_config(tmp_path))
    with pytest.raises(StatusError, match=message) as caught:
        manager.configure(text_format.Parse(text, ModelServerConfig()))
    assert caught.value.code == code
    assert _states(manager) == {1: "AVAILABLE"}


def test_an_empty_configuration_changes_nothing_and_an_empty_list_unloads_all(manager, tmp_path):
    _version(tmp_path, 1)
    manager.configure(_config(tmp_path))
    manager.configure(ModelServerConfig())
    assert _states(manager) == {1: "AVAILABLE"}
    manager.configure(text_format.Parse("model_config_list {}", ModelServerConfig()))
    _settle(manager, {1: "END"})


def test_labels_need_an_available_version(manager, tmp_path):
    _version(tmp_path, 1)
    with pytest.raises(StatusError, match="assign label to version 7 of model m, which is not currently available") as caught:
        manager.configure(_config(tmp_path, 'version_labels { key: "canary" value: 7 }'))
    assert caught.value.code == StatusCode.FAILED_PRECONDITION


def test_only_bad_versions_is_a_failure(manager, tmp_path):
    _version(tmp_path, 3, bad=True)
    with pytest.raises(StatusError, match=r"1 servable\(s\) did not become available: .*version: 3.*weights are damaged"):
        manager.configure(_config(tmp_path))


def test_polling_goes_on_after_an_unexpected_failure(tmp_path):
    _version(tmp_path, 1)
    manager = Manager(poll_seconds=0.01, load=FakeServable)
    manager.configure(_config(tmp_path))
    real, failed = manager.reconcile, threading.Event()

    def flaky():
        if not failed.is_set():
            failed.set()
            raise MemoryError
        real()

    manager.reconcile = flaky
    manager.start_polling()
    failed.wait(5)
    _version(tmp_path, 2)
    _settle(manager, {2: "AVAILABLE", 1: "END"})
    manager.stop()


def test_a_version_that_does_not_load_is_tried_again_as_often_as_allowed(tmp_path):
    _version(tmp_path, 1)
    attempts = []

    def load(name, version, path):
        attempts.append(version)
        if len(attempts) < 3:
            raise OSError("the disk is busy")
        return FakeServable(name, version, path)

    manager = Manager(poll_seconds=0, load=load, load_retries=2, retry_seconds=0.01)
    manager.configure(_config(tmp_path))
    assert (attempts, _states(manager)) == ([1, 1, 1], {1: "AVAILABLE"})
    manager.stop()

    attempts.clear()
    manager = Manager(poll_seconds=0, load=load, load_retries=1, retry_seconds=0.01)
    with pytest.raises(StatusError, match="the disk is busy"):
        manager.configure(_config(tmp_path))
    manager.reconcile()
    assert attempts == [1, 1]
    manager.stop()


def test_load_threads_load_models_together_and_unload_threads_bound_unloading(tmp_path):
    together = threading.Barrier(3, timeout=10)  # breaks unless three loads run at the same time
    running, most, guard = [0], [0], threading.Lock()

    class Servable(FakeServable):
        def __init__(self, *args):
            super().__init__(*args)
            together.wait()

        def close(self):
            with guard:
                running[0] += 1
                most[0] = max(most[0], running[0])
            threading.Event().wait(0.05)
            with guard:
                running[0] -= 1

    listed = []
    for name in "abc":
        _version(tmp_path / name, 1)
        listed.append(f'config {{ name: "{name}" base_path: "{tmp_path / name}" model_platform: "tensorflow" }}')
    manager = Manager(poll_seconds=0, load=Servable, load_threads=3, unload_threads=1)
    manager.configure(text_format.Parse(f"model_config_list {{ {' '.join(listed)} }}", ModelServerConfig()))
    assert all(_states(manager, name) == {1: "AVAILABLE"} for name in "abc")
    manager.configure(text_format.Parse("model_config_list { }", ModelServerConfig()))
    for name in "abc":
        for _ in range(500):
            if _states(manager, name) == {1: "END"}:
                break
            threading.Event().wait(0.01)
        assert _states(manager, name) == {1: "END"}
    assert most[0] == 1
    manager.stop()
