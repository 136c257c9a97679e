"""The embedded model server: TensorFlow Serving's gRPC services, versions and flags, without its binary."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server until SIGTERM or SIGINT and returns its exit code; `argv` as `python -m serving.server --help` says.

    Raises:
        ServingError: the packages of the `serving` extra are not installed.
    """
    try:
        from serving.server.process import main as process_main
    except ModuleNotFoundError as error:
        from medsynth_tf.core.errors import ServingError

        raise ServingError(f"no module '{error.name}': the model server needs medsynth_tf[serving]") from error
    return process_main(argv)
