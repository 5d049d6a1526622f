"""Hosts on one machine: evenly filled, apart from each other, and gone afterwards."""

import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks.namespaces import lacking, network, on, spread

made = pytest.mark.skipif(bool(lacking()), reason=str(lacking()))

#: Says its host's name, and the addresses of both ends of a connection.
CALL = """
import socket, sys
with socket.create_connection((sys.argv[1], sys.argv[2]), timeout=5) as there:
    print(socket.gethostname(), there.getsockname()[0])
"""


@pytest.mark.parametrize(
    ("processes", "filled"), [(1, {"a": 1}), (4, {"a": 2, "b": 1, "c": 1}), (8, {"a": 3, "b": 3, "c": 2})]
)
def test_processes_are_spread_evenly(processes: int, filled: dict[str, int]) -> None:
    assert Counter(spread(processes, ["a", "b", "c"])) == filled


@made
def test_each_host_has_its_own_name_and_address_and_reaches_the_machine() -> None:
    with network(2) as net, socket.create_server((net.address, 0)) as server:
        call = [sys.executable, "-c", CALL, net.address, str(server.getsockname()[1])]
        said = [subprocess.check_output(on(host, *call), text=True).split() for host in net.hosts]
    prefix = net.address.removesuffix("1")
    assert said == [[net.hosts[0], f"{prefix}2"], [net.hosts[1], f"{prefix}3"]]


@made
def test_nothing_is_left_behind_after_a_fault() -> None:
    with pytest.raises(KeyError), network(2) as net:
        raise KeyError
    drawn = net.hosts[0].split("-")[1]
    left = [*Path("/sys/class/net").glob(f"*{drawn}*"), *Path("/run/netns").glob(f"*{drawn}*")]
    assert (len(drawn), left) == (4, [])
