"""Which changes restart a service under `--reload`."""

import os
from pathlib import Path

from messaging.cli.watch import SourceWatch


def test_nothing_changed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")

    assert SourceWatch(tmp_path).changed() is None


def test_an_edit_a_new_file_and_a_removed_one_are_noticed_once(tmp_path: Path) -> None:
    first = tmp_path / "package" / "a.py"
    first.parent.mkdir()
    first.write_text("x = 1")
    watch = SourceWatch(tmp_path)

    os.utime(first, ns=(1, 1))
    assert watch.changed() == first
    assert watch.changed() is None

    second = tmp_path / "b.py"
    second.write_text("y = 2")
    assert watch.changed() == second

    second.unlink()
    assert watch.changed() == second


def test_other_files_and_hidden_or_cached_folders_do_not_matter(tmp_path: Path) -> None:
    watch = SourceWatch(tmp_path)

    (tmp_path / "notes.txt").write_text("x")
    for folder in (".venv", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("x = 1")

    assert watch.changed() is None
