"""score, compare and report as commands, on small data sets in each of the layouts."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SIMULATED, SPACING_MM
from acouslic.ellipse import Ellipse
from dataset.labels import Labels, read_labels
from evaluation.__main__ import main
from evaluation.intervals import mean_intervals
from evaluation.metrics import AVERAGED_KEYS, case_metrics

ROOT = Path(__file__).parent.parent
N_FRAMES = 12
CASES = ("case-a", "case-b", "case-c")
SUBJECTS = {"case-a": "s1", "case-b": "s2", "case-c": "s2"}
REFERENCES = {case: (190.0, None, 185.0, None, None, None) for case in CASES}
CHOSEN = {"case-a": 1, "case-b": 4, "case-c": 2}
AC_COLUMNS = [f"sweep_{sweep}_ac_mm" for sweep in range(1, 7)]


def abdomen(shift_px: float = 0) -> np.ndarray:
    inside = Ellipse(372 + shift_px, 300, 115, 100, 15).mask(FRAME_SHAPE)
    return np.asarray(inside & CHALLENGE_FAN.mask())


def truth_volume() -> np.ndarray:
    volume = np.zeros((N_FRAMES, *FRAME_SHAPE), np.uint8)
    volume[0][abdomen()] = 2
    volume[1][abdomen()] = 1
    volume[4][abdomen(20)] = 2
    return volume


def write_volume(path: Path, volume: np.ndarray, *, compressed: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((SPACING_MM,) * image.GetDimension())
    sitk.WriteImage(image, str(path), useCompression=compressed)


def write_answer(folder: Path, frame: object, mask: np.ndarray | None = None) -> None:
    volume = np.zeros((N_FRAMES, *FRAME_SHAPE), np.uint8)
    if isinstance(frame, int) and 0 <= frame < N_FRAMES:
        volume[frame] = abdomen(5) if mask is None else mask
    write_volume(folder / "images" / "fetal-abdomen-segmentation" / "output.mha", volume)
    (folder / "fetal-abdomen-frame-number.json").write_text(json.dumps(frame))


def write_circumferences(path: Path, references: Mapping[str, tuple[float | None, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uuid", "subject_id", *AC_COLUMNS])
        for case, values in references.items():
            writer.writerow([case, SUBJECTS[case], *("" if v is None else v for v in values)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truth in the training set's layout, with images."""
    folder = tmp_path_factory.mktemp("dataset")
    noise = np.random.default_rng(0).integers(0, 90, (N_FRAMES, *FRAME_SHAPE), dtype=np.uint8)
    for case in CASES:
        write_volume(folder / f"masks/stacked_fetal_abdomen/{case}.mha", truth_volume())
        write_volume(folder / f"images/stacked_fetal_ultrasound/{case}.mha", noise)
    name = "circumferences/fetal_abdominal_circumferences_per_sweep.csv"
    write_circumferences(folder / name, REFERENCES)
    return folder


@pytest.fixture(scope="module")
def ground_truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same truth in the evaluator's layout."""
    folder = tmp_path_factory.mktemp("ground_truth")
    for case in CASES:
        write_volume(folder / case / f"fetal_abdomen_stacked_masks/{case}.mha", truth_volume())
        values = dict(zip(AC_COLUMNS, REFERENCES[case], strict=True))
        (folder / case / "fetal_abdominal_circumference.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a case, as inference.py writes them, with a run's notes beside them."""
    folder = tmp_path_factory.mktemp("answers")
    for case in CASES:
        write_answer(folder / case, CHOSEN[case])
        scores = np.linspace(0, 1, N_FRAMES).tolist()
        (folder / case / "frame_scores.json").write_text(json.dumps({"frame_scores": scores}))
    (folder / "run.json").write_text(json.dumps({"bundle_id": "demo-1", "simulated": True}))
    return folder


@pytest.fixture
def copied_answers(answers: Path, tmp_path: Path) -> Path:
    """The answers again, to be spoilt."""
    folder = tmp_path / "answers"
    for case in CASES:
        write_answer(folder / case, CHOSEN[case])
    return folder


def score(predictions: Path, truth: Path, output: Path, *more: str) -> int:
    return main(
        ["score", str(predictions), str(truth), "--output", str(output), "--workers", "1", *more]
    )


def metrics_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return result


@pytest.fixture(scope="module")
def scored(answers: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("scored")
    assert score(answers, dataset, output) == 0
    return output


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.parametrize("backend", ["ray", "slurm"])
def test_other_machines_give_the_same_score(
    backend: str,
    answers: Path,
    dataset: Path,
    scored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    assert score(answers, dataset, tmp_path / "out", "--backend", backend) == 0
    assert metrics_of(tmp_path / "out") == metrics_of(scored)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cases.csv",
        "metrics.json",
    ]


def expected_values(case: str) -> dict[str, float]:
    return case_metrics(
        Labels.from_volume(truth_volume()),
        REFERENCES[case],
        abdomen(5),
        CHOSEN[case],
        fan_mask=CHALLENGE_FAN.mask(),
        spacing_mm=SPACING_MM,
    ).values


def test_metrics_json_has_the_official_keys_with_means_of_the_cases(scored: Path) -> None:
    result = metrics_of(scored)
    for key in AVERAGED_KEYS:
        values = [expected_values(case)[key] for case in CASES]
        assert result[key]["mean"] == pytest.approx(np.mean(values), abs=1e-12)
        assert result[key]["std"] == pytest.approx(np.std(values), abs=1e-12)
    means = {key: result[key]["mean"] for key in AVERAGED_KEYS}
    assert result["score"]["mean"] == pytest.approx(
        0.5 * (1 - means["nae_circumference"])
        + 0.25 * means["wfss"]
        + 0.25 * means["DiceCoefficientSoft"]
    )
    assert [case["case"] for case in result["cases"]] == list(CASES)
    assert result["cases"][0]["runs"] == [
        [0, 0, "suboptimal"],
        [1, 1, "optimal"],
        [4, 4, "suboptimal"],
    ]
    assert [case["quality"] for case in result["cases"]] == ["optimal", "suboptimal", "none"]
    assert [case["wfss"] for case in result["cases"]] == [1.0, 0.6, 0.0]
    assert result["settings"]["simulated"] is True
    assert result["settings"]["bundle_id"] == "demo-1"


def test_cases_csv_has_a_line_a_case(scored: Path) -> None:
    with (scored / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cases = metrics_of(scored)["cases"]
    assert [row["case"] for row in rows] == list(CASES)
    for row, case in zip(rows, cases, strict=True):
        assert float(row["score"]) == case["score"]
        assert int(row["frame"]) == case["frame"]


def test_both_layouts_of_truth_give_the_same_numbers(
    answers: Path, ground_truth: Path, scored: Path, tmp_path: Path
) -> None:
    assert score(answers, ground_truth, tmp_path) == 0
    one, other = metrics_of(tmp_path), metrics_of(scored)
    assert all(one[key]["mean"] == other[key]["mean"] for key in (*AVERAGED_KEYS, "score"))
    assert one["settings"]["n_subjects"] == 3
    assert other["settings"]["n_subjects"] == 2


def test_subjects_can_be_given_for_the_evaluators_truth(
    answers: Path, ground_truth: Path, dataset: Path, scored: Path, tmp_path: Path
) -> None:
    table = dataset / "circumferences/fetal_abdominal_circumferences_per_sweep.csv"
    assert score(answers, ground_truth, tmp_path, "--subjects", str(table)) == 0
    assert metrics_of(tmp_path)["score"] == metrics_of(scored)["score"]


@pytest.mark.parametrize("socket", ["interface", "socket"])
def test_the_platforms_list_of_jobs_gives_the_same_numbers(
    socket: str, dataset: Path, scored: Path, tmp_path: Path
) -> None:
    jobs = []
    for number, case in enumerate(reversed(CASES)):
        write_answer(tmp_path / "input" / f"pk-{number}" / "output", CHOSEN[case])
        jobs.append(job(f"pk-{number}", case, socket))
    (tmp_path / "input" / "predictions.json").write_text(json.dumps(jobs))
    assert score(tmp_path / "input", dataset, tmp_path / "out") == 0
    assert metrics_of(tmp_path / "out")["score"] == metrics_of(scored)["score"]


def job(key: str, case: str, socket: str) -> dict[str, Any]:
    outputs = {
        "fetal-abdomen-segmentation": "images/fetal-abdomen-segmentation",
        "fetal-abdomen-frame-number": "fetal-abdomen-frame-number.json",
    }
    return {
        "pk": key,
        "inputs": [
            {
                "image": {"name": f"{case}.mha"},
                socket: {
                    "slug": "stacked-fetal-ultrasound",
                    "relative_path": "images/stacked-fetal-ultrasound",
                },
            }
        ],
        "outputs": [
            {"image": None, socket: {"slug": slug, "relative_path": path}}
            for slug, path in outputs.items()
        ],
    }


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    """What the platform hands to the organisers' container, but for the truth."""
    jobs = []
    for number, case in enumerate(CASES):
        write_answer(tmp_path / "input" / f"pk-{number}" / "output", CHOSEN[case])
        jobs.append(job(f"pk-{number}", case, "socket"))
    (tmp_path / "input" / "predictions.json").write_text(json.dumps(jobs))
    (tmp_path / "output").mkdir()
    return tmp_path


def evaluate(submission: Path, truth: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    folders = ("--input", "input", "--ground-truth", str(truth), "--output", "output")
    command = [sys.executable, str(ROOT / "evaluate.py"), *folders, *more]
    return subprocess.run(command, capture_output=True, text=True, cwd=submission)


def test_the_organisers_container_gives_the_same_totals_and_tells_no_truth(
    submission: Path, ground_truth: Path, scored: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "truth"
    shutil.copytree(ground_truth, truth)
    with (truth / "subjects.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uuid", "subject_id"), *SUBJECTS.items()])
    done = evaluate(submission, truth)
    assert (done.returncode, done.stderr) == (0, "")
    totals, known = metrics_of(submission / "output"), metrics_of(scored)
    keys = (*AVERAGED_KEYS, "score")
    assert totals.keys() == {*keys, "cases", "warnings"}
    assert all(totals[key] == known[key] for key in keys)
    assert (totals["cases"], totals["warnings"]) == (3, len(known["warnings"]))
    assert [path.name for path in (submission / "output").iterdir()] == ["metrics.json"]
    assert not any(case in json.dumps(totals) for case in CASES)


def test_the_organisers_container_takes_the_field_of_view_beside_the_truth(
    submission: Path, ground_truth: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "truth"
    shutil.copytree(ground_truth, truth)
    write_volume(truth / "fov_mask.mha", np.zeros(FRAME_SHAPE, np.uint8))
    assert evaluate(submission, truth).returncode == 0
    assert metrics_of(submission / "output")["DiceCoefficientSoft"]["mean"] == 0


def test_the_organisers_container_stops_at_a_broken_answer_and_leaves_no_old_totals(
    submission: Path, ground_truth: Path
) -> None:
    (submission / "output" / "metrics.json").write_text("{}")
    (submission / "input" / "pk-1" / "output" / "fetal-abdomen-frame-number.json").write_text("NaN")
    done = evaluate(submission, ground_truth)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "case-b" in done.stderr
    assert not list((submission / "output").iterdir())
    assert evaluate(submission, ground_truth, "--allow-missing").returncode == 0
    assert metrics_of(submission / "output")["cases"] == 3


def test_two_jobs_for_one_case_are_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job("pk-0", "case-a", "interface"), job("pk-1", "case-a", "interface")]
    (tmp_path / "predictions.json").write_text(json.dumps(jobs))
    assert score(tmp_path, dataset, tmp_path / "out") == 1
    assert "case-a" in last_line(capsys)


def test_several_processes_give_the_same_file(
    answers: Path, dataset: Path, scored: Path, tmp_path: Path
) -> None:
    arguments = ["score", str(answers), str(dataset), "--output", str(tmp_path), "--workers", "2"]
    assert main(arguments) == 0
    assert (tmp_path / "metrics.json").read_bytes() == (scored / "metrics.json").read_bytes()


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


def spoil_mask(folder: Path) -> Path:
    return folder / "images" / "fetal-abdomen-segmentation" / "output.mha"


def remove_case(folder: Path) -> None:
    spoil_mask(folder).unlink()
    spoil_mask(folder).parent.rmdir()
    spoil_mask(folder).parent.parent.rmdir()
    (folder / "fetal-abdomen-frame-number.json").unlink()
    folder.rmdir()


def cut_short(folder: Path) -> None:
    data = spoil_mask(folder).read_bytes()
    spoil_mask(folder).write_bytes(data[: len(data) // 2])


def write_mask(folder: Path, volume: np.ndarray) -> None:
    write_volume(spoil_mask(folder), volume)


SPOILT: dict[str, Callable[[Path], object]] = {
    "missing": remove_case,
    "no mask": lambda folder: spoil_mask(folder).unlink(),
    "no frame number": lambda folder: (folder / "fetal-abdomen-frame-number.json").unlink(),
    "two masks": lambda folder: write_volume(spoil_mask(folder).with_name("b.mha"), truth_volume()),
    "cut short": cut_short,
    "not an image": lambda folder: spoil_mask(folder).write_text("nothing"),
    "values of 2": lambda folder: write_mask(folder, truth_volume()),
    "other shape": lambda folder: write_mask(folder, np.zeros((6, *FRAME_SHAPE), np.uint8)),
    "two-dimensional": lambda folder: write_mask(folder, np.zeros(FRAME_SHAPE, np.uint8)),
    "frame as text": lambda folder: write_answer(folder, "4"),
    "frame as float": lambda folder: write_answer(folder, 4.0),
    "frame as truth value": lambda folder: write_answer(folder, True),
    "frame list": lambda folder: write_answer(folder, [4]),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_missing_or_broken_prediction_is_an_error_or_the_worst(
    kind: str,
    copied_answers: Path,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    SPOILT[kind](copied_answers / "case-b")
    assert score(copied_answers, dataset, tmp_path / "strict") == 1
    assert "case-b" in last_line(capsys)
    assert not (tmp_path / "strict" / "metrics.json").exists()
    assert score(copied_answers, dataset, tmp_path / "lenient", "--allow-missing") == 0
    result = metrics_of(tmp_path / "lenient")
    case = result["cases"][1]
    assert case["status"] == ("missing" if kind == "missing" else "broken")
    assert (case["score"], case["nae_circumference"], case["wfss"]) == (0.0, 1.0, 0.0)
    assert case["HausdorffDistance"] == 744 * 15
    assert [warning["case"] for warning in result["warnings"]] == ["case-b"]


def test_a_prediction_without_truth_is_an_error_even_so(
    copied_answers: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_answer(copied_answers / "stranger", 0)
    assert score(copied_answers, dataset, tmp_path / "out", "--allow-missing") == 1
    assert "stranger" in last_line(capsys)


@pytest.mark.parametrize(
    ("frame", "word"), [(-1, "not in the stack"), (12, "official tool fails"), (5, None)]
)
def test_undefined_overlap_is_0_and_listed(
    frame: int, word: str | None, copied_answers: Path, dataset: Path, tmp_path: Path
) -> None:
    write_answer(copied_answers / "case-c", frame, mask=np.zeros(FRAME_SHAPE, bool))
    assert score(copied_answers, dataset, tmp_path / "out") == 0
    result = metrics_of(tmp_path / "out")
    listed = [entry["warning"] for entry in result["warnings"] if entry["case"] == "case-c"]
    assert any("undefined, reported as 0" in text and "DiceCoefficient" in text for text in listed)
    assert word is None or any(word in text for text in listed)
    assert result["cases"][2]["DiceCoefficientSoft"] == 0.0
    assert np.isfinite(result["DiceCoefficientSoft"]["mean"])


def test_an_official_metrics_json_is_not_replaced(
    answers: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official = json.dumps({"settings": {}, "score": {"mean": 0.9, "std": 0.5}})
    (tmp_path / "metrics.json").write_text(official)
    assert score(answers, dataset, tmp_path) == 1
    assert "metrics.json" in last_line(capsys)
    assert (tmp_path / "metrics.json").read_text() == official
    assert not (tmp_path / "cases.csv").exists()


def test_what_the_official_tool_lets_pass_is_listed(
    copied_answers: Path, dataset: Path, tmp_path: Path
) -> None:
    volume = (truth_volume() > 0).astype(np.uint8)
    path = spoil_mask(copied_answers / "case-a")
    image = sitk.GetImageFromArray(volume)
    sitk.WriteImage(image, str(path), useCompression=True)
    assert score(copied_answers, dataset, tmp_path / "out") == 0
    texts = [entry["warning"] for entry in metrics_of(tmp_path / "out")["warnings"]]
    assert any("2 frames besides" in text for text in texts)
    assert any("spacing is 1 x 1 mm" in text for text in texts)


def test_circumferences_of_version_1_are_refused(
    answers: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doubled = {
        case: tuple(None if v is None else 2.8 * v for v in values)
        for case, values in REFERENCES.items()
    }
    folder = tmp_path / "dataset"
    for case in CASES:
        write_volume(folder / f"masks/stacked_fetal_abdomen/{case}.mha", truth_volume())
    name = "circumferences/fetal_abdominal_circumferences_per_sweep.csv"
    write_circumferences(folder / name, doubled)
    assert score(answers, folder, tmp_path / "out") == 1
    line = last_line(capsys)
    assert "532.0 mm" in line
    assert "1.0" in line


def test_truth_that_is_broken_names_its_case(
    answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dataset"
    for case in CASES:
        write_volume(folder / f"masks/stacked_fetal_abdomen/{case}.mha", truth_volume())
    name = folder / "circumferences/fetal_abdominal_circumferences_per_sweep.csv"
    write_circumferences(name, {case: REFERENCES[case] for case in CASES[:2]})
    assert score(answers, folder, tmp_path / "out") == 1
    assert "case-c" in last_line(capsys)
    write_circumferences(name, REFERENCES)
    (folder / "masks/stacked_fetal_abdomen/case-b.mha").write_text("nothing")
    assert score(answers, folder, tmp_path / "out") == 1
    assert "case-b" in last_line(capsys)
    assert score(answers, tmp_path / "nowhere", tmp_path / "out") == 1
    assert "neither" in last_line(capsys)


def test_another_field_of_view_changes_the_numbers(
    answers: Path, dataset: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fan = CHALLENGE_FAN.mask().astype(np.uint8)
    write_volume(tmp_path / "fov.mha", fan)
    assert score(answers, dataset, tmp_path / "a", "--fov-mask", str(tmp_path / "fov.mha")) == 0
    assert metrics_of(tmp_path / "a")["score"] == metrics_of(scored)["score"]
    fan[320:] = 0
    write_volume(tmp_path / "half.mha", fan)
    assert score(answers, dataset, tmp_path / "b", "--fov-mask", str(tmp_path / "half.mha")) == 0
    assert metrics_of(tmp_path / "b")["score"] != metrics_of(scored)["score"]
    write_volume(tmp_path / "small.mha", fan[:50])
    assert score(answers, dataset, tmp_path / "c", "--fov-mask", str(tmp_path / "small.mha")) == 1
    assert "case-a" in last_line(capsys)


def test_only_the_named_cases_are_scored(answers: Path, dataset: Path, tmp_path: Path) -> None:
    assert score(answers, dataset, tmp_path, "--cases", "case-b") == 0
    result = metrics_of(tmp_path)
    assert [case["case"] for case in result["cases"]] == ["case-b"]
    assert result["score"]["ci95"] is None


@pytest.mark.parametrize("compressed", [True, False])
def test_labels_read_frame_by_frame_equal_those_read_at_once(
    compressed: bool, tmp_path: Path
) -> None:
    volume = truth_volume()
    volume[11] = np.random.default_rng(0).integers(0, 3, FRAME_SHAPE)
    write_volume(tmp_path / "labels.mha", volume, compressed=compressed)
    labels = read_labels(tmp_path / "labels.mha")
    assert labels.shape == volume.shape
    assert sorted(labels.frames) == [0, 1, 4, 11]
    assert labels.spacing_mm == pytest.approx((SPACING_MM,) * 3)
    for frame in range(N_FRAMES):
        assert np.array_equal(labels.frame(frame), volume[frame])


def test_intervals_are_over_subjects_and_seeded() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(10, 2, (200, 1))
    alone = [str(k) for k in range(200)]
    ends = mean_intervals(values, alone, seed=1)
    assert ends is not None
    half_width = (ends[0, 1] - ends[0, 0]) / 2
    assert half_width == pytest.approx(1.96 * values.std() / np.sqrt(200), rel=0.06)
    assert ends[0].mean() == pytest.approx(values.mean(), abs=0.03)
    again = mean_intervals(values, alone, seed=1)
    assert again is not None
    assert np.array_equal(ends, again)
    # Every subject seen four times with the same value: no more is known than of 50 cases.
    repeated = np.repeat(values[:50], 4, axis=0)
    clustered = mean_intervals(repeated, [str(k // 4) for k in range(200)], seed=1)
    naive = mean_intervals(repeated, alone, seed=1)
    assert clustered is not None
    assert naive is not None
    assert np.ptp(clustered) == pytest.approx(2 * np.ptp(naive), rel=0.1)
    assert mean_intervals(values, ["one"] * 200) is None


def test_compare_pairs_the_cases(
    copied_answers: Path,
    dataset: Path,
    scored: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_answer(copied_answers / "case-c", 1)
    write_answer(copied_answers / "case-a", 0)
    assert score(copied_answers, dataset, tmp_path / "b") == 0
    arguments = ["compare", str(scored), str(tmp_path / "b"), "--output", str(tmp_path / "c")]
    assert main(arguments) == 0
    comparison = json.loads((tmp_path / "c" / "comparison.json").read_text())
    a, b = metrics_of(scored), metrics_of(tmp_path / "b")
    row = comparison["metrics"]["wfss"]
    assert (row["better"], row["worse"], row["same"]) == (1, 1, 1)
    assert row["difference"] == pytest.approx(b["wfss"]["mean"] - a["wfss"]["mean"])
    assert row["ci95"][0] <= row["difference"] <= row["ci95"][1]
    error = comparison["metrics"]["nae_circumference"]
    # case-c left a sweep without reference, case-a stayed in its sweep.
    assert (error["better"], error["worse"]) == (1, 0)
    assert [entry["case"] for entry in comparison["changed"]] == ["case-c", "case-a"]
    assert "case-c" in capsys.readouterr().out


def test_lower_error_counts_as_better(
    copied_answers: Path, dataset: Path, scored: Path, tmp_path: Path
) -> None:
    write_answer(copied_answers / "case-c", 0)
    assert score(copied_answers, dataset, tmp_path / "b") == 0
    assert metrics_of(scored)["cases"][2]["nae_circumference"] == 1.0
    main(["compare", str(scored), str(tmp_path / "b"), "--output", str(tmp_path)])
    rows = json.loads((tmp_path / "comparison.json").read_text())["metrics"]
    assert rows["nae_circumference"]["better"] == 1
    assert rows["HausdorffDistance"]["better"] == 1


def test_compare_refuses_other_cases(
    answers: Path, dataset: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(answers, dataset, tmp_path, "--cases", "case-a", "case-b") == 0
    assert main(["compare", str(scored), str(tmp_path)]) == 1
    assert "case-c" in last_line(capsys)
    assert main(["compare", str(scored), str(tmp_path / "nowhere")]) == 1
    assert "metrics.json" in last_line(capsys)


def report(scored: Path, output: Path, *more: str) -> str:
    arguments = ["report", str(scored), "--output", str(output), "--workers", "1", *more]
    assert main(arguments) == 0
    return output.read_text()


@pytest.fixture(scope="module")
def page(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(scored, tmp_path_factory.mktemp("page") / "page.html")


def test_report_is_one_page_that_needs_nothing_else(page: str) -> None:
    downloads = re.findall(r'<a download="([^"]+)" href="(data:[^"]+)"', page)
    assert [name for name, _ in downloads] == ["metrics.json", "cases.csv"]
    for address in re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page):
        assert address.startswith(("data:image/", "#")) or address in dict(downloads).values()
    assert "@import" not in page
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", page))
    assert "Simulated images" in page
    assert "demo-1" in page


def test_report_shows_every_case_worst_first(page: str, scored: Path) -> None:
    order = re.findall(r'<article [^>]*data-name="([^"]+)"', page)
    cases = {case["case"]: case for case in metrics_of(scored)["cases"]}
    assert order == sorted(cases, key=lambda name: cases[name]["score"])
    # The chosen frame of each, and a better one beside the two that should have chosen another.
    assert page.count("data:image/webp") == 3 + 2
    # Every picture has its outlines, every case its curves; 9 plots: metrics 5, losses, subgroups,
    # reliability 2. The rest are the 6 signs of the key, and the pattern.
    assert page.count('<div class="picture"><img data-src') == 3 + 2
    assert page.count('class="curves"><svg') == 3
    assert page.count('<div class="card"><svg') == 9
    assert page.count("<svg") == 5 + 3 + 9 + 6 + 1
    assert "8.8 %" in page


def test_report_of_truth_without_images_and_of_a_missing_answer(
    copied_answers: Path, ground_truth: Path, dataset: Path, tmp_path: Path
) -> None:
    remove_case(copied_answers / "case-a")
    assert score(copied_answers, ground_truth, tmp_path / "s", "--allow-missing") == 0
    page = report(tmp_path / "s", tmp_path / "plain.html")
    assert "Simulated images" not in page
    assert "counted as the worst" in page
    images = dataset / "images/stacked_fetal_ultrasound"
    assert report(tmp_path / "s", tmp_path / "with.html", "--images", str(images)) != page


def test_truth_of_phantoms_makes_the_figures_simulated(
    answers: Path, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    for name in CASES:
        shutil.copytree(answers / name, tmp_path / "real" / name)
    phantoms = shutil.copytree(dataset, tmp_path / "phantoms")
    (phantoms / SIMULATED).write_text("{}")
    for truth, simulated in ((dataset, False), (phantoms, True)):
        assert score(tmp_path / "real", truth, tmp_path / truth.name) == 0
        assert metrics_of(tmp_path / truth.name)["settings"]["simulated"] is simulated


def test_names_from_files_are_escaped_in_the_report(scored: Path, tmp_path: Path) -> None:
    result = metrics_of(scored)
    result["cases"][0]["warnings"] = ["<script>alert(1)</script>"]
    (tmp_path / "metrics.json").write_text(json.dumps(result))
    assert "<script>alert(1)" not in report(tmp_path, tmp_path / "page.html")


@pytest.mark.parametrize("command", ["run", "score", "compare", "report", "view"])
def test_every_option_has_help_that_needs_neither_torch_nor_plots(command: str) -> None:
    call = [sys.executable, "-X", "importtime", "-m", "evaluation", command, "--help"]
    environment = os.environ | {"COLUMNS": "1000"}
    done = subprocess.run(
        call, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    options = re.findall(r"^│ (?:--|[A-Z])", done.stdout, re.MULTILINE)
    told = re.findall(r"\S\. \((?:required|default: .+)\)", done.stdout)
    assert len(options) == len(told) >= 4
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tyro" in imported
    assert not {name.partition(".")[0] for name in imported} & {"torch", "matplotlib"}
