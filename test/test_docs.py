"""What the documents tell to type can be typed, and what they name is there."""

import importlib
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dataset import command

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "model" / "README.md")
    if path.name != "CHANGELOG.md"
)
SHELL_LANGUAGES = ("bash", "sh", "")
# What stands first in a line that people type into a shell.
PROGRAMS = ("python", "acouslic", "source", "git", "pip", "docker", "uv", "tar")
TYRO_ROOMS = ("training", "evaluation", "benchmark")
# Words in capitals stand for a value that the reader fills in; a number, where one is wanted.
PLACEHOLDER = re.compile(r"^[A-Z]$")


def command_lines(text: str) -> list[str]:
    """The commands in a document's fenced and indented blocks, one a line, without comments."""
    blocks = [
        body
        for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if language in SHELL_LANGUAGES
    ]
    without_fences = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^ {4,}\S.*\n)+", without_fences, re.MULTILINE)
    lines = []
    for block in blocks:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            lines += re.split(r"\s+(?:&&|;)\s+", re.sub(r"(^|\s)#.*", "", line).strip())
    return [line for line in lines if is_command(line)]


def is_command(line: str) -> bool:
    first = re.sub(r"^(?:\w+=\S*\s+)*", "", line).partition(" ")[0]
    return first in PROGRAMS or re.match(r"(\./|recipes/|\.venv/bin/)\w", first) is not None


def test_the_reader_of_documents_finds_commands() -> None:
    """Without this the tests below could pass by seeing nothing."""
    text = "a\n```bash\n./test.sh --local  # why\nA=1 python -m phantom \\\n  out && acouslic x\n"
    text += "```\n\n    python -m training fit\n    | no | command |\n\n```python\npython\n```\n"
    assert command_lines(text) == [
        "./test.sh --local",
        "A=1 python -m phantom  out",
        "acouslic x",
        "python -m training fit",
    ]
    assert sum(len(command_lines(path.read_text())) for path in DOCUMENTS) > 20


def recipe_commands(path: Path) -> list[str]:
    """A recipe's own calls of the rooms, with the shell's variables as they would be filled in."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    calls = re.findall(r"^ *(python -m (?:phantom|training|evaluation|benchmark)\b.*)", text, re.M)
    # What the shell puts in place of its variables: nothing for a list of further options, the
    # protocol for benchmark.sh's own argument, and for all else a word that is a number, too.
    for variable, value in ((r"\$\{\w*@?\[?@?[^}]*\}", ""), (r"\$1", "strict"), (r"\$\w+", "0")):
        calls = [re.sub(variable, value, call) for call in calls]
    return [call.replace('""', "").replace('"', "") for call in calls]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_tells_to_type_can_be_typed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in command_lines(path.read_text()):
        check(line, monkeypatch)


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.sh")), ids=lambda path: path.name)
def test_what_a_recipe_types_is_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recipe_commands(path)
    assert calls or "python -m" not in path.read_text()
    for call in calls:
        check(call, monkeypatch)


def check(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command line would be refused for its words; nothing is run."""
    words = [word for word in shlex.split(line) if not re.match(r"^\w+=", word)]
    # A site's name is a capital itself.
    words = [
        word if before == "--site" else PLACEHOLDER.sub("0", word)
        for before, word in zip(["", *words], words, strict=False)
    ]
    first, rest = words[0], words[1:]
    if first.startswith(("./", "recipes/")):
        check_script(ROOT / first, rest, line)
    elif rest[:1] == ["-m"] and rest[1] in (*TYRO_ROOMS, "phantom", "acouslic"):
        check_room(rest[1], rest[2:], line, monkeypatch)
    elif first == "acouslic":
        check_room("acouslic", rest, line, monkeypatch)


def check_script(path: Path, arguments: list[str], line: str) -> None:
    assert os.access(path, os.X_OK), line
    told = subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout
    for argument in arguments:
        if argument.startswith("-"):
            assert re.search(rf"{re.escape(argument)}\b", told), f"{line}: not in its --help"


def check_room(room: str, arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = importlib.import_module(f"{room}.__main__")
    try:
        if room in TYRO_ROOMS:
            monkeypatch.setattr(module, "run", parse_only)
            module.main(arguments)
        else:
            module.parser().parse_args(arguments)
    except SystemExit as end:
        assert end.code in (0, None), f"{line}: refused"


def parse_only(commands: Any, *, prog: str, description: str, arguments: list[str]) -> int:
    command._parse(commands, prog, description, arguments)
    return 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), target


def test_every_file_and_room_of_the_tree_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = re.search(r"## The tree\n\n```\n(.*?)```", readme, re.DOTALL)
    assert tree is not None
    room = ""
    for row in tree[1].splitlines():
        names = row[:30].split() if row.startswith("  ") else re.split(r"\s{2,}", row)[0].split()
        for name in names:
            if not row.startswith("  "):
                assert (ROOT / name).exists(), row
                room = name
            else:
                assert (ROOT / room / f"{name}.py").is_file(), row
