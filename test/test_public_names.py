"""What `from acouslic import ...` gives is what README shows, and the example there runs."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import acouslic

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 5


@pytest.fixture
def example() -> str:
    """README's only block of Python."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    return str(block)


def imported_from_acouslic(source: str) -> list[str]:
    """The names in `from acouslic import ...`."""
    statements = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module == "acouslic"
    ]
    return [alias.name for node in statements for alias in node.names]


def test_public_names_are_those_that_readme_shows(example: str) -> None:
    assert imported_from_acouslic(example) == acouslic.__all__


def test_readmes_example_runs_as_it_stands(
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_stack: Callable[..., Path],
    frames: np.ndarray,
    tiny_bundle: Path,
) -> None:
    assert len(example.splitlines()) <= MOST_LINES
    (stack,) = write_stack(frames).rglob("*.mha")
    paths = [text for text in re.findall(r'"([^"]*)"', example) if not Path(text).is_absolute()]
    assert len(paths) == 2
    for text in paths:
        path = tmp_path / "elsewhere" / text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(stack if text.endswith(".mha") else tiny_bundle)
    monkeypatch.chdir(tmp_path / "elsewhere")
    exec(compile(example, "README.md", "exec"), {})
    frame, ac_mm, confidence = capsys.readouterr().out.split()
    assert 0 <= int(frame) < len(frames)
    assert float(ac_mm) > 100
    assert 0 <= float(confidence) <= 1


@pytest.mark.parametrize("name", acouslic.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    documentation = inspect.getdoc(getattr(acouslic, name))
    assert documentation
    assert documentation.splitlines()[0].endswith(".")
    if inspect.isfunction(getattr(acouslic, name)):
        assert "Args:" in documentation
        assert "Returns:" in documentation


def test_other_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ruler'"):
        acouslic.ruler  # type: ignore[attr-defined]  # noqa: B018 (a type checker knows it too)


def test_importing_the_package_is_cheap() -> None:
    program = "import sys, acouslic; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "acouslic" in imported
    assert not imported & {"torch", "numpy", "SimpleITK", "cv2", "scipy"}
