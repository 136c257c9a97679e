"""Failures as gRPC statuses: the one exception of the server, and TensorFlow's errors code to code."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import grpc
import tensorflow as tf

MAX_MESSAGE_BYTES = 2048  # gRPC sends it in a header, with up to three bytes for one; receivers refuse headers above 8 KiB
log = logging.getLogger(__name__)
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """A failure that the client is told: a gRPC status code and one message."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def from_tensorflow(error: tf.errors.OpError) -> StatusError:
    """The same code; the message as the C++ runtime gave it, without the Python frames that Session.run adds."""
    raw = error.__context__ if isinstance(error.__context__, tf.errors.OpError) else error
    return StatusError(_BY_NUMBER.get(raw.error_code, grpc.StatusCode.UNKNOWN), raw.message)


def as_status(error: Exception) -> StatusError:
    """What the client is told of any failure; an unforeseen one is INTERNAL, and its details stay in the server's log."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, tf.errors.OpError):
        return from_tensorflow(error)
    log.error("a request failed", exc_info=error)
    return StatusError(grpc.StatusCode.INTERNAL, "internal error; the server's log has the details")


def _shortened(message: str) -> str:
    content = message.encode("utf-8", "replace")
    if len(content) <= MAX_MESSAGE_BYTES:
        return message
    return content[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + " ..."


def answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a servicer's method: failures become statuses, and nothing of a traceback reaches the client."""

    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except Exception as error:
            status = as_status(error)
        context.abort(status.code, _shortened(status.message))

    return answer
