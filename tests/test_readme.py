"""The README's Python and shell snippets, run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def snippets(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def run(command, folder):
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_python_snippet(tmp_path):
    assert "served/1" in run([sys.executable, "-c", snippets("python")[0]], tmp_path)


@pytest.mark.slow
def test_shell_snippet_then_the_client(tmp_path):
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    shell = next(text for text in snippets("sh") if "medsynth train" in text)
    client = snippets("python")[1]
    assert "kill %1" in shell
    (tmp_path / "client.py").write_text(client)
    output = run(["bash", "-ec", "set -m\n" + shell.replace("kill %1", "python client.py\nkill %1")], tmp_path)
    assert "(2, 128, 128, 3)" in output
