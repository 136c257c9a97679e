"""TLS with and without client certificates, the token, limits, and paths that clients name."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from medsynth_tf.core.errors import ConfigError, ServingError
from serving.client import TLS, Client
from serving.server.security import Token, server_credentials
from tests.serving.certificates import self_signed
from tests.serving.conftest import local_server

INPUTS = {"label_map": np.zeros((1, 8, 8), np.uint8), "seed": np.array([1])}


@pytest.fixture
def flags(served_folder):
    return "--model_name=tiny", f"--model_base_path={served_folder}"


def _ssl_config(folder, key, certificate, **more):
    text = {"server_key": key.read_text(), "server_cert": certificate.read_text(), **more}
    file = folder / "ssl.config"
    file.write_text("\n".join(f"{name}: {json.dumps(value)}" for name, value in text.items()))
    return f"--ssl_config_file={file}"


def test_tls(flags, tmp_path):
    key, certificate = self_signed(tmp_path)
    with local_server(*flags, _ssl_config(tmp_path, key, certificate)) as server:
        with Client(server.address, tls=TLS(certificate)) as client:
            assert client.predict("tiny", INPUTS).version == 1
        with Client(server.address) as client, pytest.raises(ServingError):
            client.predict("tiny", INPUTS, timeout=0.5)


def test_clients_show_a_certificate_where_asked(flags, tmp_path):
    key, certificate = self_signed(tmp_path)
    config = _ssl_config(tmp_path, key, certificate, custom_ca=certificate.read_text(), client_verify=True)
    with local_server(*flags, config) as server:
        with Client(server.address, tls=TLS(certificate, certificate, key)) as client:
            assert client.predict("tiny", INPUTS).version == 1
        with Client(server.address, tls=TLS(certificate)) as client, pytest.raises(ServingError):
            client.predict("tiny", INPUTS, timeout=0.5)


def test_token(flags, tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    with local_server(*flags, f"--token_file={file}", rest=True) as server:
        with Client(server.address, token="s3cret") as client:
            assert client.predict("tiny", INPUTS).version == 1
        for token in (None, "", "s3cre", "s3cret2"):
            with Client(server.address, token=token) as client, pytest.raises(ServingError, match="token") as caught:
                client.predict("tiny", INPUTS)
            assert caught.value.code == "UNAUTHENTICATED"
        with grpc.insecure_channel(server.address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        asked = urllib.request.Request(f"{server.rest}/v1/models/tiny", headers={"Authorization": "Bearer s3cret"})
        with urllib.request.urlopen(asked, timeout=5) as response:
            assert response.status == 200
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{server.rest}/v1/models/tiny", timeout=5)
        assert refused.value.code == 401


@pytest.mark.parametrize("text", ["", "server_key: 'k'", "server_key: 'k' server_cert: 'c' client_verify: true", "nonsense {"])
def test_ssl_configs_that_are_refused(tmp_path, text):
    (tmp_path / "ssl.config").write_text(text)
    with pytest.raises(ConfigError, match=r"ssl\.config"):
        server_credentials(str(tmp_path / "ssl.config"))


def test_token_files_that_are_refused(tmp_path):
    (tmp_path / "empty").write_text("\n")
    for name in ("missing", "empty"):
        with pytest.raises(ConfigError, match=name):
            Token(str(tmp_path / name))


def test_message_limit(flags):
    with local_server(*flags, "--grpc_channel_arguments=grpc.max_receive_message_length=1000,x=y") as server:
        with Client(server.address) as client:
            assert client.predict("tiny", INPUTS).version == 1
            large = {"label_map": np.zeros((100, 8, 8), np.uint8), "seed": np.arange(100)}
            with pytest.raises(ServingError, match="larger than max") as caught:
                client.predict("tiny", large, timeout=0.5)
        assert caught.value.code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("path", ["{}/../secret", "/etc", "{}/link", "relative", ""])
def test_no_folder_of_a_clients_choosing_is_opened(flags, served_folder, tmp_path, path):
    link = served_folder / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path)
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="x", base_path=path.format(served_folder), model_platform="tensorflow")
    with local_server(*flags) as server, grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=10)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        with Client(server.address) as client:
            assert client.predict("tiny", INPUTS).version == 1
    link.unlink()
