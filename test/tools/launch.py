"""Run an entry point under the platform's own launcher, `sagemaker-shim`, as it is published.

Everything is the launcher's own, but for the storage that it fetches inputs from and brings outputs
to: that is a folder. It runs in the environment of requirements-platform.txt (Python 3.12). A plan
goes in as JSON on stdin, and what the launcher reports comes out as JSON on stdout:

{"api": "exec" or "invoke", "entrypoint": ["python", ...], "port": 4743, "work": FOLDER,
 "health_call_s": 10, "start_s": 300,
 "tasks": [{"pk": NAME, "inputs": FOLDER, "timeout_s": 60, "cancel_after_s": null}]}

In WORK the entry point finds `input` and has to write to `output`; the launcher brings what it took
from there to `storage/<pk>`.
"""

import asyncio
import base64
import json
import logging
import os
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any


class Folder:
    """A stand-in for the client of the platform's storage, whose keys are paths below a folder."""

    def __init__(self, root: Path) -> None:
        """Keep everything below `root`."""
        self.root = root

    async def download_file(self, *, Bucket: str, Key: str, Filename: Path) -> None:  # noqa: N803
        """Copy a stored file to where the launcher wants it."""
        shutil.copyfile(self.root / Bucket / Key, Filename)

    async def upload_file(self, *, Filename: str, Bucket: str, Key: str) -> None:  # noqa: N803
        """Store a file that the entry point wrote."""
        self._make_place(Bucket, Key)
        shutil.copyfile(Filename, self.root / Bucket / Key)

    async def upload_fileobj(
        self,
        *,
        Fileobj: Any,  # noqa: N803
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        ExtraArgs: object,  # noqa: N803
    ) -> None:
        """Store what the launcher itself reports."""
        self._make_place(Bucket, Key)
        (self.root / Bucket / Key).write_bytes(Fileobj.read())

    def _make_place(self, bucket: str, key: str) -> None:
        (self.root / bucket / key).parent.mkdir(parents=True, exist_ok=True)


def set_environment(plan: dict[str, Any], work: Path) -> None:
    """Tell the launcher by its own variables where everything is."""
    entry_point = base64.b64encode(json.dumps(plan["entrypoint"]).encode()).decode()
    for name, value in {
        "API_METHOD": plan["api"],
        "ENTRYPOINT_B64J": entry_point,
        "USER_WEBSERVER_PORT": plan["port"],
        "HEALTH_CHECK_CALL_TIMEOUT_SECONDS": plan["health_call_s"],
        "START_AND_HEALTH_TIMEOUT_SECONDS": plan["start_s"],
        "INPUT_PATH": work / "input",
        "LINKED_INPUT_PARENT": work / "linked",
        "OUTPUT_PATH": work / "output",
        "SET_EXTRA_GROUPS": "False",  # needs root
    }.items():
        os.environ[f"GRAND_CHALLENGE_COMPONENT_{name}"] = str(value)


async def run_task(task: dict[str, Any], storage: Path, process: Any, resources: Any) -> Any:
    """Have the launcher run one case, or cancel it on the way."""
    from sagemaker_shim.models import InferenceIO, InferenceTask

    source = storage / "given" / task["pk"]
    shutil.copytree(task["inputs"], source)
    inputs = [
        InferenceIO(
            relative_path=path.relative_to(source),
            bucket_name="given",
            bucket_key=str(path.relative_to(storage / "given")),
        )
        for path in source.rglob("*")
        if path.is_file()
    ]
    inference = InferenceTask(
        pk=task["pk"],
        inputs=inputs,
        output_bucket_name="storage",
        output_prefix=task["pk"],
        timeout=timedelta(seconds=task["timeout_s"]),
    )
    running = asyncio.create_task(
        inference.run_inference(user_process=process, s3_resources=resources)
    )
    began = time.monotonic()
    if task["cancel_after_s"] is not None:
        await asyncio.sleep(task["cancel_after_s"])
        began = time.monotonic()
        running.cancel()
    try:
        report = (await running).model_dump(mode="json")
    except asyncio.CancelledError:
        report = {"cancelled": True}
    return report | {"seconds": time.monotonic() - began}


async def run(plan: dict[str, Any], work: Path) -> dict[str, Any]:
    """Start the entry point as the launcher does, run all tasks, and take it down."""
    from sagemaker_shim.exceptions import UserSafeError
    from sagemaker_shim.models import S3Resources, UserProcess

    resources = S3Resources(semaphore=asyncio.Semaphore(4), client=Folder(work))
    process = UserProcess()
    reports: list[Any] = []
    began = time.monotonic()
    try:
        await process.setup()
    except UserSafeError as error:
        return {"setup": str(error), "stderr": list(process.last_stderr_lines)}
    setup_s = time.monotonic() - began
    try:
        for task in plan["tasks"]:
            reports.append(await run_task(task, work, process, resources))
    finally:
        began = time.monotonic()
        await process.teardown()
    code = None if process._process is None else process.process.returncode
    return {
        "tasks": reports,
        "healthy": process.healthy,
        "setup_s": setup_s,
        "teardown_s": time.monotonic() - began,
        "returncode": code,
        "stderr": list(process.last_stderr_lines),
    }


def main() -> None:
    """Run the plan on stdin; what the entry point and the launcher log goes to stderr."""
    logging.basicConfig(stream=sys.stderr, level="INFO", format="%(name)s: %(message)s")
    plan = json.load(sys.stdin)
    work = Path(plan["work"])
    (work / "output").mkdir(parents=True)
    set_environment(plan, work)
    print(json.dumps(asyncio.run(run(plan, work))))


if __name__ == "__main__":
    main()
