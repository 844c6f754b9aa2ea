"""Both entry points under the platform's own launcher, and their answers in its own importer.

The launcher is `sagemaker-shim`, the importer `panimg`, as they are published, in an environment of
their own (./venv.sh requirements-platform.txt), since they need Python 3.12. Where it is not, these
tests are skipped; CI makes it first, and fails where it cannot.
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from acouslic.challenge import (
    CHALLENGE_FAN,
    CIRCUMFERENCE_FILE,
    FRAME_FILE,
    FRAME_SHAPE,
    INPUT_FOLDER,
    MASK_FILE,
    SPACING_MM,
    STACK_SLUG,
)

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "resources" / "demo"
PLATFORM = ROOT / ".venv-platform" / "bin" / "python"
ANSWER = sorted([CIRCUMFERENCE_FILE, FRAME_FILE, MASK_FILE])
ENTRY_POINTS = {"exec": "inference.py", "invoke": "app.py"}
PROMISED_S = 2.0
pytestmark = pytest.mark.skipif(
    not PLATFORM.exists(),
    reason="no .venv-platform with the platform's launcher: ./venv.sh requirements-platform.txt",
)


def write_case(folder: Path, seed: int, n_frames: int = 12) -> Path:
    """A case as the platform hands it over: its list of inputs, and noise in the stack's folder."""
    noise = np.random.default_rng(seed).integers(1, 120, (n_frames, *FRAME_SHAPE), dtype=np.uint8)
    image = sitk.GetImageFromArray(noise * CHALLENGE_FAN.mask())
    image.SetSpacing((SPACING_MM,) * 3)
    (folder / INPUT_FOLDER).mkdir(parents=True)
    sitk.WriteImage(image, str(folder / INPUT_FOLDER / "0a1b.mha"), useCompression=True)
    socket_ = {"slug": STACK_SLUG, "relative_path": str(INPUT_FOLDER), "super_kind": "Image"}
    listed = [{"socket": socket_, "image": {"name": f"case-{seed}.mha", "pk": "0a1b"}}]
    (folder / "inputs.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five cases, a damaged one, and one that takes minutes."""
    root = tmp_path_factory.mktemp("cases")
    folders = {f"case-{seed}": write_case(root / f"case-{seed}", seed) for seed in range(5)}
    folders["damaged"] = write_case(root / "damaged", 5)
    path = next(folders["damaged"].rglob("*.mha"))
    path.write_bytes(path.read_bytes()[:-1000])
    folders["endless"] = write_case(root / "endless", 6, 600)
    return folders


@pytest.fixture(scope="module")
def answers(
    cases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[Path, bytes]]:
    """What `inference.py` writes for a case when nothing is around it, made when asked for."""
    known: dict[str, dict[Path, bytes]] = {}

    def answer(name: str) -> dict[Path, bytes]:
        if name not in known:
            output = tmp_path_factory.mktemp("output")
            command = [sys.executable, str(ROOT / "inference.py"), "--input", str(cases[name])]
            command += ["--output", str(output), "--model", str(DEMO), "--device", "cpu"]
            subprocess.run(command, check=True, capture_output=True)
            known[name] = {path: (output / path).read_bytes() for path in ANSWER}
        return known[name]

    return answer


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def launch(
    work: Path, api: str, *tasks: dict[str, Any], model: Path = DEMO, start_s: int = 300
) -> dict[str, Any]:
    """The launcher's report on an entry point that gets these tasks, one after the other."""
    port = free_port()
    entry_point = [sys.executable, str(ROOT / ENTRY_POINTS[api]), "--model", str(model)]
    entry_point += ["--input", str(work / "input"), "--output", str(work / "output")]
    entry_point += ["--device", "cpu", *(["--port", str(port)] if api == "invoke" else [])]
    plan = {"api": api, "entrypoint": entry_point, "port": port, "work": str(work)}
    plan |= {"health_call_s": min(10, start_s), "start_s": start_s, "tasks": tasks}
    done = subprocess.run(
        [str(PLATFORM), str(ROOT / "test/tools/launch.py")],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def task(cases: dict[str, Path], name: str) -> dict[str, Any]:
    """A case that has time and is not cancelled."""
    return {"pk": name, "inputs": str(cases[name]), "timeout_s": 300.0, "cancel_after_s": None}


def stored(work: Path, pk: str) -> dict[Path, bytes]:
    """What the launcher has taken from the output, without its own report."""
    folder = work / "storage" / pk
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(paths)
        if ".sagemaker_shim" not in path.parts
    }


@pytest.mark.parametrize("api", ENTRY_POINTS)
def test_good_cases_with_a_failing_one_between_them(
    api: str,
    cases: dict[str, Path],
    answers: Callable[[str], dict[Path, bytes]],
    tmp_path: Path,
) -> None:
    """Five good ones on one server, whose answers are those of a process for each, bit for bit."""
    good = ["case-0", "case-1", "case-2", "case-3", "case-4"][: 2 if api == "exec" else 5]
    order = [*good[:1], "damaged", *good[1:]]
    report = launch(tmp_path, api, *(task(cases, name) for name in order))
    codes = [result["return_code"] for result in report["tasks"]]
    assert codes == [int(name == "damaged") for name in order]
    for name in good:
        assert stored(tmp_path, name) == answers(name), name
    assert stored(tmp_path, "damaged") == {}
    (line,) = report["stderr"]
    assert line.startswith("error: expected ") and line.endswith("\n")
    assert report["healthy"]
    if api == "invoke":
        assert report["returncode"] == 0
        assert report["teardown_s"] < PROMISED_S
        # A case on a server costs what the network needs, and no start.
        assert all(result["invoke_duration"] for result in report["tasks"])


@pytest.mark.parametrize("api", ENTRY_POINTS)
@pytest.mark.parametrize("how", ["cancelled", "out of time"])
def test_a_case_that_is_stopped_on_its_way(
    api: str, how: str, cases: dict[str, Path], tmp_path: Path
) -> None:
    # Enough for an entry point to have begun; the server has when its task is given.
    after_s = 4.0 if api == "exec" else 1.0
    stop = "cancel_after_s" if how == "cancelled" else "timeout_s"
    report = launch(tmp_path, api, task(cases, "endless") | {stop: after_s})
    (result,) = report["tasks"]
    assert stored(tmp_path, "endless") == {}
    if how == "out of time":
        assert result["return_code"] == 1
        assert "ime limit exceeded" in result["user_safe_error_message"]
        assert not report["healthy"]
    else:
        assert result["cancelled"]
    # 143: by our own hand, and not by the SIGKILL that follows after five seconds.
    assert report["returncode"] == 128 + signal.SIGTERM
    assert report["stderr"] == ["error: terminated; nothing is half written\n"]
    stop_s = report["teardown_s"] if api == "invoke" else result["seconds"]
    if how == "cancelled" or api == "invoke":
        assert stop_s < PROMISED_S
    assert list((tmp_path / "output").iterdir()) == []


def test_a_server_that_cannot_start_tells_why(cases: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    # The launcher asks a server that has ended again and again until its time is over. That is a
    # multiple of the 10 s a call, as on the platform: else it takes the last call for health.
    report = launch(tmp_path / "work", "invoke", model=tmp_path / "bundle", start_s=20)
    assert "health check" in report["setup"]
    (line,) = report["stderr"]
    assert line.startswith("error: expected ")


@pytest.mark.parametrize("api", ENTRY_POINTS)
def test_what_the_importer_stored_is_answered_and_the_answer_imported(
    api: str, cases: dict[str, Path], answers: Callable[[str], dict[Path, bytes]], tmp_path: Path
) -> None:
    """The platform's way of a stack: imported, stored, answered; the mask imported and stored."""
    given = tmp_path / "given"
    shutil.copytree(cases["case-0"], given)
    kept = import_images(given / INPUT_FOLDER, tmp_path / "stored")
    (path,) = (given / INPUT_FOLDER).iterdir()
    path.unlink()
    shutil.copy(kept["files"][0], given / INPUT_FOLDER)
    work = tmp_path / "work"
    report = launch(work, api, task({"stored": given}, "stored"))
    assert report["tasks"][0]["return_code"] == 0
    assert stored(work, "stored") == answers("case-0")

    mask = import_images(work / "storage/stored" / MASK_FILE.parent, tmp_path / "mask")
    assert mask["errors"] == {}
    (image,) = mask["images"]
    assert image["size"] == [FRAME_SHAPE[1], FRAME_SHAPE[0], 12]
    assert image["segments"] == [0, 1]
    assert image["color_space"] == "GRAY"
    imported = sitk.ReadImage(mask["files"][0])
    written = sitk.ReadImage(str(work / "storage/stored" / MASK_FILE))
    assert imported.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(imported), sitk.GetArrayFromImage(written))
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(imported, name)() == pytest.approx(getattr(written, name)())


def import_images(folder: Path, output: Path) -> dict[str, Any]:
    command = [str(PLATFORM), str(ROOT / "test/tools/import_images.py"), str(folder), str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report
