"""Who may talk to the server: TLS with or without client certificates (SSLConfig), and a token."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from medsynth_tf.core.errors import ConfigError
from serving.server import protos

HEALTH_METHODS = "/grpc.health.v1.Health/"
REFUSAL = "missing or wrong token: send 'authorization: Bearer TOKEN'"


def server_credentials(ssl_config_file: str) -> grpc.ServerCredentials:
    """Of a text-format SSLConfig, whose fields hold PEM texts; `client_verify` asks clients for a certificate of `custom_ca`.

    Raises:
        ConfigError: the file cannot be read, or lacks what is needed.
    """
    config = protos.read_text(ssl_config_file, protos.SSLConfig(), "ssl_config_file")
    if not config.server_key or not config.server_cert:
        raise ConfigError(f"--ssl_config_file {ssl_config_file}: server_key and server_cert must be given")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(f"--ssl_config_file {ssl_config_file}: client_verify needs custom_ca")
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


class Token:
    """The one token that opens the server."""

    def __init__(self, path: str):
        """Reads it from a file, so that it stands in no process list.

        Raises:
            ConfigError: the file cannot be read or is empty.
        """
        try:
            token = Path(path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read --token_file {path}: {error}") from error
        if not token:
            raise ConfigError(f"--token_file {path} is empty")
        self._expected = f"Bearer {token}".encode()

    def allows(self, authorization: str | bytes | None) -> bool:
        """Whether that is the value of the `authorization` header it should be; in constant time."""
        given = authorization.encode() if isinstance(authorization, str) else authorization or b""
        return hmac.compare_digest(given, self._expected)


class TokenInterceptor(grpc.ServerInterceptor):
    """Refuses gRPC calls without the token as UNAUTHENTICATED; health checks, which probes make, go through."""

    def __init__(self, token: Token):
        self._token = token
        self._refuse = grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)
        )

    def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        """As gRPC asks."""
        if details.method.startswith(HEALTH_METHODS):
            return continuation(details)
        allowed = self._token.allows(dict(details.invocation_metadata).get("authorization"))
        return continuation(details) if allowed else self._refuse
