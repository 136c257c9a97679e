"""The command as a user meets it, in a process of its own."""

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from medsynth_tf.cli.main import main, make_parser

ROOT = Path(__file__).parents[2]


def cpu_seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def commands():
    parser = make_parser()
    for action in parser._subparsers._group_actions:
        for name, sub in action.choices.items():
            inner = sub._subparsers
            if inner is None:
                yield (name,)
            else:
                yield from ((name, choice) for choice in inner._group_actions[0].choices)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_help_shows_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit) as exited:
        main([*command, "--help"])
    assert exited.value.code == 0
    example = capsys.readouterr().out.split("example:\n")[1].strip().splitlines()[0].strip()
    assert example.startswith("medsynth " + " ".join(command))
    _, unknown = make_parser().parse_known_args(example.split()[1:])
    assert not unknown or command == ("serve",)


def test_list_and_help_are_instant_and_import_no_tensorflow():
    code = "import sys; from medsynth_tf.cli.main import main; main(['list']); print({'tensorflow', 'apache_beam'} & set(sys.modules))"
    seconds = []
    for _ in range(3):
        before = cpu_seconds_of_children()  # not by the clock: others may be using the machine
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds.append(cpu_seconds_of_children() - before)
    assert result.stdout.splitlines()[-1] == "set()"
    assert statistics.median(seconds) < 0.5
    with pytest.raises(SystemExit):
        main(["--help"])


def test_list_as_json_holds_every_method(capsys):
    assert main(["list", "--json"]) == 0
    assert "semantic_retina" in [info["slug"] for info in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["describe", "semantic_retna"], 2, "did you mean 'semantic_retina'"),
        (["describe", "semantic_retina", "--set", "training.epoch=3"], 2, "did you mean 'epochs'"),
        (["describe", "semantic_retina", "--set", "image_size=100"], 2, "multiple of 32"),
        (["describe", "semantic_retina", "--profile", "big"], 2, "paper, small"),
    ],
)
def test_wrong_words_end_with_one_line_and_a_code(arguments, code, words, capsys):
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "semantic_retina", "--data", "folder:/no/such/folder", "--out", "x"], 3, "/no/such/folder"),
        (["train", "semantic_retina", "--data", "foldr:/tmp", "--out", "x"], 2, "did you mean 'folder'"),
        (["export", "/no/such/run", "--out", "x"], 3, "/no/such/run"),
        (
            [
                "synthesize",
                "--server=localhost:1",
                "--model=m",
                "--data=phantom:fundus",
                "--count=1",
                "--wait=1",
                "--out={out}",
            ],
            6,
            "localhost:1",
        ),
    ],
)
def test_failures_of_the_work_have_codes_and_no_traceback(arguments, code, words, tmp_path, capsys):
    assert main([argument.format(out=tmp_path / "out") for argument in arguments]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_ingest_train_evaluate_export_synthesize(tmp_path, capsys):
    """The whole road but TFX, with a model far too small to be good."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr()

    tiny = [
        "image_size=32",
        "generator={filters: 2, hidden_filters: 4}",
        "style={size: 4, filters: 2}",
        "discriminator.filters=4",
    ]
    steps = ["training={batch_size: 2, epochs: 1, steps_per_epoch: 3, ema_decay: 0.9}"]
    data = "phantom:fundus?count=20&size=32&labels=vessels"
    code, shown = run("ingest", "--data", data, "--out", tmp_path / "records", "--shards", 2)
    assert code == 0
    assert "train 16, val 2, test 2" in shown.out
    overrides = [part for pair in [*tiny, *steps] for part in ("--set", pair)]
    records = f"tfrecord:{tmp_path / 'records'}"
    code, _ = run("train", "semantic_retina", "--data", records, "--out", tmp_path / "run", *overrides)
    assert code == 0
    code, shown = run("evaluate", tmp_path / "run" / "model", "--data", records, "--out", tmp_path / "report")
    assert code == (7 if "FAILS" in shown.out else 0)
    assert (tmp_path / "report" / "index.html").is_file()
    for expected in ("1", "2"):
        _, shown = run("export", tmp_path / "run" / "model", "--out", tmp_path / "served", "--name", "tiny")
        assert shown.out.strip().endswith(f"served/{expected}")
    from serving.embedded import running_server

    with running_server("tiny", tmp_path / "served", log=tmp_path / "server.log") as address:
        formats = [part for name in ("png", "dicom", "nifti") for part in ("--format", name)]
        served = ("--server", address, "--model", "tiny", "--data", records)
        code, _ = run("synthesize", *served, "--count", 5, "--out", tmp_path / "synthetic", *formats)
        assert code == 0
    made = tmp_path / "synthetic"
    assert {p.suffix: len(list((made / "images").glob(f"*{p.suffix}"))) for p in (made / "images").iterdir()}[".png"] == 5
    import pydicom
    from PIL import Image

    dicom = pydicom.dcmread(next((made / "images").glob("*.dcm")))
    assert "SYNTHETIC" in str(dicom.PatientID) + str(dicom.PatientName)
    png = Image.open(next((made / "images").glob("*.png")))
    assert any("SYNTHETIC" in f"{key}{value}".upper() for key, value in png.text.items())
    assert os.listdir(made / "masks")
