"""Run a command and say how long it took and how much memory its largest process held.

Standard library only, since it runs inside the image too. It ends with the command's own exit code.
"""

import argparse
import resource
import signal
import subprocess
import sys
import time


def main() -> int:
    """Run the command after `--`, and print time and peak memory when it has ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="+")
    command: list[str] = parser.parse_args().command
    start = time.monotonic()
    with subprocess.Popen(command) as process:
        # As the container's first process it is the one that is told to end.
        signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        exit_code = process.wait()
    seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, cpu_s = used.ru_maxrss, used.ru_utime + used.ru_stime
    peak_gib = peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # Linux counts in KiB
    print(
        f"time {seconds:.1f} s, CPU time {cpu_s:.1f} s, peak memory {peak_gib:.2f} GiB, "
        f"exit code {exit_code}",
        flush=True,
    )
    return exit_code if exit_code >= 0 else 128 - exit_code  # a signal, as a shell tells it


if __name__ == "__main__":
    sys.exit(main())
