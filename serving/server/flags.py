"""The command line of the server: names and meanings of `tensorflow_model_server`'s flags."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from medsynth_tf.core.errors import ConfigError

EXAMPLE = """example:
  medsynth serve --port=8500 --model_name=semantic_retina --model_base_path=served/semantic_retina"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags in `argv` (default: of the process); exits with code 2 and a line on stderr if one is unknown or malformed."""
    parser = argparse.ArgumentParser(
        prog="medsynth serve",
        description="Serve exported models over gRPC, as TensorFlow Serving does.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--helpfull", action="help", help="the same as --help")
    parser.add_argument("--port", type=_port, default=8500, help="TCP port for gRPC; 0 takes a free one (default: 8500)")
    parser.add_argument("--grpc_socket_path", default="", help="also listen on this Unix socket (an absolute path)")
    parser.add_argument("--model_name", default="default", help="name of the one model (default: default)")
    parser.add_argument("--model_base_path", default="", help="folder with the numbered versions of the one model")
    parser.add_argument("--model_config_file", default="", help="text-format ModelServerConfig, for several models")
    parser.add_argument(
        "--file_system_poll_wait_seconds",
        type=_not_negative,
        default=1.0,
        help="seconds between looks for new versions; 0: look once (default: 1)",
    )
    parser.add_argument(
        "--grpc_max_threads",
        type=_at_least_one,
        default=4 * (os.cpu_count() or 1),
        help="requests answered at the same time; more wait (default: 4 per core)",
    )
    return parser.parse_args(argv)


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
    try:
        with open(flags.model_config_file, encoding="utf-8") as file:
            return text_format.Parse(file.read(), config)
    except OSError as error:
        raise ConfigError(f"cannot read --model_config_file {flags.model_config_file}: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"Invalid protobuf file: '{flags.model_config_file}': {error}") from error


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port (0 to 65535)")
    return number


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0.0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return number


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number
