"""A Ray cluster: the connection to it, and what its nodes have."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

from xpo_bench.errors import UsageError
from xpo_bench.runner.devices import Devices, cores

REACH_S = 5.0
"""Seconds in which the head of a cluster answers."""
KINDS = ("CPU", "GPU")


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process is connected to.

    Args:
        address: as it was asked for.
    """

    address: str

    def nodes(self) -> list[dict[str, float]]:
        """CPUs and GPUs of each node that is there."""
        import ray

        return [
            {kind: node["Resources"].get(kind, 0.0) for kind in KINDS}
            for node in ray.nodes()
            if node["Alive"]
        ]

    def devices(self) -> Devices:
        """CPUs and GPUs of all nodes, which have no numbers: Ray gives a cell its own."""
        return Devices(sum(int(node["GPU"]) for node in self.nodes()), False, self.described())

    def room(self, need: Mapping[str, float]) -> int:
        """How many cells that need these resources of one node fit on all nodes together.

        Raises:
            UsageError: no node has them, and Ray would wait without end.
        """
        fitting = [min(int(node[kind] / amount) for kind, amount in need.items()) for node in self.nodes()]
        if not sum(fitting):
            asked = " and ".join(counted(amount, kind) for kind, amount in need.items())
            raise UsageError(
                f"--executor ray: a cell takes {asked} of one node, and no node has that; {self.described()}"
            )
        return sum(fitting)

    def check(self, device: str, processes: int) -> None:
        """Refuse cells that no node can run."""
        self.room(need_of(device, processes))

    def described(self) -> str:
        """What the cluster has, in words."""
        nodes = self.nodes()
        largest = max(nodes, key=lambda node: (node["GPU"], node["CPU"]), default=dict.fromkeys(KINDS, 0.0))
        total = " and ".join(counted(sum(node[kind] for node in nodes), kind) for kind in KINDS)
        most = " and ".join(counted(largest[kind], kind) for kind in KINDS)
        size = f"{total} on {counted(len(nodes), 'node')}, the largest of which has {most}"
        return f"the cluster at {self.address} has {size}"


def counted(amount: float, kind: str) -> str:
    return f"{amount:g} {kind}{'' if amount == 1 else 's'}"


def need_of(device: str, processes: int) -> dict[str, float]:
    """What of a node a cell takes that several processes train."""
    return {"CPU": 1.0, "GPU": float(processes)} if device.startswith("cuda") else {"CPU": float(processes)}


def imported() -> ModuleType:
    """Ray, which is imported only when it is asked for.

    Raises:
        UsageError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # what will be Ray's default: without it Ray warns on every machine that has no GPU
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"--executor ray: Ray cannot be imported ({error}); `pip install 'xpo-bench[ray]'` brings it"
        ) from None
    module: ModuleType = ray
    return module


@contextlib.contextmanager
def connected(address: str, workers: int) -> Iterator[Cluster]:
    """A connection to the cluster at an address, and none afterwards; one that is there already is used, and
    stays.

    Args:
        address: `auto`, `local` for a cluster of this machine's own that ends with the connection, or
            HOST:PORT.
        workers: cells at a time, for which `local` has a CPU each.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
    """
    if "://" in address:
        raise UsageError(
            f"--address {address}: give auto, local or HOST:PORT; "
            "Ray's client protocol does not carry streams"
        )
    if address == "local":
        _lock()
    ray = imported()
    if ray.is_initialized():
        yield Cluster(address)
        return
    words: dict[str, object] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        words |= {"include_dashboard": False, "num_cpus": max(workers, cores())}
    elif address != "auto":
        _reach(address)
    try:
        with _handlers():
            try:
                ray.init(**words)
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                reason = (str(error).splitlines() or ["no answer"])[0].rstrip(".")
                raise UsageError(
                    f"--address {address}: no Ray cluster to connect to ({reason}); "
                    "`ray start --head` begins one, --address local one of this machine's own; "
                    "one with a token needs RAY_AUTH_MODE=token here too"
                ) from error
        yield Cluster(address)
    finally:
        with _handlers():
            ray.shutdown()


def _lock() -> None:
    """Have a cluster of this machine's own obey nobody else, although it listens on every interface.

    Ray reads these once, when it is imported: they stay as long as this process, whose next cluster has the
    same token.
    """
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _reach(address: str) -> None:
    """Refuse an address that does not answer: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--address {address}: give auto, local or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: nothing answers there ({error})") from None


@contextlib.contextmanager
def _handlers() -> Iterator[None]:
    """Ray sets handlers of signals; those of the command stay."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
