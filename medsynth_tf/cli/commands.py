"""What each command does. Heavy imports stand inside the functions: `list` and `describe` must not wait for TensorFlow."""

from __future__ import annotations

import argparse
import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

from medsynth_tf.core import registry
from medsynth_tf.core.config import MethodConfig, parse_overrides
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings

REFUSED = 7
INTERRUPTED = 130


def _config(arguments: argparse.Namespace) -> MethodConfig:
    return registry.load_config(arguments.method, arguments.profile, parse_overrides(arguments.overrides))


def list_methods(arguments: argparse.Namespace) -> None:
    """`medsynth list`."""
    methods = registry.list_methods()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(info) for info in methods], indent=2))
        return
    for info in methods:
        print(f"{info.slug:22s} {info.modality:12s} {info.task:24s} {info.title}")


def describe(arguments: argparse.Namespace) -> None:
    """`medsynth describe`."""
    info = registry.method_info(arguments.method)
    print(
        f"{info.slug}: {info.title}\n{info.reference}\n{info.modality}, {info.task}\n\nsettings of profile '{arguments.profile}':"
    )
    _print_settings(_config(arguments), "")


def _print_settings(settings: Settings, prefix: str) -> None:
    kinds = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Settings):
            _print_settings(value, f"{prefix}{field.name}.")
            continue
        choices = typing.get_args(kinds[field.name]) if typing.get_origin(kinds[field.name]) is typing.Literal else ()
        allowed = f" [{' | '.join(map(str, choices))}]" if choices else ""
        shown = json.dumps(list(value)) if isinstance(value, tuple) else value
        print(f"  {prefix + field.name + ' = ' + str(shown):58s} {field.metadata.get('help', '')}{allowed}")


def sheet(arguments: argparse.Namespace) -> None:
    """`medsynth sheet`."""
    from medsynth_tf.data.open import open_source
    from medsynth_tf.evaluation.sheets import write_source

    print(write_source(arguments.out, open_source(arguments.data), arguments.count))


def ingest(arguments: argparse.Namespace) -> None:
    """`medsynth ingest`."""
    from tqdm import tqdm

    from medsynth_tf.data.ingest import REJECTED
    from medsynth_tf.data.ingest import ingest as run

    with tqdm(desc="ingest", unit="shard") as bar:

        def on_shard(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = run(
            arguments.data,
            arguments.out,
            fractions=arguments.fractions,
            seed=arguments.seed,
            shards=arguments.shards,
            compression="GZIP" if arguments.compress else "",
            on_shard=on_shard,
        )
    counts = ", ".join(f"{split} {count}" for split, count in report.counts.items())
    refused = f"; {len(report.rejected)} refused, see {REJECTED}" if report.rejected else ""
    print(f"{report.output}: {counts}{refused}")


def train(arguments: argparse.Namespace) -> int:
    """`medsynth train`."""
    config = _config(arguments)
    from medsynth_tf.data.open import open_source
    from medsynth_tf.training.trainer import train as run

    done = run(config, open_source(arguments.data), arguments.out, restart=arguments.restart)
    if not done.finished:
        print(f"interrupted; run the same command again to go on from the checkpoint in {arguments.out}")
        return INTERRUPTED
    print(f"trained model: {Path(arguments.out) / 'model'}")
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """`medsynth evaluate`."""
    if arguments.protocol is not None:
        return _compare(arguments)
    if arguments.model is None or arguments.models or arguments.overrides:
        raise ConfigError("evaluate: give one model's folder; --model and --set belong to --protocol")
    from medsynth_tf.data.open import open_source
    from medsynth_tf.evaluation.gates import check_gates, flattened
    from medsynth_tf.evaluation.run import evaluate_export, evaluate_model

    source, model, out = open_source(arguments.data), Path(arguments.model), Path(arguments.out)
    exported = (model / "saved_model.pb").is_file()
    metrics = (evaluate_export if exported else evaluate_model)(model, source, out, split=arguments.split)
    for name, value in flattened(metrics).items():
        print(f"{name:36s} {value:.4g}" if isinstance(value, float) else f"{name:36s} {value}")
    verdicts = check_gates(metrics, registry.load_any_config(model / "config.yaml").evaluation.gates)
    for verdict in verdicts:
        print(verdict)
    print(f"report: {out / 'index.html'}")
    return 0 if all(verdict.passed for verdict in verdicts) else REFUSED


def _compare(arguments: argparse.Namespace) -> int:
    """`medsynth evaluate --protocol`."""
    if arguments.model is not None or not arguments.models:
        raise ConfigError("evaluate --protocol: name each generator by --model NAME=PATH")
    if arguments.split == "all":
        raise ConfigError("evaluate --protocol: generators learnt from the training split; judge on val or test")
    models = _named_folders(arguments.models)
    config: Any = registry.load_config(arguments.protocol, arguments.profile, parse_overrides(arguments.overrides))
    from medsynth_tf.data.open import open_source
    from medsynth_tf.evaluation.gan_eval.judge import compare_models

    source, out = open_source(arguments.data), Path(arguments.out)
    metrics = compare_models(models, source, config, out, arguments.split, progress=print)
    widths = {"recall": 12, "specificity": 12, "mahalanobis": 16, "frechet": 18}
    print(f"{'class':10s} {'generator':16s}", *(f"{score:>{width}s}" for score, width in widths.items()), f"{'mean rank':>10s}")
    for group, rows in metrics["scores"].items():
        for name, row in rows.items():
            cells = {score: f"{row[score]:.3g} ± {row[f'{score}_std']:.2g}" for score in widths}
            shown = " ".join(f"{cells[score]:>{width}s}" for score, width in widths.items())
            print(f"{group:10s} {name:16s} {shown} {row['mean_rank']:10.3g}")
    for warning in metrics["warnings"]:
        print(warning)
    print(f"report: {out / 'index.html'}")
    return 0


def _named_folders(pairs: list[str]) -> dict[str, Path]:
    models: dict[str, Path] = {}
    for pair in pairs:
        name, separator, folder = pair.partition("=")
        if not separator or not name or not folder:
            raise ConfigError(f"model '{pair}': expected NAME=PATH, for example retina=served/retina")
        if name in models:
            raise ConfigError(f"model '{name}' is named twice")
        models[name] = Path(folder)
    return models


def export(arguments: argparse.Namespace) -> None:
    """`medsynth export`."""
    from medsynth_tf.methods.saving import load
    from medsynth_tf.training.export import export as run

    model = load(arguments.model)
    run_description = Path(arguments.model).parent / "run.json"
    fingerprint = json.loads(run_description.read_text())["data"] if run_description.is_file() else None
    print(run(model, arguments.out, name=arguments.name, data_fingerprint=fingerprint))


def serve(arguments: argparse.Namespace) -> int:
    """`medsynth serve`."""
    from serving.server import main as run

    return run(arguments.flags)


def synthesize(arguments: argparse.Namespace) -> int:
    """`medsynth synthesize`."""
    from medsynth_tf.data.open import open_source
    from serving.client import Client
    from serving.synthesize import synthesize as run

    with Client(arguments.server) as client:  # a wrong address must not wait as long as a slow image may
        client.wait_ready(arguments.model, timeout=arguments.wait)
    done = run(
        server=arguments.server,
        model=arguments.model,
        source=open_source(arguments.data) if arguments.data else None,
        labels=arguments.label or (),
        count=arguments.count,
        folder=Path(arguments.out),
        seed=arguments.seed,
        formats=tuple(arguments.format or ("png",)),
        batch_size=arguments.batch,
    )
    print(f"{done} images: {Path(arguments.out) / 'manifest.csv'}")
    return 0


def deploy(arguments: argparse.Namespace) -> None:
    """`medsynth deploy`."""
    from serving.deploy import Deployment, render

    deployment = Deployment(
        _named_folders(arguments.model),
        name=arguments.name,
        gpus=arguments.gpus,
        replicas=arguments.replicas,
        most_replicas=arguments.most_replicas,
    )
    for path in render(deployment, arguments.out):
        print(path)


def _pipeline_settings(arguments: argparse.Namespace) -> Any:
    from tfx_pipelines.factory import PipelineSettings

    settings = PipelineSettings(root=Path(arguments.root).absolute(), push_to=Path(arguments.push_to).absolute())
    beam = tuple(getattr(arguments, "beam", ()))
    return dataclasses.replace(settings, beam_args=beam) if beam else settings


def pipeline_run(arguments: argparse.Namespace) -> int:
    """`medsynth pipeline run`."""
    config = _config(arguments)
    from tfx_pipelines.runners.local import run

    result = run(config, arguments.data, _pipeline_settings(arguments))
    print("\n".join(result.reasons))
    print(f"report: {result.evaluation / 'index.html'}")
    print(f"pushed: {result.pushed}" if result.pushed else "refused: nothing was pushed")
    return 0 if result.pushed else REFUSED


def pipeline_compile(arguments: argparse.Namespace) -> None:
    """`medsynth pipeline compile`."""
    config = _config(arguments)
    from tfx_pipelines.runners.kubeflow import compile_pipeline

    print(compile_pipeline(config, arguments.data, _pipeline_settings(arguments), Path(arguments.out), arguments.image))


def demo(arguments: argparse.Namespace) -> int:
    """`medsynth demo`."""
    from medsynth_tf.cli.demo import run

    return run(arguments.data, Path(arguments.out), arguments.profile, parse_overrides(arguments.overrides))
