"""Play the platform's part of the invoke interface: wait for /health, then POST /invoke.

Standard library only, since it runs inside the image too. Exit code 0: every call was answered as
the platform wants it.
"""

import argparse
import http.client
import sys
import time

# The platform's: one call's time, the wait after a refused call, and the time for all.
CALL_S, WAIT_S, START_S = 10, 10, 300


def main() -> int:
    """Wait for the server, have it answer its case some times, and tell status and time of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--times", type=int, default=2)
    options = parser.parse_args()
    start = time.monotonic()
    calls = wait_for_health(options.host, options.port, start)
    if calls is None:
        print(f"wrong: /health was not 200 within {START_S} s", file=sys.stderr)
        return 1
    print(f"/health: 200 after {time.monotonic() - start:.1f} s, {calls} call(s)", flush=True)
    for number in range(1, options.times + 1):
        start = time.monotonic()
        status = call("POST", "/invoke", options.host, options.port, None)
        print(f"/invoke {number}: {status} in {time.monotonic() - start:.1f} s", flush=True)
        if status != http.client.CREATED:
            print(f"wrong: /invoke: expected 201, found {status}", file=sys.stderr)
            return 1
    return 0


def wait_for_health(host: str, port: int, start: float) -> int | None:
    """The number of calls until the server is ready; None where it was not in time."""
    calls = 0
    while time.monotonic() < start + START_S:
        calls += 1
        status = call("GET", "/health", host, port, CALL_S)
        if status == http.client.OK:
            return calls
        if status is not None or calls > 1:
            time.sleep(WAIT_S)
        else:
            time.sleep(1)  # a container's network is there a moment after the container
    return None


def call(method: str, path: str, host: str, port: int, timeout_s: float | None) -> int | None:
    """The status of a call; None where nobody answered."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
