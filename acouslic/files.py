"""Files and folders that appear whole or not at all, and that replace only what is ours.

What is being written lies in a hidden folder beside its place, `.NAME.TOKEN.partial`, which its
process holds locked. It is moved into place when it is whole and on the disk. A process that is
killed leaves such a folder behind, unlocked; whoever writes the same NAME next removes it.
"""

import csv
import ctypes
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from acouslic.errors import InputError, OutputError

# What people keep in a folder of ours, and what a new one takes over.
KEPT_NAMES = ("README.md", ".gitignore")
# A list of 10,000 jobs has some 30 MB.
_MOST_JSON_BYTES = 1 << 26
# As much of a wrong text is told as fits a line beside the rest.
_SHOWN = 60
# What a text begins with that a spreadsheet takes for a formula (OWASP, CSV injection).
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h
_PARTIAL, _ASIDE = ".partial", ".aside"
# What a set of files is called while it is being written.
SET = "files"
# Random bytes in a TOKEN: two processes that write one NAME at a time hardly draw the same.
_TOKEN_BYTES = 4
_LEFTOVER = re.compile(rf"\..+\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}(?:{_PARTIAL}|{_ASIDE})")


def open_regular(path: Path, *, follow: bool = True) -> BufferedReader:
    """Open a plain file for reading: a pipe would wait, a device never end.

    Args:
        path: the file.
        follow: whether it may be a link.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is a folder, a pipe or a device, or a link that is not to be followed.
    """
    if not follow and path.is_symlink():
        raise ValueError("a link")
    # Opening a pipe would wait for somebody who writes to it.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("no plain file, but a folder, a pipe or a device")
    return open(descriptor, "rb")


def read_regular(path: Path, most_bytes: int, *, follow: bool = True) -> bytes:
    """Read a plain file whole.

    Args:
        path: the file.
        most_bytes: a longer one is refused.
        follow: whether it may be a link.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: see `open_regular`, or it is too long.
    """
    with open_regular(path, follow=follow) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > most_bytes:
            raise ValueError(f"{n_bytes:,} bytes, more than {most_bytes:,}")
        return file.read(n_bytes)


def unreadable(path: Path, error: OSError | ValueError) -> InputError:
    """What to tell the user where a file cannot be read, or is no plain one."""
    if isinstance(error, OSError):
        return InputError(
            expected=f"a file {path} that can be read",
            found=error.strerror or str(error),
            advice="see that it is there and may be read by the user that runs this",
        )
    return InputError(
        expected=f"a plain file {path}", found=str(error), advice="give the file itself"
    )


def parse_json(data: bytes) -> Any:
    """Parse strict JSON in UTF-8, which may come from anybody.

    Raises:
        ValueError: it is none, too deep, has a key twice, or a number that is not finite.
    """
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_without_twins,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("too many brackets inside each other") from None


def read_json(path: Path, *, most_bytes: int = _MOST_JSON_BYTES) -> Any:
    """Read strict JSON, see `parse_json`.

    Args:
        path: the file.
        most_bytes: what is longer is not read.

    Raises:
        InputError: it is no plain file, cannot be read, or holds no such JSON.
    """
    try:
        return parse_json(read_regular(path, most_bytes))
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise InputError(
            expected=f"strict JSON in {path}",
            found=str(error),
            advice="give the file as it was written",
        ) from error


def _without_twins(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"key {key[:_SHOWN]!r} twice")
        values[key] = value
    return values


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant}, which is not JSON")


def _finite(digits: str) -> float:
    """A number; one beyond double precision would be read as infinite."""
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:_SHOWN]}, which no double-precision number holds")
    return value


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with new_file(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write strict JSON, whole or not at all.

    Args:
        path: the file.
        value: dicts, lists, texts, numbers, None.
        indent: spaces a level, or None for one line.

    Raises:
        ValueError: a number is not finite, which JSON cannot hold.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a csv file, whole or not at all, in which no text is a formula to a spreadsheet.

    Args:
        path: the file.
        rows: the cells, the first row being the columns' names.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([*map(_cell, row)] for row in rows)
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    """A value of a table; numbers stay what they are, below zero too."""
    is_formula = isinstance(value, str) and value.startswith(_FORMULA_SIGNS)
    return f"'{value}" if is_formula else value


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; the file takes its place when the block ends without an error.

    An older file at the same place is replaced at that moment.
    """
    with _partial_folder(path) as folder:
        partial = folder / path.name
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)


@contextmanager
def new_files(folder: Path, paths: Sequence[Path]) -> Iterator[Path]:
    """Give an empty folder to write several files to; they take their places together.

    Args:
        folder: where the files go; it stays, with all else that it holds.
        paths: the files, relative to it and to the folder that is given. Where one of them cannot
            take its place, none is left there.
    """
    with _partial_folder(folder / SET) as partial:
        yield partial
        try:
            for path in paths:
                _sync(partial / path)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(partial / path, folder / path)
        except BaseException:
            for path in paths:
                (folder / path).unlink(missing_ok=True)
            raise
        _sync(folder)


@dataclass(frozen=True)
class FolderKind:
    """How one recognises a kind of folder that this project writes."""

    name: str
    """What people call it, such as "bundle"."""
    owned: Callable[[Path], Collection[str]]
    """The names in a folder that this project wrote there; none where it is not of this kind."""


def refuse_stranger(folder: Path, kind: FolderKind, *, overwrite: bool) -> None:
    """Make sure that a new folder may take the place of what is there now.

    It may where nothing is there, or nothing but KEPT_NAMES. It also may where a folder of this
    kind is there that holds nothing else, if `overwrite` says so.

    Args:
        folder: the place.
        kind: what the new folder is.
        overwrite: whether an older folder of this kind may be replaced.

    Raises:
        OutputError: something is there that must not be deleted.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            expected=f"a folder for the {kind.name} at {folder}",
            found="a file",
            advice="name another --output",
        )
    names = _names(folder)
    strangers = sorted(names.difference(kind.owned(folder))) if names else []
    if strangers:
        raise OutputError(
            expected=f"a new or empty folder for the {kind.name}, or an older {kind.name}",
            found=f"{strangers[0]} in {folder}, which is never deleted",
            advice="name another --output, or move that away",
        )
    if names and not overwrite:
        raise OutputError(
            expected=f"a new or empty folder for the {kind.name}",
            found=f"an older {kind.name} in {folder}",
            advice="add --overwrite to replace it, or name another --output",
        )


def refuse_foreign_folder(folder: Path, mark: str, what: str) -> None:
    """Make sure that a folder which a command adds to is new, empty, or one that it began.

    Args:
        folder: where the command writes.
        mark: the file that the command writes there first.
        what: what the folder holds, for people, such as "a training run".

    Raises:
        OutputError: it holds something and has no such file.
    """
    names = _names(folder)
    if names and not (folder / mark).is_file():
        raise OutputError(
            expected=f"a new or empty folder for {what}, or one with {mark}",
            found=f"{min(names)} in {folder}",
            advice="name another --output",
        )


def begin_or_resume(path: Path, options: Any, what: str) -> None:
    """Write down the options of what begins; whoever goes on with it must ask for the same.

    Args:
        path: the file that holds them, in the folder that the command adds to.
        options: plain JSON.
        what: what begins, for people, such as "the run in FOLDER".

    Raises:
        InputError: it began with other options.
    """
    text = json.dumps(options, indent=1)
    if not path.is_file():
        write_text(path, text)
    elif path.read_text() != text:
        raise InputError(
            expected=f"the options with which {what} began ({path.name})",
            found="others",
            advice="give the same options to go on there, or another --output",
        )


def refuse_foreign_file(path: Path, mark: str, what: str) -> None:
    """Make sure that a file which a command writes is new, or one that it wrote before.

    Args:
        path: the file.
        mark: a text that stands in every file of this kind.
        what: what the file is, for people, such as "a report".

    Raises:
        OutputError: something else is there.
    """
    if path.exists() and (not path.is_file() or mark.encode() not in path.read_bytes()):
        raise OutputError(
            expected=f"no file {path}, or {what} of this project",
            found="something else of that name, which is never deleted",
            advice="name another --output, or move it away",
        )


@contextmanager
def new_folder(folder: Path, kind: FolderKind, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to fill; it takes its place when the block ends without an error.

    At every moment either the old folder or the new one is there. KEPT_NAMES move over from the old
    folder, unless the new one has its own.

    Args:
        folder: the place.
        kind: what the new folder is.
        overwrite: whether an older folder of this kind may be replaced.

    Raises:
        OutputError: see `refuse_stranger`.
    """
    folder = folder.resolve()
    refuse_stranger(folder, kind, overwrite=overwrite)
    with _partial_folder(folder) as holder:
        partial = holder / folder.name
        partial.mkdir()
        yield partial
        # Somebody may have put a file there meanwhile.
        refuse_stranger(folder, kind, overwrite=overwrite)
        _take_over(folder, partial)
        _sync_tree(partial)
        replace_folder(partial, folder)
        _sync(folder.parent)


def replace_folder(new: Path, folder: Path) -> None:
    """Move a whole folder into place; an old one there then lies where the new one was.

    This replaces whatever folder is there: `new_folder` checks first whose it is.

    Args:
        new: the whole folder, on the same file system.
        folder: its place.
    """
    if not folder.exists():
        new.rename(folder)
    elif not _exchange(new, folder):
        # Not one step, but a kill between the two leaves the old folder aside; it is put back by
        # `remove_leftovers`.
        aside = folder.with_name(f".{folder.name}.{secrets.token_hex(_TOKEN_BYTES)}{_ASIDE}")
        folder.rename(aside)
        new.rename(folder)
        aside.rename(new)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of a file or folder; put back what one had moved aside."""
    for aside in path.parent.glob(f".{path.name}.*{_ASIDE}"):
        if path.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(path)
    for partial in path.parent.glob(f".{path.name}.*{_PARTIAL}"):
        with claim(partial) as is_dead:
            if is_dead:
                shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Try to hold the only lock on a folder while the block runs.

    A lock ends with its process, however that ends.

    Yields:
        Whether the lock is held: False where another process has it, or the folder is gone.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _names(folder: Path) -> set[str]:
    """What a folder holds, but for KEPT_NAMES and for what killed processes left behind."""
    if not folder.is_dir():
        return set()
    names = {path.name for path in folder.iterdir()}
    return {name for name in names - set(KEPT_NAMES) if not _LEFTOVER.fullmatch(name)}


@contextmanager
def _partial_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` for this process alone, gone when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN_BYTES)}{_PARTIAL}")
        partial.mkdir()
        with claim(partial) as is_mine:
            # Between mkdir and lock another process may have taken it for a leftover.
            if not is_mine or not partial.is_dir():
                continue
            try:
                yield partial
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return


def _take_over(old: Path, new: Path) -> None:
    """Copy KEPT_NAMES from an old folder into a new one that has none of its own."""
    for name in KEPT_NAMES:
        source, target = old / name, new / name
        if source.is_file() and not target.exists():
            shutil.copy2(source, target)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step (renameat2, Linux 3.15); False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(b))


def _sync_tree(folder: Path) -> None:
    """Have the disk hold a folder with all that is in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Have the disk hold what was written: a rename may otherwise outlive the bytes it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
