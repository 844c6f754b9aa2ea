"""Claims: many workers on one folder, on one machine or on many, do each job once.

A claim is a file that only one worker can make, named like the job. Its worker holds it locked and
touches it now and then. A worker that ends, however it ends, loses its lock; one whose machine is
gone stops touching. Either way the next worker inherits the claim, and reads in it how many died.

Claims save work; that results are right does not depend on them. Should a worker that was taken for
dead wake up, two do one job, and the same whole result takes its place twice.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

# A machine that has not touched its claims for so long is gone. Network file systems show a change
# to other machines within 60 s at the latest (the attribute cache of NFS).
LEASE_S = 120.0
# Four touches are missed before a claim is lost.
BEAT_S = 30.0
# File systems say so where locks do not work: the beats alone decide there.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Claim(NamedTuple):
    """A job that is this worker's until it releases the claim."""

    name: str
    """The job's name."""
    deaths: int
    """How many workers died at it."""


class Claims:
    """The claims in a folder, as one worker sees them; to be used in a `with` block."""

    def __init__(self, folder: Path, *, lease_s: float = LEASE_S, beat_s: float = BEAT_S) -> None:
        """Begin without any claim; nothing is written yet.

        Args:
            folder: where the claims lie; made with the first of them.
            lease_s: after so long without a touch another machine's claim is inherited.
            beat_s: how often this worker touches its own.
        """
        self._folder = folder
        self._lease_s, self._beat_s = lease_s, beat_s
        self._held: dict[str, int] = {}
        self._watched: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Claims":
        """Begin to touch what will be held."""
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Release all that is held, and remove the folder if no claim is left in it."""
        self._closed.set()
        for name in list(self._held):
            self.release(name)
        self._heart.join()
        # Others may hold claims there, or have removed it.
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def take(self, name: str) -> Claim | None:
        """Claim a job; None where another worker that lives has it.

        Whoever gets a claim has to look again whether the job is still to be done.
        """
        path = self._path(name)
        with self._lock:
            if name in self._held:
                return None
            claim = self._inherit(path) if path.exists() else self._make(path, deaths=0)
            if claim is None:
                return None
            descriptor, deaths = claim
            self._held[name] = descriptor
        return Claim(name, deaths)

    def release(self, name: str) -> None:
        """Give a claim up: the job is done, or another worker may do it."""
        with self._lock:
            descriptor = self._held.pop(name)
            if _is_at(descriptor, self._path(name)):
                self._path(name).unlink(missing_ok=True)
            os.close(descriptor)

    def release_dead(self) -> None:
        """Remove the claims that dead workers left on jobs that somebody else has finished."""
        for path in self._folder.glob("[!.]*"):
            claim = self.take(unquote(path.name))
            if claim is not None:
                self.release(claim.name)

    def _path(self, name: str) -> Path:
        return self._folder / quote(name, safe="")

    def _make(self, path: Path, *, deaths: int) -> tuple[int, int] | None:
        """Make a claim that is written and locked before anybody can see it."""
        draft, descriptor = self._draft()
        _try_lock(descriptor)
        _write_owner(descriptor, deaths)
        try:
            os.link(draft, path)
        except FileExistsError:
            os.close(descriptor)
            return None
        finally:
            draft.unlink()
        return descriptor, deaths

    def _draft(self) -> tuple[Path, int]:
        draft = self._folder / f".{secrets.token_hex(8)}"
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                return draft, os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileNotFoundError:
                continue  # A worker that ended has just removed the empty folder.

    def _inherit(self, path: Path) -> tuple[int, int] | None:
        """Take over the claim of a worker that is dead."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None  # Just released: whoever asks again will see what became of the job.
        owner = _read_owner(descriptor)
        # Only between processes of one kernel does a lock always tell who lives.
        is_locked = _try_lock(descriptor) if owner.get("kernel") == _kernel() else None
        if is_locked and _is_at(descriptor, path):
            deaths = owner.get("deaths", 0) + 1
            _write_owner(descriptor, deaths)
            return descriptor, deaths
        is_stale = is_locked is None and self._is_stale(path, descriptor)
        is_removed = is_stale and _remove(path, descriptor)
        os.close(descriptor)
        return self._make(path, deaths=owner.get("deaths", 0) + 1) if is_removed else None

    def _is_stale(self, path: Path, descriptor: int) -> bool:
        """Whether nobody touched a claim for the lease's time, by this machine's clock alone."""
        touched_ns, now_s = os.fstat(descriptor).st_mtime_ns, time.monotonic()
        last_ns, since_s = self._watched.get(path.name, (None, now_s))
        if touched_ns != last_ns:
            since_s = now_s
        self._watched[path.name] = (touched_ns, since_s)
        return now_s - since_s >= self._lease_s

    def _beat(self) -> None:
        while not self._closed.wait(self._beat_s):
            with self._lock:
                for descriptor in self._held.values():
                    os.utime(descriptor)


def _remove(path: Path, descriptor: int) -> bool:
    """Remove a stale claim; of several workers that try it, one succeeds."""
    aside = path.with_name(f".{secrets.token_hex(8)}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    is_stale_one = _is_at(descriptor, aside)
    if not is_stale_one:
        # Another worker was quicker, and this is its new claim: back with it.
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()
    return is_stale_one


def _try_lock(descriptor: int) -> bool | None:
    """Lock a file until this process ends; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            return None
        raise
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write_owner(descriptor: int, deaths: int) -> None:
    owner = {
        "kernel": _kernel(),
        "machine": socket.gethostname(),
        "process": os.getpid(),
        "deaths": deaths,
    }
    # One write: a reader sees the old text or the new one. Blanks cover a longer old text.
    os.pwrite(descriptor, json.dumps(owner).ljust(os.fstat(descriptor).st_size).encode(), 0)


def _read_owner(descriptor: int) -> dict[str, Any]:
    """Who holds a claim; empty where that cannot be read."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _kernel() -> str:
    """What all processes of one running machine share, its containers included."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()
