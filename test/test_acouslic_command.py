"""The command `acouslic`: one stack or a folder of them, whatever interrupts it."""

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import acouslic
import inference
from acouslic import __main__ as command_line
from acouslic import answers, command
from acouslic.__main__ import main
from acouslic.bundle import Bundle
from acouslic.challenge import INPUT_FOLDER, SPACING_MM
from acouslic.command import exit_code
from acouslic.pipeline import Measurement
from acouslic.stack import Stack

ROOT = Path(__file__).resolve().parents[1]
CASES = ("case-a", "case-b", "case-c")
MASK = Path("images/fetal-abdomen-segmentation/output.mha")
FRAME = Path("fetal-abdomen-frame-number.json")
CIRCUMFERENCE = Path("fetal-abdominal-circumference.json")
FILES = [FRAME, CIRCUMFERENCE, MASK]


@pytest.fixture
def stacks(tmp_path: Path, frames: np.ndarray) -> Path:
    """A folder of three stacks, and what is no stack beside them."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    for number, case in enumerate(CASES):
        image = sitk.GetImageFromArray(np.roll(frames, 2 * number, axis=0))
        image.SetSpacing((SPACING_MM,) * 3)
        sitk.WriteImage(image, str(folder / f"{case}.mha"))
    (folder / "._case-a.mha").write_text("what macOS leaves")
    (folder / "notes.txt").write_text("mine")
    return folder


def run(stack: Path, output: Path, bundle: Path, *more: str) -> int:
    return main([*arguments_of(stack, output, bundle), *more])


def arguments_of(stack: Path, output: Path, bundle: Path) -> list[str]:
    # All but the figures is the same with each engine, and PyTorch converts nothing.
    quick = ("--device", "cpu", "--engine", "torch")
    return [str(stack), "--output", str(output), "--model", str(bundle), *quick]


def below(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def times(output: Path) -> dict[str, int]:
    return {case: (output / case / FRAME).stat().st_mtime_ns for case in CASES}


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("error: ")
    return line


def test_one_stack_gives_what_inference_writes_and_a_preview(
    stacks: Path, tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    more = ("--engine", "auto", "--preview")
    assert run(stacks / "case-b.mha", tmp_path / "out", tiny_bundle, *more) == 0
    assert below(tmp_path / "out") == sorted([*FILES, Path("preview.png")])
    assert re.search(r"case-b: frame \d+ of sweep \d, AC [\d.]+ mm, confidence", caplog.text)
    given = tmp_path / "given" / INPUT_FOLDER
    given.mkdir(parents=True)
    shutil.copy2(stacks / "case-b.mha", given)
    inference.run(
        argparse.Namespace(
            input=tmp_path / "given",
            output=tmp_path / "inference",
            model=tiny_bundle,
            device="cpu",
            engine="auto",
            precision="auto",
            threads=None,
            sweep_prior="calibrated",
            demo=False,
            fail_soft=False,
            preview=None,
        )
    )
    assert below(tmp_path / "inference") == FILES
    for path in FILES:
        same = (tmp_path / "inference" / path).read_bytes()
        assert (tmp_path / "out" / path).read_bytes() == same, path


def test_a_folder_gives_a_folder_a_stack_and_a_summary(
    stacks: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert run(stacks, output, tiny_bundle) == 0
    assert sorted(path.name for path in output.iterdir()) == [*CASES, "summary.csv"]
    assert all(below(output / case) == FILES for case in CASES)
    header = "case,status,frame,sweep,ac_mm,confidence,seconds,bundle_id,error"
    assert (output / "summary.csv").read_text().splitlines()[0] == header
    assert [row["case"] for row in rows(output)] == list(CASES)
    for row in rows(output):
        described = json.loads((output / row["case"] / CIRCUMFERENCE).read_text())
        assert row["status"] == "measured"
        assert (int(row["frame"]), int(row["sweep"])) == (described["frame"], described["sweep"])
        assert float(row["ac_mm"]) == described["ac_mm"]
        assert float(row["confidence"]) == described["confidence"]
        assert row["bundle_id"] == described["bundle_id"]
        assert float(row["seconds"]) > 0
        assert row["error"] == ""


def test_a_damaged_stack_does_not_end_the_run(
    stacks: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    path, output = stacks / "case-b.mha", tmp_path / "out"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    command = [sys.executable, "-m", "acouslic", *arguments_of(stacks, output, tiny_bundle)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "found none for case-b" in one_line(done.stderr)
    told = [line for line in done.stdout.splitlines() if line.startswith("case-")]
    assert [line.partition(":")[0] for line in told] == ["case-b", "case-a", "case-c"]
    assert "\r" not in done.stdout
    assert [row["status"] for row in rows(output)] == ["measured", "failed", "measured"]
    failed = rows(output)[1]
    assert "cut short" in failed["error"]
    assert {failed[name] for name in ("frame", "ac_mm", "seconds", "bundle_id")} == {""}
    assert not (output / "case-b").exists()
    path.write_bytes(whole)
    assert run(stacks, output, tiny_bundle) == 0
    assert [row["status"] for row in rows(output)] == ["measured"] * 3


def test_a_bug_in_one_stack_does_not_end_the_run(
    stacks: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_once(stack: Stack, bundle: Bundle, *, fail_soft: bool) -> Measurement:
        if stack.name == "case-a":
            raise ZeroDivisionError("a\nbug")
        return acouslic.measure(stack, bundle, fail_soft=fail_soft)

    monkeypatch.setattr(answers, "measure", fails_once)
    assert run(stacks, tmp_path / "out", tiny_bundle) == 1
    assert [row["error"] for row in rows(tmp_path / "out")] == ["ZeroDivisionError: a bug", "", ""]


def test_a_whole_answer_is_kept_and_any_other_is_made_again(
    stacks: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert run(stacks, output, tiny_bundle) == 0
    before, told = times(output), rows(output)
    assert run(stacks, output, tiny_bundle) == 0
    assert times(output) == before
    assert rows(output) == told
    mask = output / "case-b" / MASK
    mask.write_bytes(mask.read_bytes()[:-40])
    (output / "case-c" / FRAME).unlink()
    assert run(stacks, output, tiny_bundle) == 0
    after = times(output)
    assert [after[case] > before[case] for case in CASES] == [False, True, True]


@pytest.mark.parametrize("reason", ["the stack has changed", "a preview is wanted"])
def test_an_answer_is_made_again_where_it_is_too_old_or_lacks_the_preview(
    stacks: Path, tiny_bundle: Path, tmp_path: Path, reason: str
) -> None:
    stack, output = stacks / "case-a.mha", tmp_path / "out"
    assert run(stack, output, tiny_bundle) == 0
    before = (output / FRAME).stat().st_mtime_ns
    options = ["--preview"] if "preview" in reason else []
    if not options:
        os.utime(stack)
    assert run(stack, output, tiny_bundle, *options) == 0
    assert (output / FRAME).stat().st_mtime_ns > before
    assert (output / "preview.png").is_file() == bool(options)


def test_another_bundles_answer_is_replaced_only_on_demand(
    stacks: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run(stacks, output, tiny_bundle) == 0
    path = output / "case-b" / CIRCUMFERENCE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bundle_id": "other-1"}))
    before = times(output)
    capsys.readouterr()
    assert run(stacks, output, tiny_bundle) == 1
    assert "add --overwrite" in one_line(capsys.readouterr().err)
    assert times(output) == before
    assert run(stacks, output, tiny_bundle, "--overwrite") == 0
    assert [times(output)[case] > before[case] for case in CASES] == [False, True, False]
    assert rows(output)[1]["bundle_id"].startswith("tiny-")


@pytest.mark.parametrize("place", ["thesis.txt", "images/thesis.txt", str(MASK.parent / "a.mha")])
@pytest.mark.parametrize("answered", [True, False])
def test_a_strangers_file_is_never_deleted(
    stacks: Path, tiny_bundle: Path, tmp_path: Path, place: str, answered: bool
) -> None:
    stack, output = stacks / "case-a.mha", tmp_path / "out"
    if answered:
        assert run(stack, output, tiny_bundle) == 0
        os.utime(stack)
    (output / place).parent.mkdir(parents=True, exist_ok=True)
    (output / place).write_text("three years")
    before = below(output)
    assert run(stack, output, tiny_bundle, "--overwrite") == 1
    assert (output / place).read_text() == "three years"
    assert below(output) == before


def test_a_strangers_summary_is_never_deleted(
    stacks: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.csv").write_text("mine")
    assert run(stacks, tmp_path / "out", tiny_bundle, "--overwrite") == 1
    assert "never deleted" in one_line(capsys.readouterr().err)
    assert below(tmp_path / "out") == [Path("summary.csv")]


def test_a_killed_run_goes_on_where_it_stopped(
    stacks: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "acouslic", *arguments_of(stacks, output, tiny_bundle)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (output / "case-a").is_dir() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = [case for case in CASES if (output / case).is_dir()]
    assert "case-a" in done
    before = {case: (output / case / FRAME).stat().st_mtime_ns for case in done}
    for case in CASES:  # what a kill leaves, whether or not the answer took its place before
        (output / f".{case}.0123abcd.partial").mkdir()
    assert run(stacks, output, tiny_bundle) == 0
    assert {case: times(output)[case] for case in done} == before
    assert sorted(path.name for path in output.iterdir()) == [*CASES, "summary.csv"]


@pytest.mark.parametrize("moment", ["measure", "write_outputs"])
def test_ctrl_c_is_one_line_and_leaves_nothing_half_written(
    stacks: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(answers, moment, interrupted)
    (tmp_path / "out").mkdir()
    assert run(stacks / "case-a.mha", tmp_path / "out" / "case-a", tiny_bundle) == 130
    assert "interrupted" in one_line(capsys.readouterr().err)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wrong_input_is_told_before_any_weights_are_loaded(
    stacks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    whole = (stacks / "case-a.mha").read_bytes()
    (stacks / "case-a.mha").write_bytes(whole[:-1000])
    wrong = {
        tmp_path / "absent.mha": "found no",
        tmp_path / "empty": "found none",
        stacks / "notes.txt": "a MetaImage file",
        stacks / "case-a.mha": "cut short",
    }
    for path, message in wrong.items():
        assert run(path, tmp_path / "out", tmp_path / "no bundle") == 1
        assert message in one_line(capsys.readouterr().err)
        assert not (tmp_path / "out").exists()
    assert run(stacks / "case-b.mha", tmp_path / "out", tmp_path / "no bundle") == 1
    assert "expected a bundle of weights in" in one_line(capsys.readouterr().err)


def test_output_that_cannot_be_written_is_told_before_any_weights_are_loaded(
    stacks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stack in (stacks, stacks / "case-a.mha"):
        assert run(stack, stacks / "notes.txt" / "out", tmp_path / "no bundle") == 1
        assert "can be written" in one_line(capsys.readouterr().err)


def test_a_wheel_has_no_demo_bundle_and_says_so(
    stacks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "DEMO_BUNDLE", tmp_path / "absent")
    assert main([str(stacks), "--output", str(tmp_path / "out")]) == 1
    assert "--model DIR; found none" in one_line(capsys.readouterr().err)


def test_the_checkouts_bundle_or_the_demos_answers_as_the_switch_says(
    stacks: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    demo, model = tmp_path / "checkout/resources/demo", tmp_path / "checkout/model"
    shutil.copytree(tiny_bundle, demo)
    model.mkdir()
    for module in (command, command_line):
        monkeypatch.setattr(module, "DEMO_BUNDLE", demo)
    given = [str(stacks / "case-a.mha"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(given) == 1
    assert "--demo" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert main([*given, "--demo"]) == 0
    assert json.loads((tmp_path / "out" / CIRCUMFERENCE).read_text())["simulated"] is True
    shutil.copytree(tiny_bundle, model, dirs_exist_ok=True)
    assert main(given) == 0
    assert main([*given, "--model", str(model), "--demo"]) == 1
    assert "leave out --demo" in capsys.readouterr().err


def test_what_cannot_be_measured_fails_or_is_a_guess_that_says_why(
    stacks: Path, tiny_bundle: Path, tmp_path: Path, frames: np.ndarray
) -> None:
    for case, odd in (("case-a", np.zeros_like(frames)), ("case-b", frames[:11])):
        image = sitk.GetImageFromArray(odd)
        image.SetSpacing((SPACING_MM,) * 3)
        sitk.WriteImage(image, str(stacks / f"{case}.mha"))
    assert run(stacks, tmp_path / "hard", tiny_bundle) == 1
    assert [row["status"] for row in rows(tmp_path / "hard")] == ["failed", "failed", "measured"]
    for _ in range(2):  # the second time all is answered already
        assert run(stacks, tmp_path / "soft", tiny_bundle, "--fail-soft") == 0
        told = rows(tmp_path / "soft")
        assert [row["status"] for row in told] == ["guessed", "guessed", "measured"]
        assert "all black" in told[0]["error"] and "no multiple of 6" in told[1]["error"]
        assert told[0]["confidence"] == told[1]["confidence"] == "0.0" != told[2]["confidence"]


def test_a_missing_library_is_one_line_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: __import__("a_library.part")) == 1
    assert "expected the library a_library; found none" in one_line(capsys.readouterr().err)
    with pytest.raises(ModuleNotFoundError):  # a bug, and no missing library
        exit_code(lambda: __import__("acouslic.absent"))


@pytest.mark.parametrize(
    "arguments", [[], ["a.mha"], ["a.mha", "--output", "out", "--device", "tpu"]]
)
def test_a_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("program", [["-m", "acouslic"], ["inference.py"]])
def test_help_is_quick_and_every_option_has_a_sentence_with_its_default(program: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *program, "--help"]
    environment = os.environ | {"COLUMNS": "1000"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not {name.partition(".")[0] for name in imported} & {"torch", "numpy", "SimpleITK"}
    lines = re.sub(r"\n {10,}", "  ", done.stdout).splitlines()
    options = [re.split(r"  +", line.strip(), maxsplit=1) for line in lines if line[:4] == "  --"]
    assert len(options) == 12
    for name, sentence in options:
        assert name == "--version" or re.search(r"\((default: .*|required)\)$", sentence), name


def test_version_and_revision_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACOUSLIC_REVISION", "0123abcd")
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told == f"acouslic {acouslic.__version__} (revision 0123abcd)\n"
