"""Files and folders that are whole or not there, and strangers' files that survive."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acouslic import files
from acouslic.errors import InputError, OutputError

ROOT = Path(__file__).resolve().parents[1]
KIND = files.FolderKind(
    "bundle", lambda folder: {"mark", "data"} if (folder / "mark").is_file() else set()
)
# What `new_folder` calls, one after the other, between its start and its end.
STEPS = ("_take_over", "_sync_tree", "replace_folder", "_sync", "shutil.rmtree")


def fill(folder: Path, text: str, *, overwrite: bool = True) -> None:
    with files.new_folder(folder, KIND, overwrite=overwrite) as partial:
        (partial / "mark").touch()
        (partial / "data").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "facts.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, float("nan"))
    with pytest.raises(RuntimeError, match="stop"), files.new_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert names(path.parent) == ["facts.json"]
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    files.write_text(path, "abc")
    assert files.sha256(path) == known


def test_several_files_are_all_there_or_none(tmp_path: Path) -> None:
    paths = (Path("images/mask"), Path("frame"))
    (tmp_path / "stranger").touch()
    with files.new_files(tmp_path, paths) as partial:
        files.write_text(partial / paths[0], "mask")
        files.write_text(partial / paths[1], "47")
    assert (tmp_path / paths[0]).read_text() == "mask"
    with pytest.raises(FileNotFoundError), files.new_files(tmp_path, paths) as partial:
        files.write_text(partial / paths[0], "another mask")
    assert [path for path in paths if (tmp_path / path).exists()] == []
    assert names(tmp_path) == ["images", "stranger"]


def test_a_folder_of_ours_is_replaced_only_on_demand(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    fill(folder, "old", overwrite=False)
    with pytest.raises(OutputError, match="--overwrite"):
        fill(folder, "new", overwrite=False)
    assert (folder / "data").read_text() == "old"
    fill(folder, "new")
    assert (folder / "data").read_text() == "new"
    assert names(tmp_path) == ["bundle"]


def test_a_readme_stays_and_is_no_stranger(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("mine")
    for text in ("first", "second"):
        fill(tmp_path / "model", text)
        assert (tmp_path / "model" / "README.md").read_text() == "mine"
    assert names(tmp_path / "model") == ["README.md", "data", "mark"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("ours", [False, True])
def test_a_strangers_file_is_never_deleted(tmp_path: Path, ours: bool, overwrite: bool) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    if ours:
        fill(folder, "old")
    (folder / "thesis.txt").write_text("three years")
    with pytest.raises(OutputError, match=r"thesis\.txt .* never deleted"):
        fill(folder, "new", overwrite=overwrite)
    assert (folder / "thesis.txt").read_text() == "three years"
    assert names(tmp_path) == ["bundle"]


def test_a_strangers_file_that_comes_meanwhile_is_not_deleted_either(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    fill(folder, "old")
    with (
        pytest.raises(OutputError, match=r"thesis\.txt"),
        files.new_folder(folder, KIND, overwrite=True),
    ):
        (folder / "thesis.txt").write_text("three years")
    assert names(folder) == ["data", "mark", "thesis.txt"]


def test_a_file_or_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        files.refuse_foreign_folder(tmp_path, "run.json", "a run")
    (tmp_path / "run.json").touch()
    files.refuse_foreign_folder(tmp_path, "run.json", "a run")
    files.refuse_foreign_folder(tmp_path / "absent", "run.json", "a run")
    with pytest.raises(OutputError, match="never deleted"):
        files.refuse_foreign_file(tmp_path / "notes.txt", "<ours>", "a report")
    with pytest.raises(OutputError, match="a file"):
        fill(tmp_path / "notes.txt", "new")
    (tmp_path / "notes.txt").write_text("<ours>")
    files.refuse_foreign_file(tmp_path / "notes.txt", "<ours>", "a report")
    files.refuse_foreign_file(tmp_path / "absent", "<ours>", "a report")


def test_what_began_with_other_options_is_not_gone_on_with(tmp_path: Path) -> None:
    record = tmp_path / "options.json"
    files.begin_or_resume(record, {"epochs": 2}, "the run")
    begun = record.read_bytes()
    files.begin_or_resume(record, {"epochs": 2}, "the run")
    with pytest.raises(InputError, match="the run began"):
        files.begin_or_resume(record, {"epochs": 3}, "the run")
    assert record.read_bytes() == begun


class Stopped(BaseException):
    """Stands for whatever ends a process between two of its steps."""


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_a_save_stopped_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, before: bool, can_exchange: bool
) -> None:
    folder = tmp_path / "bundle"
    fill(folder, "old")
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    with monkeypatch.context() as patch:
        stop_at(patch, step, before=before)
        with pytest.raises(Stopped):
            fill(folder, "new")
    assert (folder / "data").read_text() in ("old", "new")
    assert (folder / "mark").is_file()
    fill(folder, "next")
    assert (folder / "data").read_text() == "next"
    assert names(tmp_path) == ["bundle"]


def stop_at(patch: pytest.MonkeyPatch, step: str, *, before: bool) -> None:
    """Let the process end before or after the step, with no chance to tidy up."""
    holder: Any = shutil if "." in step else files
    name = step.rpartition(".")[2]
    real: Callable[..., Any] = getattr(holder, name)

    def stopped(*arguments: Any, **options: Any) -> None:
        patch.setattr(shutil, "rmtree", lambda *_args, **_options: None)
        if not before:
            real(*arguments, **options)
        raise Stopped

    patch.setattr(holder, name, stopped)


def test_a_kill_between_the_two_renames_is_put_right_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where a file system cannot exchange two names: the old folder then lies aside."""
    folder = tmp_path / "bundle"
    fill(folder, "old")
    folder.rename(tmp_path / ".bundle.0123abcd.aside")
    files.remove_leftovers(folder)
    assert (folder / "data").read_text() == "old"
    assert names(tmp_path) == ["bundle"]


def test_what_a_killed_process_left_is_removed_and_a_live_ones_is_not(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom acouslic import files\n"
        "with files.new_file(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half')\n    time.sleep(60)\n"
    )
    path = tmp_path / "facts.json"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT)
    while not list(tmp_path.glob(".*/facts.json")):
        assert process.poll() is None
        time.sleep(0.01)
    files.remove_leftovers(path)
    assert len(names(tmp_path)) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    files.write_text(path, "whole")
    assert names(tmp_path) == ["facts.json"]


def test_only_one_holds_a_claim(tmp_path: Path) -> None:
    with files.claim(tmp_path) as first, files.claim(tmp_path) as second:
        assert (first, second) == (True, False)
    with files.claim(tmp_path) as again, files.claim(tmp_path / "absent") as absent:
        assert (again, absent) == (True, False)
