"""The platform's invoke interface: one process with its weights loaded, one case a request.

GET /health answers 200 once all is ready. POST /invoke, with an empty body, answers one case: 201,
or 500 after one line on stderr. Cases are answered in the main thread, where signals arrive, so
that they end in the same way in both of the container's entry points; another thread speaks HTTP.
"""

import asyncio
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from queue import SimpleQueue
from typing import TYPE_CHECKING

from acouslic.command import error_line
from acouslic.errors import InputError
from acouslic.stopping import Stopped

if TYPE_CHECKING:
    from fastapi import FastAPI

# The platform's: GRAND_CHALLENGE_COMPONENT_USER_WEBSERVER_PORT of its launcher.
PORT = 4743
# The platform gives a call of /health 10 s, and waits 10 s after an answer that is not 200.
HEALTH_S = 9.0
# The step in which a held call looks whether all is ready.
LOOK_S = 0.05
# How long an answer that is on its way may take when the process ends; 2 s are promised in all.
FAREWELL_S = 0.5
log = logging.getLogger(__name__)
Jobs = SimpleQueue[Future[HTTPStatus]]


def listen(port: int) -> socket.socket:
    """Take the port. Calls wait from now on, where a refused one would cost the platform 10 s.

    Raises:
        InputError: another process has it.
    """
    try:
        return socket.create_server(("0.0.0.0", port))
    except OSError as error:
        raise InputError(
            expected=f"the port {port} to be free",
            found=str(error.strerror),
            advice="end the process that has it, or name another --port",
        ) from error


def serve(listener: socket.socket, prepare: Callable[[], Callable[[], None]]) -> None:
    """Answer one request after the other until SIGTERM or SIGINT comes.

    Args:
        listener: the port, from `listen`.
        prepare: called once, while calls wait. What it returns answers a case, or raises why there
            is no answer.

    Raises:
        Stopped: a signal came before or during a case. One that comes between two is the usual end.
    """
    # Only the image of this interface has it, and it takes half a second.
    import uvicorn

    stage, jobs = Stage(), Jobs()
    config = uvicorn.Config(
        application(stage, jobs),
        log_config=None,  # its own would write to stderr, whose last line is the platform's message
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        answer = prepare()
        stage.is_ready = True
        log.info("ready for cases on port %d", listener.getsockname()[1])
        while (job := _next(jobs)) is not None:
            _run(job, answer)
    finally:
        stage.is_over = server.should_exit = True
        thread.join(FAREWELL_S)


@dataclass
class Stage:
    """How far the server is."""

    is_ready: bool = False
    """Whether cases can be answered."""
    is_over: bool = False
    """Whether it is about to end."""


def application(stage: Stage, jobs: Jobs) -> "FastAPI":
    """The two calls of the interface.

    Args:
        stage: how far the server is.
        jobs: gets a future a case, which is to be resolved with the call's status.
    """
    from fastapi import FastAPI, Response

    app = FastAPI(openapi_url=None)
    turn = threading.Lock()

    @app.get("/health")
    async def health() -> Response:
        deadline = time.monotonic() + HEALTH_S
        while not (stage.is_ready or stage.is_over) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
        is_well = stage.is_ready and not stage.is_over
        return Response(status_code=HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)

    @app.post("/invoke")
    async def invoke() -> Response:
        # Input and output are the same folders for every case: there can be but one at a time.
        if not turn.acquire(blocking=False):
            return Response("a case is being answered", HTTPStatus.CONFLICT)
        job: Future[HTTPStatus] = Future()
        job.add_done_callback(lambda _: turn.release())
        jobs.put(job)
        # A caller that leaves must not cancel what the main thread is at.
        waiting: asyncio.Future[HTTPStatus] = asyncio.wrap_future(job)
        return Response(status_code=await asyncio.shield(waiting))

    return app


def _next(jobs: Jobs) -> "Future[HTTPStatus] | None":
    """The next case; None when a signal ends the waiting."""
    try:
        return jobs.get()
    except Stopped:
        log.info("stopped by a signal, with no case in work")
        return None


def _run(job: Future[HTTPStatus], answer: Callable[[], None]) -> None:
    """Answer a case, and have the caller told how it ended."""
    try:
        answer()
        status = HTTPStatus.CREATED
    except Exception as error:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        line = error_line(error)
        if line is None:
            log.exception("a bug")  # its lines go to stdout
            line = " ".join(f"a bug, please report it: {type(error).__name__}: {error}".split())
        print(f"error: {line}", file=sys.stderr, flush=True)
    except BaseException:
        job.set_result(HTTPStatus.INTERNAL_SERVER_ERROR)
        raise
    job.set_result(status)
