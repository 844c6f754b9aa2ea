"""Predictions come from others: they lead nowhere, run nothing, and break nothing."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic import files
from acouslic.challenge import FRAME_FILE, FRAME_SHAPE, MASK_FILE, SPACING_MM
from acouslic.errors import InputError
from acouslic.metaimage import Geometry, write_frames
from evaluation.predictions import (
    PredictionError,
    PredictionFiles,
    find_predictions,
    read_prediction,
)
from evaluation.score import CASE_COLUMNS, write_score

SHAPE = (6, *FRAME_SHAPE)
MASK_SLUG, FRAME_SLUG = "fetal-abdomen-segmentation", "fetal-abdomen-frame-number"


def write_answer(folder: Path, frame: object = 2) -> Path:
    volume = np.zeros(SHAPE, np.uint8)
    volume[2, 100:200, 100:200] = 1
    write_frames(folder / MASK_FILE, volume, Geometry.plain(SPACING_MM))
    (folder / FRAME_FILE).write_text(json.dumps(frame))
    return folder


def job(**changes: str) -> dict[str, Any]:
    places = {
        "pk": "pk-0",
        "name": "case-a.mha",
        MASK_SLUG: "images/fetal-abdomen-segmentation",
        FRAME_SLUG: str(FRAME_FILE),
    } | changes
    stack = {"slug": "stacked-fetal-ultrasound", "relative_path": "images"}
    outputs = [
        {"socket": {"slug": slug, "relative_path": places[slug]}}
        for slug in (MASK_SLUG, FRAME_SLUG)
    ]
    inputs = [{"image": {"name": places["name"]}, "socket": stack}]
    return {"pk": places["pk"], "inputs": inputs, "outputs": outputs}


def write_jobs(folder: Path, *jobs: object) -> None:
    write_answer(folder / "pk-0" / "output")
    (folder / "predictions.json").write_text(json.dumps(jobs))


# ---- predictions.json


def test_a_list_of_jobs_is_followed_where_it_leads_into_its_folder(tmp_path: Path) -> None:
    write_jobs(tmp_path, job())
    answer = read_prediction(find_predictions(tmp_path)["case-a"], SHAPE)
    assert answer.frame == 2 and answer.mask.sum() == 10_000


@pytest.mark.parametrize(
    "changes",
    [
        {"pk": "../elsewhere"},
        {"pk": "/elsewhere"},
        {"pk": ""},
        {MASK_SLUG: "../../../truth"},
        {MASK_SLUG: "images/../../../truth"},
        {FRAME_SLUG: "/etc/hostname"},
        {FRAME_SLUG: "a\0b"},
        {FRAME_SLUG: ""},
        {"name": 5},
    ],
)
def test_a_list_of_jobs_cannot_lead_out_of_its_folder(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write_jobs(tmp_path / "input", job(**changes))
    with pytest.raises(InputError, match=r"predictions\.json"):
        find_predictions(tmp_path / "input")


def replace_by_link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "linked", ["pk-0", f"pk-0/output/{MASK_FILE}", f"pk-0/output/{FRAME_FILE}"]
)
def test_links_that_lead_out_are_refused(tmp_path: Path, linked: str) -> None:
    write_jobs(tmp_path / "input", job())
    replace_by_link(tmp_path / "input" / linked, tmp_path / "secret" / "file.mha")
    with pytest.raises(PredictionError, match="a link that leads out"):
        read_prediction(find_predictions(tmp_path / "input")["case-a"], SHAPE)


def test_the_plain_layout_has_no_links_out_either(tmp_path: Path) -> None:
    write_answer(tmp_path / "elsewhere")
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "case-a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PredictionError, match="a link that leads out"):
        read_prediction(find_predictions(tmp_path / "input")["case-a"], SHAPE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "5",
        "{}",
        '"text"',
        "[5]",
        "[null]",
        "[[]]",
        '[{"pk": 1}]',
        '[{"pk": 1, "inputs": 5}]',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" + "1" * 5000 + "]",
        "[NaN]",
        "\ufeff[]",
        '[{"pk": "\\ud800"}]',
    ],
)
def test_a_list_of_jobs_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "predictions.json").write_text(text)
    with pytest.raises(InputError) as caught:
        find_predictions(tmp_path)
    assert str(caught.value).isprintable()


# ---- a case's files


def refusal(folder: Path) -> str:
    with pytest.raises(PredictionError) as caught:
        read_prediction(PredictionFiles.plain(folder), SHAPE)
    line = str(caught.value)
    assert "for case case-a" in line and line.isprintable() and len(line) < 1000
    return line


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int16, np.float32, np.float64])
def test_a_mask_that_is_not_8_bit_is_named_as_the_platform_would_refuse_it(
    tmp_path: Path, kind: type
) -> None:
    folder = write_answer(tmp_path / "case-a")
    image = sitk.GetImageFromArray(np.zeros(SHAPE, kind))
    sitk.WriteImage(image, str(folder / MASK_FILE))
    assert "a mask of 8 bit, as the platform refuses any other" in refusal(folder)


def test_a_mask_of_colours_is_named_so_too(tmp_path: Path) -> None:
    folder = write_answer(tmp_path / "case-a")
    image = sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(folder / MASK_FILE))
    assert "3 component(s)" in refusal(folder)


def test_a_tiff_is_no_mask_volume(tmp_path: Path) -> None:
    folder = write_answer(tmp_path / "case-a")
    (folder / MASK_FILE).rename((folder / MASK_FILE).with_suffix(".tiff"))
    assert "with .mha at the end" in refusal(folder)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 4
    path.write_bytes(data)


SPOILT: dict[str, Callable[[Path], object]] = {
    "damaged": lambda folder: flip(folder / MASK_FILE),
    "a pipe for a mask": lambda folder: make_pipe(folder / MASK_FILE),
    "a pipe for a number": lambda folder: make_pipe(folder / FRAME_FILE),
    "deep": lambda folder: (folder / FRAME_FILE).write_text("[" * 50_000),
    "long": lambda folder: (folder / FRAME_FILE).write_text("[" + "1," * 100_000 + "1]"),
    "many digits": lambda folder: (folder / FRAME_FILE).write_text("1" * 6000),
    "a very large number": lambda folder: (folder / FRAME_FILE).write_text("1" * 4000),
    "not a number": lambda folder: (folder / FRAME_FILE).write_text("NaN"),
    "no text": lambda folder: (folder / FRAME_FILE).write_bytes(b"\xff\xfe2"),
    "a folder": lambda folder: make_folder(folder / FRAME_FILE),
}


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, how: str) -> None:
    folder = write_answer(tmp_path / "case-a")
    SPOILT[how](folder)
    refusal(folder)


def test_claims_that_are_none_do_no_harm(tmp_path: Path) -> None:
    folder = write_answer(tmp_path / "case-a")
    (folder / "fetal-abdominal-circumference.json").write_text('{"a":' * 50_000)
    answer = read_prediction(PredictionFiles.plain(folder), SHAPE)
    assert answer.claims == dict.fromkeys(("confidence", "p_annotated", "ac_interval_mm"))


# ---- JSON and tables


def test_json_longer_than_its_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps("a" * 100))
    assert files.read_json(path, most_bytes=102) == "a" * 100
    with pytest.raises(InputError, match="more than 101"):
        files.read_json(path, most_bytes=101)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' twice"),
        ("[1, NaN]", "NaN, which is not JSON"),
        ("[1, 1e999]", "1e999, which no double-precision number holds"),
        ("[" * 100_000, "too many brackets"),
        ("9" * 5000, "digits"),
        ("{} {}", "Extra data"),
    ],
)
def test_json_that_readers_take_differently_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        files.read_json(path)


def test_a_table_has_no_formulas_and_its_numbers_stay(tmp_path: Path) -> None:
    formulas = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]
    files.write_table(tmp_path / "a.csv", [formulas, [-1, -2.5, None, "a=b", "", 0]])
    with (tmp_path / "a.csv").open(newline="") as file:
        texts, numbers = csv.reader(file)
    assert texts == [f"'{formula}" for formula in formulas]
    assert numbers == ["-1", "-2.5", "", "a=b", "", "0"]


def test_a_case_named_like_a_formula_is_none_in_cases_csv(tmp_path: Path) -> None:
    case = dict.fromkeys(CASE_COLUMNS) | {"case": "=cmd|' /C calc'!A0", "warnings": ["@a", "b"]}
    write_score({"cases": [case]}, tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == "'=cmd|' /C calc'!A0" and row["warnings"] == "'@a; b"
