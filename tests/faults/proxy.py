"""A proxy in front of a PostgreSQL server that loses a COMMIT, or the reply to one."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Literal


class Proxy:
    """Passes every byte between clients of a TCP port and a server's Unix socket, until told to lose some."""

    def __init__(self, listener: socket.socket, server: Path) -> None:
        self._listener = listener
        self._server = server
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._next: Literal["COMMIT", "reply"] | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def lose(self, what: Literal["COMMIT", "reply"]) -> None:
        """Cut the connection that sends the next COMMIT after an insert.

        `COMMIT`: before it reaches the server, which keeps its end of the connection open, as when a host
        vanishes. `reply`: once the server has answered, before the client hears it.
        """
        self._next = what

    def serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                self._sockets += [client, server]
                Thread(target=self._carry, args=(client, server), daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        deaf = Event()  # the client shall hear nothing more
        Thread(target=self._answer, args=(client, server, deaf), daemon=True).start()
        with suppress(OSError):
            wrote = False
            while data := client.recv(1 << 16):
                wrote = wrote or b"insert into" in data
                lost = self._due(data) if wrote else None
                if lost == "COMMIT":
                    client.shutdown(socket.SHUT_RDWR)
                    return
                if lost == "reply":
                    deaf.set()
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket, deaf: Event) -> None:
        with suppress(OSError):
            while (data := server.recv(1 << 16)) and not deaf.is_set():
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _due(self, data: bytes) -> str | None:
        with self._lock:
            if self._next is None or b"COMMIT" not in data:
                return None
            due, self._next = self._next, None
            return due


@contextmanager
def proxy(server: Path) -> Iterator[Proxy]:
    """Run a proxy to the Unix socket `server`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Proxy(listener, server)
        thread = Thread(target=running.serve, daemon=True)
        thread.start()
        yield running
        running.close()
        thread.join(5)
