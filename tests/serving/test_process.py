"""What the flags do to a running server."""

from __future__ import annotations

import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from medsynth_tf.core.errors import ConfigError, ServingError
from serving.client import Client
from serving.server.flags import batching_options, metrics_path, parse, session_config
from serving.server.process import ModelServer
from tests.serving.conftest import free_port, local_server
from tests.serving.models import save_tf1, save_tf2, save_tflite

ONE = {"x": np.array([1.0, 30.0], np.float32)}


def test_health_and_status_answer_while_every_request_thread_is_busy(served_folder):
    flags = ("--model_name=tiny", f"--model_base_path={served_folder}", "--grpc_max_threads=1")
    with local_server(*flags) as server, Client(server.address) as client, grpc.insecure_channel(server.address) as channel:

        def spin():
            with pytest.raises(ServingError):
                client.predict("tiny", {"steps": np.array([10**8], np.int32)}, "spin", timeout=1.5)

        busy = [threading.Thread(target=spin) for _ in range(3)]
        for thread in busy:
            thread.start()
        time.sleep(0.3)
        started = time.monotonic()
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert client.status("tiny")[0].state == "AVAILABLE"
        assert time.monotonic() - started < 0.5
        for thread in busy:
            thread.join()


def test_a_changed_config_file_is_taken_over_and_a_bad_one_is_not(tmp_path):
    for name, half in (("a", 0.5), ("b", 1.0)):
        save_tf1(tmp_path / name / "1", half)
    file = tmp_path / "models.config"

    def write(*names):
        entries = "".join(f'config {{ name: "{n}" base_path: "{tmp_path}/{n}" model_platform: "tensorflow" }}' for n in names)
        replacement = tmp_path / ".new"
        replacement.write_text(f"model_config_list {{ {entries} }}")
        replacement.rename(file)

    def until(model, code):
        deadline = time.monotonic() + 10
        while True:
            try:
                client.predict(model, {"x": np.ones((1, 1), np.float32)}, timeout=0.2)
                found = "OK"
            except ServingError as error:
                found = error.code
            if found == code:
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    write("a")
    flags = (f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=0.1")
    with local_server(*flags) as server, Client(server.address) as client:
        until("a", "OK")
        write("a", "b")
        until("b", "OK")
        for content in ("", "model_config_list { broken"):
            file.write_text(content)
            time.sleep(0.3)
            until("a", "OK")
        write("b")
        until("a", "NOT_FOUND")
        until("b", "OK")


@pytest.mark.parametrize("signatures", [True, False])
def test_tflite_models_where_asked_for(tmp_path, signatures):
    save_tf1(tmp_path / "m" / "1")
    save_tflite(tmp_path / "m" / "2", signatures=signatures)
    flags = ("--model_name=m", f"--model_base_path={tmp_path}/m")
    with local_server(*flags) as server, Client(server.address) as client:
        assert [one.version for one in client.status("m")] == [1]  # not asked for: no version
    tflite = ("--prefer_tflite_model", "--num_tflite_interpreters_per_pool=2")
    with local_server(*flags, *tflite, "--enable_batching") as server, Client(server.address) as client:
        assert [one.version for one in client.status("m")] == [2]
        signature = client.metadata("m").signatures["serving_default"]
        (given,), (output,) = signature.inputs, signature.outputs
        assert signature.inputs[given].dtype == "float32"
        for x in (ONE["x"], ONE["x"][:1]):  # another size: the interpreter allocates anew
            np.testing.assert_allclose(client.predict("m", {given: x})[output], 0.5 * x + 2.0)
        with pytest.raises(ServingError, match="Expects arg") as caught:
            client.predict("m", {given: np.array([1, 2])})
        assert caught.value.code == "INVALID_ARGUMENT"


def test_labels_for_unavailable_models(tmp_path):
    save_tf1(tmp_path / "m" / "1")
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{tmp_path}/m" model_platform: "tensorflow" '
        'version_labels { key: "next" value: 2 } } }'
    )
    flags = (f"--model_config_file={config}",)
    with pytest.raises(ServingError, match="assign label to version 2"), local_server(*flags):
        pass
    with local_server(*flags, "--allow_version_labels_for_unavailable_models") as server, Client(server.address) as client:
        with pytest.raises(ServingError, match=r"Specific\(m, 2\)") as caught:
            client.predict("m", ONE, label="next")
        assert caught.value.code == "NOT_FOUND"


def test_a_taken_port_is_one_line(served_folder):
    base = ("--model_name=tiny", f"--model_base_path={served_folder}")
    with local_server(*base, rest=True) as server:
        for flag in (f"--port={server.server.port}", f"--rest_api_port={server.server.rest_port}"):
            with pytest.raises(ServingError, match="cannot listen on"):
                ModelServer(parse(["--port=0", *base, flag]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port=-1"], "not a port"),
        (["--rest_api_port=9", "--port=9"], "cannot be same as --port"),
        (["--enable_batching=perhaps"], "must be true or false"),
        (["--grpc_channel_arguments=novalue"], "expected key=value"),
        (["--file_system_poll_wait_seconds=-1"], "must be 0 or more"),
        (["--per_process_gpu_memory_fraction=1.5"], "must be 0 to 1"),
        (["--rest_api_num_threads=0"], "must be 1 or more"),
        (["--rest_api_num_threads=x"], "invalid whole number value"),
        (["--use_tfrt=true"], "unrecognized arguments: --use_tfrt=true"),
        (["--batch"], "unrecognized arguments: --batch"),  # no abbreviations
    ],
)
def test_flags_that_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--model_base_path=x", *flags])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_version_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert "TensorFlow 2.15" in capsys.readouterr().out


def test_flags_that_contradict_each_other(tmp_path):
    with pytest.raises(ConfigError, match="needs --enable_batching"):
        batching_options(parse([f"--batching_parameters_file={tmp_path}/x"]))
    with pytest.raises(ConfigError, match="No such file"):
        batching_options(parse(["--enable_batching", f"--batching_parameters_file={tmp_path}/x"]))
    with pytest.raises(ConfigError, match="tensorflow_session_parallelism"):
        session_config(parse(["--tensorflow_session_parallelism=1", "--tensorflow_intra_op_parallelism=2"]))
    (tmp_path / "monitoring").write_text("prometheus_config { enable: true, path: '/m' }")
    flag = f"--monitoring_config_file={tmp_path}/monitoring"
    with pytest.raises(ConfigError, match="needs --rest_api_port"):
        metrics_path(parse([flag]))
    assert metrics_path(parse([flag, f"--rest_api_port={free_port()}"])) == "/m"


def test_waiting_for_a_batch_leaves_threads_to_fill_it(served_folder, tmp_path):
    """Sixteen requests of a row each fill a batch of sixteen, whose time-out would be a minute."""
    (tmp_path / "batching").write_text("max_batch_size { value: 16 } batch_timeout_micros { value: 60000000 }")
    flags = ("--model_name=tiny", f"--model_base_path={served_folder}", "--enable_model_warmup=false")
    batching = ("--enable_batching", f"--batching_parameters_file={tmp_path}/batching")
    inputs = {"label_map": np.zeros((1, 8, 8), np.uint8), "seed": np.array([1])}
    with local_server(*flags, *batching) as server, Client(server.address) as client, futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.predict("tiny", inputs, timeout=20), range(16)))
    assert len(answers) == 16


def test_defaults_are_the_binarys():
    flags = parse([])
    assert (flags.port, flags.rest_api_port, flags.rest_api_timeout_in_ms) == (8500, 0, 30000)
    assert (flags.model_name, flags.file_system_poll_wait_seconds, flags.saved_model_tags) == ("default", 1.0, ["serve"])
    assert (flags.enable_batching, flags.enable_model_warmup, flags.prefer_tflite_model) == (False, True, False)
    assert (flags.num_load_threads, flags.num_unload_threads, flags.flush_filesystem_caches) == (0, 0, True)
    session = session_config(parse(["--tensorflow_session_parallelism=3"]))
    assert (session.intra_op_parallelism_threads, session.inter_op_parallelism_threads) == (3, 3)


def test_session_configuration_comes_from_its_file_and_flags_win(tmp_path):
    (tmp_path / "session").write_text(
        "intra_op_parallelism_threads: 5 inter_op_parallelism_threads: 6 log_device_placement: true"
    )
    flag = f"--tensorflow_session_config_file={tmp_path}/session"
    session = session_config(parse([flag, "--tensorflow_inter_op_parallelism=2"]))
    assert (session.intra_op_parallelism_threads, session.inter_op_parallelism_threads) == (5, 2)
    assert session.log_device_placement
    assert session.allow_soft_placement
    assert not session.graph_options.optimizer_options.cpu_global_jit
    assert session_config(parse(["--xla_cpu_compilation_enabled"])).graph_options.optimizer_options.cpu_global_jit
    fraction = session_config(parse(["--per_process_gpu_memory_fraction=0.4"])).gpu_options
    assert fraction.per_process_gpu_memory_fraction == pytest.approx(0.4)
    assert not fraction.allow_growth
    (tmp_path / "session").write_text("intra_op: 5")
    with pytest.raises(ConfigError, match="Invalid protobuf file"):
        session_config(parse([flag]))


def test_xla_and_a_session_file_serve_the_same_answers(tmp_path):
    save_tf2(tmp_path / "m" / "1")
    (tmp_path / "session").write_text("intra_op_parallelism_threads: 1")
    flags = ("--model_name=m", f"--model_base_path={tmp_path}/m", f"--tensorflow_session_config_file={tmp_path}/session")
    with local_server(*flags, "--xla_cpu_compilation_enabled") as server, Client(server.address) as client:
        np.testing.assert_allclose(client.predict("m", ONE)["y"], ONE["x"] / 2 + 2)


def test_flags_of_the_binary_with_one_value_here(capsys):
    flags = parse(["--enable_profiler=false", "--remove_unused_fields_from_bundle_metagraph", "--use_alts_credentials=0"])
    assert flags.enable_profiler == "false"
    for given in ("--enable_profiler=true", "--platform_config_file=x", "--remove_unused_fields_from_bundle_metagraph=false"):
        with pytest.raises(SystemExit):
            parse([given])
        assert "is not for this server" in capsys.readouterr().err
