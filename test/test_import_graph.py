"""Imports run one way, what ships knows no more than it needs, and what is imported is pinned."""

import ast
import re
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What each part may import of the project itself; a package's own modules are always allowed.
ALLOWED = {
    "acouslic": set[str](),
    "inference": {"acouslic"},
    "app": {"acouslic"},
    "evaluate": {"acouslic", "evaluation"},
    # The phantom reads what it shares with the challenge, and goes through its cases as all do.
    "phantom": {
        "acouslic.challenge",
        "acouslic.ellipse",
        "acouslic.errors",
        "acouslic.files",
        "acouslic.metaimage",
        "dataset.processes",
        "dataset.sequences",
    },
    "dataset": {"acouslic"},
    "evaluation": {"acouslic", "dataset"},
    # The demo makes its own data; the best weights are chosen by the challenge's own figures.
    "training": {"acouslic", "dataset", "evaluation", "phantom"},
    "benchmark": {"acouslic", "dataset", "evaluation", "training"},
}
TORCH_FREE = tuple(
    f"acouslic.{stage}"
    for stage in ("challenge", "files", "metaheader", "metaimage", "stack", "mask", "ellipse")
)
TORCH_AND_WHAT_NEEDS_IT = {"torch", "torchvision", "open_clip", "peft", "timm", "lightning"}
PLATFORM = {"panimg", "sagemaker-shim"}
DISTRIBUTION = {
    "cv2": "opencv-python-headless",
    "open_clip": "open-clip-torch",
    "SimpleITK": "simpleitk",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "grand_challenge_metrics": "grand-challenge-metrics",
}


def source_files(part: str) -> list[Path]:
    folder = ROOT / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{part}.py"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imported_names(tree: ast.AST, module: str, *, is_package: bool) -> set[str]:
    """All modules that a file imports, wherever; `from a import b` names a.b where that is one."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = module.split(".")[: None if is_package and node.level == 1 else -node.level]
                base = ".".join([*kept, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                names.add(name if is_module(name) else base)
    return names


class WithoutTypeChecking(ast.NodeTransformer):
    """Leaves out what is imported for the type checker alone."""

    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else node


@cache
def imports_of(path: Path, *, when_run: bool = False) -> frozenset[str]:
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    if when_run:
        tree = WithoutTypeChecking().visit(tree)
    is_package = path.name == "__init__.py"
    return frozenset(imported_names(tree, module_name(path), is_package=is_package))


@cache
def graph(part: str) -> dict[str, frozenset[str]]:
    return {module_name(path): imports_of(path, when_run=True) for path in source_files(part)}


def reachable(start: str, edges: dict[str, frozenset[str]]) -> set[str]:
    """All that is imported once `start` is, through the modules in `edges` and their packages."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += edges.get(name, ())
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return seen


def is_within(name: str, parts: set[str]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts)


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_run_one_way(part: str) -> None:
    files = source_files(part)
    assert files, f"{part} has no source files"
    wrong = {
        f"{module_name(path)} imports {name}"
        for path in files
        for name in imports_of(path)
        if is_within(name, set(ALLOWED)) and not is_within(name, ALLOWED[part] | {part})
    }
    assert not wrong


@pytest.mark.parametrize("module", TORCH_FREE)
def test_measuring_knows_no_torch(module: str) -> None:
    edges = graph("acouslic")
    assert module in edges
    roots = {name.partition(".")[0] for name in reachable(module, edges)}
    assert not roots & TORCH_AND_WHAT_NEEDS_IT


def test_acouslic_has_no_cycle() -> None:
    edges = {
        name: frozenset(imported for imported in names if imported != "acouslic")
        for name, names in graph("acouslic").items()
        if name != "acouslic"
    }
    cyclic = {
        name
        for name, names in edges.items()
        if any(name in reachable(imported, edges) for imported in names)
    }
    assert not cyclic


def pinned(*files: str) -> set[str]:
    text = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    pattern = r"^([A-Za-z0-9._-]+)(?:\[[a-z0-9,-]+\])?=="
    return {name.lower() for name in re.findall(pattern, text, re.MULTILINE)}


def third_parties(part: str) -> set[str]:
    """The distributions that a part imports, without the standard library and the project."""
    own = {path.stem for path in source_files(part)}
    return {name for path in source_files(part) for name in third_parties_of(path, own)}


def third_parties_of(path: Path, own: Collection[str] = ()) -> set[str]:
    roots = {name.partition(".")[0] for name in imports_of(path)}
    roots -= sys.stdlib_module_names | set(ALLOWED) | set(own)
    return {DISTRIBUTION.get(name, name.replace("_", "-")) for name in roots}


# ./test.sh makes its phantom inside the image, so the phantom may need no more than that has.
@pytest.mark.parametrize("part", ["inference", "app", "acouslic", "phantom"])
def test_what_the_image_runs_is_pinned_for_it(part: str) -> None:
    pins = pinned("requirements.txt")
    # The server is in the image of the invoke interface alone; nothing else imports it.
    extra = {"fastapi", "uvicorn"} if part == "acouslic" else set()
    assert third_parties(part) - extra <= pins
    assert extra <= pinned("requirements-invoke.txt") - pins
    assert all(
        not third_parties_of(path) & extra or path.name == "server.py"
        for path in source_files(part)
    )


def test_the_phantom_starts_without_what_the_image_lacks() -> None:
    absent = ["SimpleITK", "peft", "transformers", "sklearn"]
    program = (
        f"import sys; sys.modules |= dict.fromkeys({absent}); "
        "from phantom.__main__ import main; main(['--help'])"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("part", ["dataset", "training", "evaluation", "benchmark", "test"])
def test_what_does_not_ship_is_pinned(part: str) -> None:
    elsewhere = PLATFORM if part == "test" else set()
    assert third_parties(part) - elsewhere <= pinned("requirements.txt", "requirements-dev.txt")


def test_the_platforms_own_programs_have_an_environment_of_their_own() -> None:
    assert pinned("requirements-platform.txt") >= PLATFORM
    assert not pinned("requirements-dev.txt") & PLATFORM


def test_pins_are_exact_and_hashed() -> None:
    for file in (
        "requirements.txt",
        "requirements-invoke.txt",
        "requirements-dev.txt",
        "requirements-platform.txt",
    ):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert "://" not in text, f"{file} names an index"
        lines = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
        assert lines
        for line in lines:
            name = r"[a-z0-9-]+(\[[a-z0-9,-]+\])?"
            pattern = rf"{name}==[0-9][0-9a-z.]*( ; [^#]*?)?( +--hash=sha256:[0-9a-f]{{64}})+"
            assert re.fullmatch(pattern, line), f"{file}: {line[:100]}"


def test_one_module_names_the_platforms_folders() -> None:
    named = {"/input", "/output", "/opt/ml/model", "/opt/ml/input/data/ground_truth"}
    parts = ("acouslic", "evaluation", "inference", "app", "evaluate")
    for path in (path for part in parts for path in source_files(part)):
        if path.name == "command.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not texts & named, path


def test_no_module_has_a_name_that_says_nothing() -> None:
    parts = set(ALLOWED) - {"inference", "app", "evaluate"}
    stems = {path.stem for part in parts for path in source_files(part)}
    assert not stems & {"utils", "util", "helpers", "common", "misc", "manager"}


def test_relative_and_submodule_imports_are_seen() -> None:
    """The reader of imports itself: without this, the tests above could pass by seeing nothing."""
    tree = ast.parse(
        "import os.path\nfrom . import challenge\nfrom acouslic import stack\nimport torch"
    )
    assert imported_names(tree, "acouslic.selection", is_package=False) == {
        "os.path",
        "acouslic.challenge",
        "acouslic.stack",
        "torch",
    }
    tree = ast.parse("if TYPE_CHECKING:\n    import torch\nif x:\n    import numpy")
    run = WithoutTypeChecking().visit(tree)
    assert imported_names(run, "acouslic", is_package=True) == {"numpy"}
    edges = {"a": frozenset({"b.c"}), "b": frozenset({"torch"}), "b.c": frozenset[str]()}
    assert reachable("a", edges) == {"a", "b", "b.c", "torch"}
