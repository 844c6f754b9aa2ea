import csv
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.challenge import (
    AC_COLUMNS,
    AC_TABLE,
    CHALLENGE_FAN,
    FRAME_SHAPE,
    IMAGES,
    MASKS,
    SIMULATED,
    SPACING_MM,
)
from acouslic.errors import InputError
from acouslic.preprocess import to_grid
from dataset import prepare as preparing
from dataset.cache import open_cache
from dataset.entries import DatasetError
from dataset.prepare import prepare
from training.whole_stack import truth_labels

T = 12
SIZE = 32


class DataSet:
    """A small data set in the challenge's layout; `rows` are written by `write_table`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[dict[str, str]] = []
        for folder in (IMAGES, MASKS, AC_TABLE.parent):
            (root / folder).mkdir(parents=True)

    def add(self, uuid: str, labels: np.ndarray, ac: dict[int, str], seed: int = 0) -> np.ndarray:
        frames = np.random.default_rng(seed).integers(1, 200, (T, *FRAME_SHAPE), dtype=np.uint8)
        frames *= CHALLENGE_FAN.mask()
        frames[1::2] = 0
        self.write(IMAGES / f"{uuid}.mha", frames)
        self.write(MASKS / f"{uuid}.mha", labels)
        cells = {column: ac.get(k, "") for k, column in enumerate(AC_COLUMNS, start=1)}
        self.rows.append({"uuid": uuid, "subject_id": f"s{seed}", **cells})
        self.write_table()
        return frames

    def write(self, path: Path, volume: np.ndarray) -> None:
        image = sitk.GetImageFromArray(volume)
        image.SetSpacing((SPACING_MM,) * 3)
        sitk.WriteImage(image, str(self.root / path), useCompression=True)

    def write_table(self) -> None:
        with (self.root / AC_TABLE).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["uuid", "subject_id", *AC_COLUMNS])
            writer.writeheader()
            writer.writerows(self.rows)


def labels(values: dict[int, int]) -> np.ndarray:
    volume = np.zeros((T, *FRAME_SHAPE), np.uint8)
    for frame, value in values.items():
        volume[frame, 200:400, 300:500] = value
    return volume


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path / "data")


def test_the_cache_holds_what_the_files_hold(data: DataSet, tmp_path: Path) -> None:
    truth = labels({2: 1, 4: 2})
    frames = data.add("case", truth, {2: "210.5", 3: "220"}, seed=7)
    prepare([data.root], tmp_path / "cache", size=SIZE, workers=1)
    cache = open_cache(tmp_path / "cache")
    (case,) = cache.cases
    assert cache.size == SIZE
    assert case.facts.subject == "s7"
    assert case.facts.shape == FRAME_SHAPE
    np.testing.assert_equal(case.facts.ac_mm, (np.nan, 210.5, 220, np.nan, np.nan, np.nan))
    assert case.frame_index.tolist() == [0, 2, 4, 6, 8, 10]
    assert case.quality.tolist() == [0, 2, 1, 0, 0, 0]
    assert case.sweep.tolist() == [0, 1, 2, 3, 4, 5]
    assert case.mask_row.tolist() == [-1, 0, 1, -1, -1, -1]
    np.testing.assert_array_equal(case.frames, to_grid(frames[::2], SIZE).numpy())
    assert isinstance(case.frames, np.memmap)
    known = truth_labels(case)
    np.testing.assert_array_equal([known.frame(frame) for frame in range(known.n_frames)], truth)
    # Coverage keeps the area of the mask to well below a grid pixel.
    area = case.masks[0].sum() / 255 * (744 / SIZE) ** 2
    assert area == pytest.approx(200 * 200, rel=0.01)


def test_a_cache_of_phantoms_says_so(data: DataSet, tmp_path: Path) -> None:
    data.add("case", labels({2: 1}), {2: "210"}, seed=1)
    for simulated in (False, True):
        if simulated:
            (data.root / SIMULATED).write_text("{}")
        prepare([data.root], tmp_path / "cache", size=SIZE, workers=1)
        assert open_cache(tmp_path / "cache").simulated is simulated


def test_data_sets_of_two_hospitals_are_one_cache(data: DataSet, tmp_path: Path) -> None:
    other = DataSet(tmp_path / "other")
    data.add("here", labels({2: 1}), {2: "210"}, seed=1)
    other.add("there", labels({2: 1}), {2: "220"}, seed=2)
    prepare([data.root, other.root], tmp_path / "cache", size=SIZE, workers=1)
    cases = open_cache(tmp_path / "cache").cases
    assert [(case.facts.uuid, case.facts.ac_mm[1]) for case in cases] == [
        ("here", 210),
        ("there", 220),
    ]


def test_one_name_in_two_data_sets_is_a_problem(
    data: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = DataSet(tmp_path / "other")
    for hospital in (data, other):
        hospital.add("case", labels({2: 1}), {2: "210"})
    with pytest.raises(DatasetError, match="two data sets"):
        prepare([data.root, other.root], tmp_path / "cache", size=SIZE, workers=1)
    assert caplog.messages == ["case: is in two data sets"]


def test_phantoms_and_patients_are_not_one_cache(data: DataSet, tmp_path: Path) -> None:
    phantoms = DataSet(tmp_path / "phantoms")
    data.add("patient", labels({2: 1}), {2: "210"})
    phantoms.add("phantom", labels({2: 1}), {2: "210"})
    (phantoms.root / SIMULATED).write_text("{}")
    with pytest.raises(InputError, match="--phantoms"):
        prepare([data.root, phantoms.root], tmp_path / "cache", size=SIZE, workers=1)
    assert not (tmp_path / "cache").exists()


def test_a_second_run_reads_only_what_is_new_or_changed(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.add("first", labels({2: 1}), {2: "210"}, seed=1)
    data.add("second", labels({2: 1}), {2: "210"}, seed=2)
    prepare([data.root], tmp_path / "cache", size=SIZE, workers=1)
    data.add("third", labels({2: 1}), {2: "210"}, seed=3)
    data.rows[1]["sweep_2_ac_mm"] = "215"
    data.write_table()
    read = []
    original = preparing.run_job

    def noting(job: preparing.Job) -> list[str]:
        read.append(job.entry.uuid)
        return original(job)

    monkeypatch.setattr(preparing, "run_job", noting)
    prepare([data.root], tmp_path / "cache", size=SIZE, workers=1)
    assert read == ["second", "third"]
    cases = {case.facts.uuid: case for case in open_cache(tmp_path / "cache").cases}
    assert cases["second"].facts.ac_mm[1] == 215
    assert len(cases) == 3


def test_all_problems_are_reported_at_once(
    data: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data.add("good", labels({2: 1}), {2: "210"})
    data.add("strange-label", labels({2: 3}), {2: "210"})
    mixed = labels({2: 1})
    mixed[2, 0, 0] = 2
    data.add("mixed", mixed, {2: "210"})
    data.add("short-mask", labels({2: 1})[:6], {2: "210"})
    data.add("tiny-ac", labels({2: 1}), {2: "21"})
    data.add("no-number", labels({2: 1}), {2: "about 200"})
    data.add("no-mask", labels({2: 1}), {2: "210"})
    (data.root / MASKS / "no-mask.mha").unlink()
    data.add("no-row", labels({2: 1}), {2: "210"})
    data.rows.pop()
    data.add("cut-short", labels({2: 1}), {2: "210"})
    path = data.root / IMAGES / "cut-short.mha"
    path.write_bytes(path.read_bytes()[:5000])
    data.add("also-good", labels({2: 1}), {2: "210"}, seed=1)
    data.write_table()
    with caplog.at_level(logging.ERROR), pytest.raises(DatasetError, match=r"\d problems"):
        prepare([data.root], tmp_path / "cache", size=SIZE, workers=1)
    named = {message.partition(":")[0] for message in caplog.messages}
    assert named == {
        "strange-label",
        "mixed",
        "short-mask",
        "tiny-ac",
        "no-number",
        "no-mask",
        "no-row",
        "cut-short",
    }
    with pytest.raises(InputError, match="prepare"):
        open_cache(tmp_path / "cache")


def test_a_stack_cut_short_is_a_problem_and_the_others_are_kept(
    data: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data.add("cut-short", labels({2: 1}), {2: "210"})
    path = data.root / IMAGES / "cut-short.mha"
    path.write_bytes(path.read_bytes()[:5000])
    data.add("good", labels({2: 1}), {2: "210"})
    with pytest.raises(DatasetError, match="1 problems"):
        prepare([data.root], tmp_path / "cache", size=SIZE, workers=1)
    assert any(message.startswith("cut-short: ") for message in caplog.messages)
    assert (tmp_path / "cache" / "good" / "case.json").is_file()


def test_version_1_0_is_refused_by_name(
    data: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data.add("doubled", labels({2: 1}), {2: "579.2"})
    with pytest.raises(DatasetError):
        prepare([data.root], tmp_path / "cache", size=SIZE, workers=1)
    assert "version 1.0" in caplog.text


def test_a_folder_that_is_no_data_set_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="circumferences"):
        prepare([tmp_path], tmp_path / "cache", size=SIZE, workers=1)


def test_an_interrupted_case_leaves_nothing_behind(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.add("case", labels({2: 1}), {2: "210"})

    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare([data.root], tmp_path / "cache", size=SIZE, workers=1)
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_processes_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    path, script = tmp_path / "facts.json", tmp_path / "write.py"
    script.write_text(
        "import sys; from pathlib import Path; from acouslic.files import write_text\n"
        "for _ in range(2000): write_text(Path(sys.argv[1]), 'whole' * 1000)\n"
    )
    command = [sys.executable, str(script), str(path)]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    writers = [subprocess.Popen(command, env=here) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert path.read_text() == "whole" * 1000
    assert list(tmp_path.glob("*.partial")) == []
