"""How SIGINT and SIGTERM end a command: all is closed, nothing is half written, and it is quick."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# What a shell reports of a process that SIGINT or SIGTERM ended: 128 and the signal's number.
INTERRUPTED, TERMINATED = 130, 143


class Stopped(SystemExit):
    """SIGINT or SIGTERM has come; raised wherever the main thread is, so that all is closed."""


@contextmanager
def signals_raise(grace_s: float, last_line: str) -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM raise `Stopped`.

    Args:
        grace_s: after SIGTERM the process ends in so many seconds, whatever it computes.
        last_line: what stderr is told where it ends so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set what a signal does.
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _raise_stopped)
        with _sigterm_ends_all(grace_s, last_line):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """End the process at once: to take an interpreter down that has torch in it takes time."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _raise_stopped(number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped(128 + number)


@contextmanager
def _sigterm_ends_all(grace_s: float, last_line: str) -> Iterator[None]:
    """While the block runs, SIGTERM ends the process in time, whatever the main thread does.

    Python calls a signal's handler only between two of its own instructions, and a step on a CPU
    may take a minute in one of them. A thread is told at once, by a byte in a pipe.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    left = threading.Event()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while byte := os.read(reader, 1):
            if byte[0] == signal.SIGTERM and not left.wait(grace_s):
                os.write(2, f"error: {last_line}\n".encode())
                os._exit(TERMINATED)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)


# A forked child has the pipe but not the thread: its own signals must not end its parent.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
