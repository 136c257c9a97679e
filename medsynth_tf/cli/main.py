"""The `medsynth` command line. Commands import what they need when they run, so that `list` and `--help` stay instant."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from medsynth_tf.cli import commands
from medsynth_tf.core.errors import MedSynthError
from medsynth_tf.version import __version__

SOURCE_HELP = "folder:PATH, tfrecord:PATH, skimage:retina?size=128 or phantom:fundus?count=64&size=128"

EPILOG = """\
exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 bad data, 4 training failed, 5 export failed,
6 the server failed, 7 the model was refused by its quality gates, 130 interrupted (run again to go on)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments, flags = make_parser().parse_known_args(argv)
    if arguments.command == "serve":
        arguments.flags = flags  # they are the model server's own
    elif flags:
        make_parser().error(f"unrecognized arguments: {' '.join(flags)}")
    # TensorFlow's start-up notes (no GPU, plug-ins registered twice) are no news to a user; Python errors still show
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # deprecations inside the libraries we call
    warnings.filterwarnings("ignore", "You are using a non-supported Python version", FutureWarning)  # of google.api_core
    try:
        return arguments.run(arguments) or 0
    except MedSynthError as error:
        if arguments.traceback:
            raise
        print(f"medsynth {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\nmedsynth {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `medsynth list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def make_parser() -> argparse.ArgumentParser:
    """All commands, each with an example in its help."""
    parser = argparse.ArgumentParser(
        prog="medsynth",
        description="Synthesise, translate, extend and judge medical images with published methods.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medsynth_tf {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error came from")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_method_commands(subparsers)
    _add_serving_commands(subparsers)
    _add_pipeline_commands(subparsers)
    return parser


def _command(
    to: Any, name: str, run: Callable[[argparse.Namespace], int | None], help: str, example: str
) -> argparse.ArgumentParser:
    added = to.add_parser(
        name, help=help, description=help, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    added.set_defaults(run=run)
    return added


def _add_config(to: Any) -> None:
    to.add_argument("--profile", default="small", help="'paper', 'small' or a YAML file (default: small)")
    to.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="replace a setting; may be repeated"
    )


def _add_data(to: argparse.ArgumentParser) -> None:
    to.add_argument("--data", required=True, metavar="SOURCE", help=SOURCE_HELP)


def _add_method_commands(to: Any) -> None:
    """list, describe, sheet, ingest, train, evaluate, export."""
    added = _command(to, "list", commands.list_methods, "List the methods.", "medsynth list --json")
    added.add_argument("--json", action="store_true", help="as JSON")

    added = _command(
        to, "describe", commands.describe, "Show a method and all its settings.", "medsynth describe semantic_retina"
    )
    added.add_argument("method")
    _add_config(added)

    added = _command(
        to,
        "sheet",
        commands.sheet,
        "Draw records of a source as one picture: images, label maps, classes.",
        "medsynth sheet --data phantom:fundus?count=8 --out sheet.png",
    )
    _add_data(added)
    added.add_argument("--out", required=True, help="the PNG file")
    added.add_argument("--count", type=_positive, default=8, help="records, evenly over the source (default: 8)")

    added = _command(
        to,
        "ingest",
        commands.ingest,
        "Read images of any kind and write them as TFRecord shards, split by patient.",
        "medsynth ingest --data folder:/data/fundus --out records/fundus",
    )
    _add_data(added)
    added.add_argument("--out", required=True, help="folder for the shards, manifest.json and rejected.csv")
    added.add_argument("--shards", type=_positive, default=4, help="files per split (default: 4)")
    added.add_argument(
        "--fractions",
        type=float,
        nargs=3,
        default=(0.8, 0.1, 0.1),
        metavar=("TRAIN", "VAL", "TEST"),
        help="default: 0.8 0.1 0.1",
    )
    added.add_argument("--seed", type=int, default=0, help="of the split")
    added.add_argument("--compress", action="store_true", help="GZIP the shards")

    added = _command(
        to,
        "train",
        commands.train,
        "Train a method; run again with the same folder to go on after an interrupt.",
        "medsynth train semantic_retina --data skimage:retina?size=128 --out runs/retina --set training.epochs=20",
    )
    added.add_argument("method")
    _add_data(added)
    _add_config(added)
    added.add_argument("--out", required=True, help="folder of the run")
    added.add_argument("--restart", action="store_true", help="throw away what the folder holds of an earlier run")

    added = _command(
        to,
        "evaluate",
        commands.evaluate,
        "Judge a trained or exported model on held-out records and write a report; or, with --protocol, compare several generators.",
        "medsynth evaluate runs/retina/model --data skimage:retina?size=128 --out reports/retina\n"
        "  medsynth evaluate --protocol gan_eval --model dcgan=runs/dcgan/model --model theirs=/data/synthetic --data folder:/data/ct "
        "--profile paper --out reports/compared",
    )
    added.add_argument("model", nargs="?", help="a folder that `train` or `export` wrote")
    _add_data(added)
    added.add_argument("--out", required=True, help="folder for metrics.json and report.html")
    added.add_argument("--split", default="test", choices=("val", "test", "all"), help="default: test")
    compared = added.add_argument_group("comparison of generators")
    compared.add_argument(
        "--protocol",
        choices=("gan_eval",),
        help="gan_eval: a fresh classifier for each tells its images from real ones",
    )
    compared.add_argument(
        "--model",
        action="append",
        default=[],
        dest="models",
        metavar="NAME=PATH",
        help="a folder that `train` or `export` wrote, or synthetic images: a folder, .npy or .npz; may be repeated",
    )
    _add_config(compared)

    added = _command(
        to,
        "export",
        commands.export,
        "Write a trained model as the next version of a served model.",
        "medsynth export runs/retina/model --out served/retina",
    )
    added.add_argument("model", help="a folder that `train` wrote")
    added.add_argument("--out", required=True, help="base path of the served model")
    added.add_argument("--name", help="what it is called when served (default: the method)")


def _add_serving_commands(to: Any) -> None:
    """serve, synthesize, deploy."""
    _command(
        to,
        "serve",
        commands.serve,
        "Serve exported models over gRPC. All flags are those of tensorflow_model_server: medsynth-model-server --help lists them.",
        "medsynth serve --port=8500 --model_name=retina --model_base_path=served/retina",
    )

    added = _command(
        to,
        "synthesize",
        commands.synthesize,
        "Write synthetic images with masks and a manifest, through a model server; run again to go on after an interrupt.",
        "medsynth synthesize --server localhost:8500 --model retina --data skimage:retina?size=128 --count 16 --out synthetic",
    )
    added.add_argument("--server", required=True, metavar="HOST:PORT")
    added.add_argument("--model", required=True, help="its name on the server")
    added.add_argument("--data", metavar="SOURCE", help=f"label maps, for a model that takes them: {SOURCE_HELP}")
    added.add_argument("--label", type=int, action="append", help="class, for a model that takes one; repeated ones take turns")
    added.add_argument("--count", type=_positive, required=True, help="number of images")
    added.add_argument("--out", required=True, help="folder for images, masks and the manifest")
    added.add_argument("--seed", type=int, default=0, help="each image's seed derives from it")
    added.add_argument("--format", action="append", choices=("png", "dicom", "nifti"), help="may be repeated (default: png)")
    added.add_argument("--batch", type=_positive, default=8, help="images a request (default: 8)")
    added.add_argument("--wait", type=float, default=30.0, help="seconds to wait for the server to be ready (default: 30)")

    added = _command(
        to,
        "deploy",
        commands.deploy,
        "Write compose and Kubernetes files that run exported models on the official TensorFlow Serving image.",
        "medsynth deploy --model retina=served/retina --out deployment",
    )
    added.add_argument("--model", action="append", required=True, metavar="NAME=FOLDER", help="may be repeated")
    added.add_argument("--out", required=True, help="folder for the files")
    added.add_argument("--name", default="medsynth-serving", help="of all that is created (default: medsynth-serving)")
    added.add_argument("--gpus", type=int, default=0, help="of a replica (default: 0, on CPU)")
    added.add_argument("--replicas", type=_positive, default=2, help="at least (default: 2)")
    added.add_argument("--most-replicas", type=_positive, default=8, help="at most, by load (default: 8)")


def _add_pipeline_commands(to: Any) -> None:
    """pipeline run, pipeline compile, demo."""
    pipelines = to.add_parser("pipeline", help="Run or compile the TFX pipeline.").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    added = _command(
        pipelines,
        "run",
        commands.pipeline_run,
        "Ingest, validate, train, judge and push with TFX on this machine.",
        "medsynth pipeline run semantic_retina --data folder:/data/fundus --root pipelines/retina --push-to served/retina",
    )
    added.add_argument("method")
    _add_data(added)
    _add_config(added)
    added.add_argument("--root", required=True, help="folder of artifacts, metadata and runs")
    added.add_argument("--push-to", required=True, help="base path of the served model")
    added.add_argument(
        "--beam", action="append", default=[], metavar="OPTION", help="option for Beam, e.g. --beam=--runner=FlinkRunner"
    )
    added = _command(
        pipelines,
        "compile",
        commands.pipeline_compile,
        "Write the pipeline as a job specification for Kubeflow Pipelines 2 or Vertex AI.",
        "medsynth pipeline compile semantic_retina --data folder:/data --root /pipes --push-to /served --image IMAGE --out job.json",
    )
    added.add_argument("method")
    _add_data(added)
    _add_config(added)
    added.add_argument("--root", required=True)
    added.add_argument("--push-to", required=True)
    added.add_argument("--image", required=True, help="container image with medsynth_tf[tfx,serving]")
    added.add_argument("--out", required=True, help="the JSON file")

    added = _command(
        to,
        "demo",
        commands.demo,
        "The main job on real photographs: pipeline, server, 16 synthetic images as PNG and DICOM, report.",
        "medsynth demo --out runs/demo --data folder:/data/DRIVE",
    )
    added.add_argument(
        "--data", default=None, metavar="SOURCE", help=f"{SOURCE_HELP} (default: the photograph in scikit-image)"
    )
    added.add_argument("--out", default="runs/demo", help="folder of everything that it makes (default: runs/demo)")
    _add_config(added)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
