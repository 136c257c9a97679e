import errno

import pytest

from medsynth_tf.core.files import replacing_file, replacing_folder, write_text


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space left"), replacing_file(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), replacing_folder(tmp_path / "run") as temporary:
        (temporary / "half").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with replacing_folder(tmp_path / "run") as temporary:
        (temporary / "whole").write_text("x")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["whole"]
    with pytest.raises(FileExistsError), replacing_folder(tmp_path / "run"):
        raise AssertionError("the block must not run")
