"""Hosts on one machine: Linux network namespaces, each with a host name of its own, on one bridge.

Made with iproute2, as root. The machine itself has an address on the bridge: what listens there is reached
from every namespace, and there is no way on.
"""

import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

#: CAP_NET_ADMIN and CAP_SYS_ADMIN, as the kernel numbers them: root in a container may have neither.
NEEDED = 1 << 12 | 1 << 21
IP = shutil.which("ip") or "/sbin/ip"


class Network(NamedTuple):
    """The machine's own address on the bridge, the network that it is in, and the namespaces by name."""

    address: str
    subnet: str
    hosts: list[str]


def lacking() -> str | None:
    """Why no namespaces can be made here, in a sentence; None: they can."""
    if sys.platform != "linux":
        return "Network namespaces are Linux's."
    missing = [program for program in ("ip", "unshare", "hostname") if not shutil.which(program)]
    if missing:
        return f"Not installed: {', '.join(missing)} (of iproute2, util-linux, hostname)."
    status = Path("/proc/self/status").read_text()
    capabilities = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    if int(capabilities, 16) & NEEDED != NEEDED:
        return "Making network namespaces needs root, with CAP_NET_ADMIN and CAP_SYS_ADMIN."
    return None


@contextmanager
def network(hosts: int) -> Iterator[Network]:
    """So many namespaces and their bridge; all is gone afterwards, also when it was made in part only."""
    # Names and addresses follow from the same two bytes: a run that drew those of another fails to make its
    # bridge, and disturbs nobody.
    drawn = secrets.token_bytes(2)
    bridge = f"notiflog-{drawn.hex()}"
    prefix = f"10.{drawn[0]}.{drawn[1]}"
    names = [f"{bridge}-{number}" for number in range(1, hosts + 1)]
    with ExitStack() as undo:
        _ip("link", "add", bridge, "type", "bridge")
        undo.callback(_ip, "link", "delete", bridge)
        _ip("address", "add", f"{prefix}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(names, 1):
            end = f"nl-{drawn.hex()}-{number}"  # 15 characters are the most that Linux takes
            _ip("netns", "add", name)
            undo.callback(_ip, "netns", "delete", name)
            _ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", name)
            undo.callback(_ip, "link", "delete", end)
            _ip("link", "set", end, "master", bridge, "up")
            _ip("-netns", name, "address", "add", f"{prefix}.{number + 1}/24", "dev", "eth0")
            _ip("-netns", name, "link", "set", "eth0", "up")
            _ip("-netns", name, "link", "set", "lo", "up")
        yield Network(f"{prefix}.1", f"{prefix}.0/24", names)


def on(host: str, *command: str) -> list[str]:
    """The command that runs another in a namespace and under its name, in the same process."""
    named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]
    return [IP, "netns", "exec", host, *named, *command]


def spread(processes: int, hosts: Sequence[str]) -> list[str]:
    """The host of each process: evenly, so that no host has two more than another."""
    return [hosts[number % len(hosts)] for number in range(processes)]


def _ip(*words: str) -> None:
    done = subprocess.run([IP, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")
