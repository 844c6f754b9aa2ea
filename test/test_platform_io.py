import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic import files
from acouslic.challenge import CIRCUMFERENCE_FILE, FRAME_FILE, FRAME_SHAPE, MASK_FILE
from acouslic.ellipse import Ellipse
from acouslic.errors import InputError, OutputError
from acouslic.metaimage import Geometry
from acouslic.pipeline import Measurement
from acouslic.platform_io import find_input, own_output, write_outputs
from acouslic.stack import Stack

GEOMETRY = Geometry(
    (0.28, 0.28, 0.5), (1.0, -2.0, 3.0), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
)


@pytest.fixture
def stack(frames: np.ndarray) -> Stack:
    return Stack("case", frames, GEOMETRY)


@pytest.fixture
def measurement() -> Measurement:
    ellipse = Ellipse(370.0, 300.0, 140.0, 120.0, 30.0)
    return Measurement(
        frame=4,
        sweep=3,
        mask=ellipse.mask(FRAME_SHAPE).astype(np.uint8),
        ac_mm=229.1,
        ellipse=ellipse,
        ac_interval_mm=(210.0, 248.0),
        confidence=0.8,
        p_annotated=0.7,
        frame_scores=np.zeros(12, np.float32),
        seconds={},
    )


def claim_output(folder: Path) -> None:
    with own_output(folder):
        pass


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_whole_and_in_the_inputs_geometry(
    tmp_path: Path, stack: Stack, measurement: Measurement
) -> None:
    write_outputs(tmp_path, stack, measurement, "demo-1", simulated=True)
    assert names_below(tmp_path) == [
        "fetal-abdomen-frame-number.json",
        "fetal-abdominal-circumference.json",
        "images/fetal-abdomen-segmentation/output.mha",
    ]
    image = sitk.ReadImage(str(tmp_path / MASK_FILE))
    volume = sitk.GetArrayFromImage(image)
    assert volume.dtype == np.uint8
    assert volume.shape == stack.frames.shape
    assert np.flatnonzero(volume.any(axis=(1, 2))).tolist() == [4]
    assert np.array_equal(volume[4], measurement.mask)
    assert Geometry(image.GetSpacing(), image.GetOrigin(), image.GetDirection()) == GEOMETRY
    assert json.loads((tmp_path / FRAME_FILE).read_text()) == 4
    described = json.loads((tmp_path / CIRCUMFERENCE_FILE).read_text())
    assert described["ac_mm"] == 229.1
    assert described["ac_interval_mm"] == [210.0, 248.0]
    assert (described["confidence"], described["p_annotated"]) == (0.8, 0.7)
    assert described["ellipse"]["semi_major_mm"] == pytest.approx(140 * 0.28)
    assert (described["frame"], described["sweep"], described["bundle_id"]) == (4, 3, "demo-1")
    assert described["simulated"] is True


def test_the_same_measurement_gives_the_same_bytes(
    tmp_path: Path, stack: Stack, measurement: Measurement
) -> None:
    for name in ("a", "b"):
        write_outputs(tmp_path / name, stack, measurement, "demo-1", simulated=True)
    for name in names_below(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_failure_half_way_leaves_nothing(
    tmp_path: Path, stack: Stack, measurement: Measurement, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files, "write_json", full_disk)
    with pytest.raises(OutputError, match="no space left"):
        write_outputs(tmp_path, stack, measurement, "demo-1", simulated=True)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "output").touch()
    with pytest.raises(OutputError, match="can be written"):
        claim_output(tmp_path / "output")


def test_a_foreign_file_among_the_masks_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / MASK_FILE.parent
    folder.mkdir(parents=True)
    (folder / "other.mha").touch()
    with pytest.raises(OutputError, match=r"other\.mha"):
        claim_output(tmp_path)


def test_one_file_is_the_input(write_stack: Callable[..., Path], frames: np.ndarray) -> None:
    folder = write_stack(frames)
    found = find_input(folder)
    assert found.name == "case.mha"
    (found.parent / "second.mha").touch()
    with pytest.raises(InputError, match="2 files"):
        find_input(folder)


def test_a_folder_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        find_input(tmp_path)


def describe_inputs(*sockets: tuple[str, str], key: str = "socket") -> str:
    """What the platform writes: one entry a socket, of its slug and its folder."""
    entries = []
    for slug, place in sockets:
        socket = {"slug": slug, "relative_path": place, "super_kind": "Image", "kind": "Image"}
        image = {"name": "case.mha", "pk": "0a1b"}
        entries.append({key: socket, "image": image, "value": None, "file": None})
    return json.dumps(entries)


OURS = ("stacked-fetal-ultrasound", "images/stacked-fetal-ultrasound")


@pytest.mark.parametrize("key", ["socket", "interface"])
@pytest.mark.parametrize("place", ["images/stacked-fetal-ultrasound", "images/elsewhere"])
def test_the_stack_is_where_the_list_of_inputs_says(tmp_path: Path, key: str, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "stored-under-another-name.mha").touch()
    (tmp_path / "inputs.json").write_text(describe_inputs((OURS[0], place), key=key))
    assert find_input(tmp_path) == tmp_path / place / "stored-under-another-name.mha"
    (tmp_path / place / "case.mha").touch()
    assert find_input(tmp_path) == tmp_path / place / "case.mha"


def test_a_socket_in_the_stacks_folder_is_the_stacks_whatever_its_slug(tmp_path: Path) -> None:
    (tmp_path / OURS[1]).mkdir(parents=True)
    (tmp_path / OURS[1] / "case.mha").touch()
    (tmp_path / "inputs.json").write_text(describe_inputs(("stack-of-2027", OURS[1])))
    assert find_input(tmp_path).name == "case.mha"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (describe_inputs(("ct-scan", "images/ct")), "found 1 ('ct-scan')"),
        (describe_inputs(OURS, ("age", "age.json")), "found 2 ('stacked-fetal-ultrasound', 'age')"),
        ("[]", "found none"),
        (describe_inputs((OURS[0], "../elsewhere")), "leads out"),
        (describe_inputs((OURS[0], "/elsewhere")), "leads out"),
        (describe_inputs((OURS[0], "a\0b")), "found none ("),
        (describe_inputs((OURS[0], "a\ud800")), "found none ("),
        ("{", "another form (Expecting property name"),
        ("", "another form (Expecting value"),
        ("[" * 100_000, "another form (too many brackets"),
        ('[{"socket": {"slug": "a", "slug": "b"}}]', "another form (key 'slug' twice"),
        ("{}", "the whole: Input should be a valid list"),
        ("[1]", "0: Input should be a valid dictionary"),
        ("null", "the whole: Input should be a valid list"),
        ("[{}]", "0.socket: Field required"),
        ('[{"socket": null}]', "0.socket: Input should be a valid dictionary"),
        (f'[{{"socket": {{"slug": "{OURS[0]}"}}}}]', "relative_path: Field required"),
        ('[{"interface": {"slug": 1, "relative_path": "a"}}]', "slug: Input should be"),
        (describe_inputs((OURS[0], "a" * 5000)), "found none ("),
        (" " * 1_000_001 + "[]", "more than 1,000,000"),
    ],
)
def test_another_list_of_inputs_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / OURS[1]).mkdir(parents=True)
    (tmp_path / OURS[1] / "case.mha").touch()
    (tmp_path / "inputs.json").write_text(text)
    with pytest.raises(InputError) as refused:
        find_input(tmp_path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_list_of_inputs_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inputs.json").symlink_to(tmp_path / "absent")
    with pytest.raises(InputError, match="No such file"):
        find_input(tmp_path)
    (tmp_path / "inputs.json").unlink()
    os.mkfifo(tmp_path / "inputs.json")
    with pytest.raises(InputError, match="no plain file"):
        find_input(tmp_path)
