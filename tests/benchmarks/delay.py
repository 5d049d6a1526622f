"""A proxy that stands for distance: `python tests/benchmarks/delay.py 1 HOST PORT` (or a socket's path).

Every byte arrives so many milliseconds later, in each direction; how many are on their way is not limited.
Prints the port of 127.0.0.1 on which it listens.
"""

import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from worker.demo import sandbox

#: When, by the monotonic clock, what is to go on; None ends it.
Parcel = tuple[float, bytes] | None


@contextmanager
def away(milliseconds: float, *target: str) -> Iterator[int]:
    """A port of 127.0.0.1 that leads to a host and port, or to a socket's path, so far away."""
    command = [sys.executable, __file__, str(milliseconds), *target]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            sandbox.stop(process, signal.SIGTERM)


def _carry(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Carry on what comes until it ends."""
    on_its_way: queue.SimpleQueue[Parcel] = queue.SimpleQueue()

    def deliver() -> None:
        with suppress(OSError):
            while parcel := on_its_way.get():
                due, data = parcel
                time.sleep(max(0.0, due - time.monotonic()))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    threading.Thread(target=deliver, daemon=True).start()
    with suppress(OSError):
        while data := source.recv(1 << 18):
            on_its_way.put((time.monotonic() + seconds, data))
    on_its_way.put(None)


def _connect(target: list[str]) -> socket.socket:
    if len(target) == 2:
        return socket.create_connection((target[0], int(target[1])))
    path = socket.socket(socket.AF_UNIX)
    path.connect(target[0])
    return path


def main() -> None:
    """Listen until somebody ends this process."""
    seconds, target = float(sys.argv[1]) / 1000, sys.argv[2:]
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)  # noqa: T201
        while True:
            client, _ = server.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            there = _connect(target)
            for one, other in ((client, there), (there, client)):
                threading.Thread(target=_carry, args=(one, other, seconds), daemon=True).start()


if __name__ == "__main__":
    main()
