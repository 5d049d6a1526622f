"""A server that answers everybody with one error, as PostgreSQL and its poolers do at start-up."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: What a client asks before it starts: TLS, GSSAPI.
_ASKS_FIRST = {80877103, 80877104}


@contextmanager
def refusing(code: str, message: str) -> Iterator[int]:
    """Answer every connection with this error; yields the port of 127.0.0.1."""
    fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()
    answer = b"E" + struct.pack("!i", len(fields) + 4) + fields
    with answering(answer) as port:
        yield port


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Answer every connection with these bytes, once it has said what it wants."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, answer), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, answer: bytes) -> None:
    with suppress(OSError):  # the listener is closed
        while True:
            client, _ = listener.accept()
            with suppress(OSError, struct.error), client:
                while _packet(client) in _ASKS_FIRST:
                    client.sendall(b"N")
                client.sendall(answer)


def _packet(client: socket.socket) -> int:
    """Read one packet without a type; returns its first number: what is asked for, or the protocol."""
    length, number = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
    client.recv(length - 8, socket.MSG_WAITALL)
    return int(number)
