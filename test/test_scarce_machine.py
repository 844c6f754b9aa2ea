"""The program where memory, temporary files or space are short, in a process of its own."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from acouslic.challenge import FRAMES, INPUT_FOLDER, MASK_FILE, SPACING_MM
from acouslic.metaimage import Geometry, write_frames

ROOT = Path(__file__).parents[1]
GIB = 1 << 30
# tempfile looks at the usual places and at the working folder; here none of them can be written.
NO_TEMPORARY = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/none']"


def run(
    tmp_path: Path, model: Path, *, limit: Callable[[], None] | None = None, first: str = ""
) -> subprocess.CompletedProcess[str]:
    """Measure the stack in `tmp_path`/input; `first` is Python that runs before."""
    program = f"import runpy; {first}\nrunpy.run_path('{ROOT / 'inference.py'}', None, '__main__')"
    places = ["--input", "input", "--output", "output", "--model", str(model), "--device", "cpu"]
    command = [sys.executable, "-c", program, *places]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit)


def write_stack(tmp_path: Path, frames: np.ndarray, n_frames: int) -> None:
    """The given frames, and black ones behind them."""
    black = np.zeros_like(frames[0])
    path = tmp_path / "input" / INPUT_FOLDER / "case.mha"
    path.parent.mkdir(parents=True)
    volume = (frames[index] if index < len(frames) else black for index in range(n_frames))
    write_frames(path, volume, Geometry.plain(SPACING_MM))


def memory_of(n_bytes: int) -> Callable[[], None]:
    """As the platform does it: RLIMIT_DATA, the machine's memory less 1 GiB."""
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: expected "), done.stderr
    return lines[0]


def test_a_whole_stack_is_measured_and_its_mask_written_in_3_gib(
    tmp_path: Path, tiny_bundle: Path, frames: np.ndarray
) -> None:
    write_stack(tmp_path, frames, FRAMES)
    done = run(tmp_path, tiny_bundle, limit=memory_of(3 * GIB))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output" / MASK_FILE).is_file()


@pytest.mark.parametrize("n_bytes", [GIB])
def test_too_little_memory_is_named(
    tmp_path: Path, tiny_bundle: Path, frames: np.ndarray, n_bytes: int
) -> None:
    write_stack(tmp_path, frames, FRAMES)
    line = last_line(run(tmp_path, tiny_bundle, limit=memory_of(n_bytes)))
    assert "memory" in line
    assert not (tmp_path / "output" / MASK_FILE).exists()


def test_no_folder_for_temporary_files_is_needed(
    tmp_path: Path, tiny_bundle: Path, frames: np.ndarray
) -> None:
    write_stack(tmp_path, frames, len(frames))
    done = run(tmp_path, tiny_bundle, first=NO_TEMPORARY)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output" / MASK_FILE).is_file()


def test_no_space_for_the_answer_is_named_and_leaves_nothing(
    tmp_path: Path, tiny_bundle: Path, frames: np.ndarray
) -> None:
    """A limit on a file's size stands for a full disk: the system refuses in the same way."""
    write_stack(tmp_path, frames, len(frames))
    full = resource.RLIMIT_FSIZE
    done = run(tmp_path, tiny_bundle, limit=lambda: resource.setrlimit(full, (1000, 1000)))
    assert "File too large" in last_line(done)
    assert not [path for path in (tmp_path / "output").rglob("*") if path.is_file()]
