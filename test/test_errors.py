"""What users are told: one line with the true cause, whatever a file is called."""

import errno

import pytest

from acouslic.errors import InputError, machine_problem


@pytest.mark.parametrize("sign", ["\n", "\r", "\x1b[2J", "\x85", "\u2028", "\udcff", "\0"])
def test_a_message_is_one_line_that_any_log_can_hold(sign: str) -> None:
    line = str(InputError(expected="a", found=f"b{sign}c", advice="do d"))
    assert line.isprintable()
    assert line.splitlines() == [line]
    line.encode()


def test_letters_of_other_scripts_stay() -> None:
    assert "Jörg 李" in str(InputError(expected="a", found="Jörg 李", advice="do d"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), ("memory for the work", "MemoryError")),
        (MemoryError("std::bad_alloc"), ("memory for the work", "bad_alloc")),
        (ImportError("libcufft.so.11: failed to map segment"), ("memory for the work", "libcufft")),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), ("memory", "CUDA")),
        (RuntimeError("can't start new thread"), ("memory for the work", "thread")),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            ("a folder for temporary files", "set TMPDIR"),
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/output/a"), ("space", "/output/a")),
        (PermissionError(errno.EACCES, "Permission denied", "/a\nb"), ("denied", "/a\\nb")),
    ],
)
def test_a_lack_of_the_machine_is_named(error: Exception, words: tuple[str, ...]) -> None:
    line = machine_problem(error)
    assert line is not None and line.isprintable()
    assert all(word in line for word in words), line


@pytest.mark.parametrize("error", [ValueError("a"), KeyError("b"), TypeError(), AssertionError()])
def test_a_bug_is_no_lack_of_the_machine(error: Exception) -> None:
    assert machine_problem(error) is None
