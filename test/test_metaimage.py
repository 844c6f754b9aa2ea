"""MetaImage files: what is written is read back, by SimpleITK and by ourselves."""

import resource
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.errors import InputError
from acouslic.metaimage import (
    Geometry,
    read_array,
    read_filled_frames,
    read_frames,
    read_header,
    write_frames,
)

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 5, 7), np.uint8)
# A rotation that is not its own inverse: the axes are the columns.
TURNED = Geometry(
    (0.28, 0.3, 1 / 3), (1.0, -2.5, 3.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
)


@pytest.mark.parametrize("geometry", [Geometry.plain(0.5), TURNED])
def test_a_volume_is_read_back_by_simpleitk_with_its_geometry(
    tmp_path: Path, geometry: Geometry
) -> None:
    write_frames(tmp_path / "a.mha", FRAMES, geometry)
    image = sitk.ReadImage(str(tmp_path / "a.mha"))
    assert Geometry(image.GetSpacing(), image.GetOrigin(), image.GetDirection()) == geometry
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), FRAMES)


def test_frames_of_simpleitks_file_are_read_one_by_one(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(FRAMES), str(tmp_path / "a.mha"), useCompression=True)
    header = read_header(tmp_path / "a.mha")
    assert header.is_compressed
    frames = list(read_frames(tmp_path / "a.mha", header))
    np.testing.assert_array_equal(frames, FRAMES)


def test_of_a_volume_the_frames_that_are_not_empty_are_kept(tmp_path: Path) -> None:
    volume = np.zeros((9, 5, 7), np.uint8)
    volume[[2, 6]] = FRAMES[:2]
    write_frames(tmp_path / "a.mha", volume, Geometry.plain(1.0))
    filled = read_filled_frames(tmp_path / "a.mha", read_header(tmp_path / "a.mha"))
    assert list(filled) == [2, 6]
    np.testing.assert_array_equal(list(filled.values()), FRAMES[:2])


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_black_frames_take_no_memory(tmp_path: Path) -> None:
    volume = np.zeros((80, 562, 744), np.uint8)
    volume[[0, 40]] = np.random.default_rng(0).integers(0, 255, (2, 562, 744), np.uint8)
    write_frames(tmp_path / "a.mha", volume, Geometry.plain(1.0))
    header, before = read_header(tmp_path / "a.mha"), resident_bytes()
    array = read_array(tmp_path / "a.mha", header)
    assert resident_bytes() - before < array.nbytes / 2
    np.testing.assert_array_equal(array, volume)


def test_a_volume_that_ends_early_or_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    write_frames(path, FRAMES, Geometry.plain(1.0))
    header = read_header(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    for read in (read_filled_frames, read_frames):
        with pytest.raises(InputError, match="ends early"):
            list(read(path, header))
    path.write_bytes(whole[: header.pixels_at] + b"no stream" * 20)
    with pytest.raises(InputError, match="3 whole frames"):
        list(read_frames(path, header))


def test_other_files_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ElementDataFile = LOCAL\n")
    with pytest.raises(InputError, match=r"found 'a\.txt'"):
        read_header(tmp_path / "a.txt")
    (tmp_path / "b.mha").write_bytes(b"ObjectType = Image\nElementDataFile = b.raw\n")
    with pytest.raises(InputError, match=r"ElementDataFile = local.*found 'b\.raw'"):
        read_header(tmp_path / "b.mha")
