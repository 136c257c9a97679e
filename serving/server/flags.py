"""The command line of the server: names, meanings and defaults of `tensorflow_model_server`'s flags."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.version import __version__
from serving.server import metrics, protos
from serving.server.batching import BatchingOptions

EXAMPLE = """example:
  medsynth-model-server --port=8500 --rest_api_port=8501 --model_name=retina --model_base_path=served/retina"""
CORES = os.cpu_count() or 1
MOST_WAITING = 64  # rows of a batch beyond which requests of one row each are not what fills it


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags in `argv` (default: of the process); exits with code 2 and a line on stderr if one is unknown or malformed."""
    parser = argparse.ArgumentParser(
        prog="medsynth-model-server",
        description="Serve exported models over gRPC and REST, as TensorFlow Serving does.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--helpfull", action="help", help="the same as --help")
    parser.add_argument("--version", action="version", version=f"medsynth_tf {__version__}, TensorFlow {tf.__version__}")
    _add_listening(parser)
    _add_models(parser)
    _add_running(parser)
    _add_fixed(parser)
    flags = parser.parse_args(argv)
    if flags.rest_api_port and flags.rest_api_port == flags.port:
        parser.error("--rest_api_port cannot be same as --port")
    return flags


def _add_listening(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("listening").add_argument
    add("--port", type=_port, default=8500, help="TCP port for gRPC; 0 takes a free one (default: 8500)")
    add("--grpc_socket_path", default="", help="also listen on this Unix socket (an absolute path)")
    add("--grpc_channel_arguments", type=_channel_arguments, default=[], help="key=value,…: arguments of the gRPC server")
    add(
        "--grpc_max_threads",
        type=_whole(1),
        help="gRPC requests answered at the same time; more wait (default: 4 per core, with batching enough for two batches)",
    )
    add("--rest_api_port", type=_port, default=0, help="TCP port for REST; 0: no REST (default: 0)")
    add(
        "--rest_api_num_threads",
        type=_whole(1),
        help="REST requests answered at the same time; more wait (default: 4 per core, with batching enough for two batches)",
    )
    add("--rest_api_timeout_in_ms", type=_whole(1), default=30000, help="longest a REST request may take (default: 30000)")
    add("--rest_api_enable_cors_support", **_switch(False), help="send CORS headers (default: false)")
    add("--rest_api_max_request_bytes", type=_whole(1), default=2**30, help="body of a REST request at most (default: 1 GiB)")
    add("--ssl_config_file", default="", help="text-format SSLConfig: TLS for gRPC, and client certificates")
    add("--token_file", default="", help="file with the token that each request must bring ('authorization: Bearer …')")
    add("--monitoring_config_file", default="", help="text-format MonitoringConfig: Prometheus metrics on the REST port")


def _add_models(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("models").add_argument
    add("--model_name", default="default", help="name of the one model (default: default)")
    add("--model_base_path", default="", help="folder with the numbered versions of the one model")
    add("--model_config_file", default="", help="text-format ModelServerConfig, for several models")
    add(
        "--model_config_file_poll_wait_seconds",
        type=_seconds,
        default=0.0,
        help="seconds between looks for a changed --model_config_file; 0: read once (default: 0)",
    )
    add(
        "--file_system_poll_wait_seconds",
        type=_seconds,
        default=1.0,
        help="seconds between looks for new versions; 0: look once (default: 1)",
    )
    add(
        "--reload_base_paths",
        type=_list,
        default=[],
        help="folder,…: besides those of the models, where HandleReloadConfigRequest may name base paths",
    )
    add(
        "--allow_version_labels_for_unavailable_models",
        **_switch(False),
        help="a label may be given to a version that is not loaded yet (default: false)",
    )
    add(
        "--max_num_load_retries",
        type=_whole(0),
        default=0,
        help="times a version that does not load is tried again unchanged; a changed one always is (default: 0)",
    )
    add("--load_retry_interval_micros", type=_whole(0), default=60_000_000, help="between those tries (default: a minute)")
    add(
        "--num_load_threads",
        type=_whole(0),
        default=0,
        help="models looked at and loaded at the same time (default: one by one)",
    )
    add(
        "--num_unload_threads",
        type=_whole(0),
        default=0,
        help="versions unloaded at the same time; 0: all at once (default: 0)",
    )
    add(
        "--flush_filesystem_caches",
        **_switch(True),
        help="give the pages of a version's files back to the system once it is loaded (default: true)",
    )
    add("--saved_model_tags", type=_list, default=[tf.saved_model.SERVING], help="tags of the graph to load (default: serve)")
    add("--enable_model_warmup", **_switch(True), help="replay recorded requests when a version loads (default: true)")
    add("--num_request_iterations_for_warmup", type=_whole(1), default=1, help="times each of them is replayed (default: 1)")
    add("--prefer_tflite_model", **_switch(False), help="take model.tflite where a version has one (default: false)")
    add("--num_tflite_interpreters_per_pool", type=_whole(1), default=1, help="TFLite requests at the same time (default: 1)")


def _add_running(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("running").add_argument
    add("--enable_batching", **_switch(False), help="run requests that come at the same time together (default: false)")
    add("--batching_parameters_file", default="", help="text-format BatchingParameters")
    threads = "threads of TensorFlow's {} pool; 0: one per core (default: 0)"
    add("--tensorflow_session_parallelism", type=_whole(0), default=0, help=threads.format("intra-op and inter-op"))
    add("--tensorflow_intra_op_parallelism", type=_whole(0), default=0, help=threads.format("intra-op"))
    add("--tensorflow_inter_op_parallelism", type=_whole(0), default=0, help=threads.format("inter-op"))
    add("--tensorflow_session_config_file", default="", help="text-format ConfigProto that sessions are made with")
    add("--xla_cpu_compilation_enabled", **_switch(False), help="compile graphs with XLA, on CPUs too (default: false)")
    add("--per_process_gpu_memory_fraction", type=_fraction, default=0.0, help="share of a GPU's memory to take; 0: as needed")
    add(
        "--enable_signature_method_name_check",
        **_switch(False),
        help="Classify and Regress want signatures that name that method (default: false)",
    )


def _add_fixed(parser: argparse.ArgumentParser) -> None:
    """Flags of the binary that command lines carry over with the one value that this server runs with."""
    add = parser.add_argument_group("flags with one value, for command lines of the binary").add_argument
    add("--enable_profiler", type=_only("false", "a profiler writes where its client says"))
    add(
        "--use_alts_credentials",
        type=_only("false", "ALTS is for Google Cloud; see --ssl_config_file"),
        nargs="?",
        const="true",
    )
    add(
        "--remove_unused_fields_from_bundle_metagraph",
        type=_only("true", "nothing of the MetaGraph but its signatures is kept"),
        nargs="?",
        const="true",
    )
    instead = "give --tensorflow_session_config_file, --batching_parameters_file and --saved_model_tags, which say the same"
    add("--platform_config_file", type=_only("", instead))
    add("--thread_pool_factory_config_file", type=_only("", "see --tensorflow_intra_op_parallelism and its neighbours"))


def model_config(flags: argparse.Namespace) -> ModelServerConfig:
    """The models the flags ask for.

    Raises:
        ConfigError: neither or both ways of naming models, or the file cannot be read.
    """
    if bool(flags.model_config_file) == bool(flags.model_base_path):
        raise ConfigError("give either --model_base_path (one model) or --model_config_file (several)")
    config = ModelServerConfig()
    if flags.model_base_path:
        config.model_config_list.config.add(
            name=flags.model_name, base_path=os.path.abspath(flags.model_base_path), model_platform="tensorflow"
        )
        return config
    return protos.read_text(flags.model_config_file, config, "model_config_file")


def batching_options(flags: argparse.Namespace) -> BatchingOptions | None:
    """How requests are batched; None: not at all.

    Raises:
        ConfigError: the file cannot be read, says what is not allowed, or is given without --enable_batching.
    """
    if not flags.enable_batching:
        if flags.batching_parameters_file:
            raise ConfigError("--batching_parameters_file needs --enable_batching")
        return None
    proto = protos.BatchingParameters()
    if flags.batching_parameters_file:
        protos.read_text(flags.batching_parameters_file, proto, "batching_parameters_file")
    return BatchingOptions.from_proto(proto, threads=CORES)


def request_threads(options: BatchingOptions | None) -> int:
    """Requests answered at the same time, where the flags do not say: each that waits for its batch to fill holds a thread."""
    return max(4 * CORES, 2 * min(options.largest_batch, MOST_WAITING) if options else 0)


def metrics_path(flags: argparse.Namespace) -> str:
    """Where on the REST port the Prometheus page is; "": nowhere.

    Raises:
        ConfigError: the file cannot be read, or there is no REST port to put the page on.
    """
    if not flags.monitoring_config_file:
        return ""
    config = protos.read_text(flags.monitoring_config_file, protos.MonitoringConfig(), "monitoring_config_file")
    if not config.prometheus_config.enable:
        return ""
    if not flags.rest_api_port:
        raise ConfigError("--monitoring_config_file needs --rest_api_port: the metrics are served there")
    return config.prometheus_config.path or metrics.PATH


def session_config(flags: argparse.Namespace) -> tf.compat.v1.ConfigProto:
    """What sessions are made with: the file, and the flags over it.

    Raises:
        ConfigError: the file cannot be read, or --tensorflow_session_parallelism stands with those for one pool.
    """
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    config.gpu_options.allow_growth = True  # the new version loads beside the old one
    if flags.tensorflow_session_config_file:
        protos.read_text(flags.tensorflow_session_config_file, config, "tensorflow_session_config_file")
    both, intra, inter = (
        flags.tensorflow_session_parallelism,
        flags.tensorflow_intra_op_parallelism,
        flags.tensorflow_inter_op_parallelism,
    )
    if both and (intra or inter):
        raise ConfigError(
            "give --tensorflow_session_parallelism, or --tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism"
        )
    if both or intra:
        config.intra_op_parallelism_threads = both or intra
    if both or inter:
        config.inter_op_parallelism_threads = both or inter
    if flags.per_process_gpu_memory_fraction:
        config.gpu_options.allow_growth = False
        config.gpu_options.per_process_gpu_memory_fraction = flags.per_process_gpu_memory_fraction
    if flags.xla_cpu_compilation_enabled:
        options = config.graph_options.optimizer_options
        options.global_jit_level = tf.compat.v1.OptimizerOptions.ON_1
        options.cpu_global_jit = True
    return config


def _switch(default: bool) -> dict[str, Any]:
    """A flag that stands alone for true, or takes =true or =false."""
    return {"type": _boolean, "nargs": "?", "const": True, "default": default, "metavar": "true|false"}


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text} must be true or false")
    return text.lower() in ("true", "1")


def _only(value: str, reason: str) -> Callable[[str], str]:
    """Takes the one value; any other is refused with the reason."""

    def convert(text: str) -> str:
        given = {"1": "true", "0": "false"}.get(text, text).lower()
        if given != value:
            raise argparse.ArgumentTypeError(f"'{text}' is not for this server, which takes '{value}' only: {reason}")
        return given

    return convert


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port (0 to 65535)")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return number


def _fraction(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} must be 0 to 1")
    return number


def _whole(minimum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"{text} must be {minimum} or more")
        return number

    convert.__name__ = "whole number"  # what argparse calls it in its message
    return convert


def _channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """As the binary: a value that reads as an integer is one, any other is a string."""
    pairs: list[tuple[str, int | str]] = []
    for part in _list(text):
        key, separator, value = part.partition("=")
        if not separator or not key:
            raise argparse.ArgumentTypeError(f"'{part}': expected key=value")
        pairs.append((key, int(value) if value.lstrip("-").isdecimal() else value))
    return pairs
