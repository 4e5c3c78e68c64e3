"""Servers that several suites share, started once for each test process; nothing else."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path

import pytest

_SERVERS = Path(__file__).parent / "servers"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs behind it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _load(name):
    spec = importlib.util.spec_from_file_location(
        f"tieredstore_tests_{name}", _SERVERS / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def load_server():
    """Load one of the modules in ``tests/servers/`` by its name."""
    return _load


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    """A running moto server."""
    module = _load("moto")
    if module.missing():
        pytest.skip(module.missing())
    server = module.start(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory):
    """A running Ceph gateway; a test that kills it starts it again."""
    module = _load("ceph")
    if module.missing():
        pytest.skip(module.missing())
    server = module.start(tmp_path_factory.mktemp("ceph") / "cluster")
    yield server
    server.stop()


@pytest.fixture
def ceph(ceph_server):
    """The gateway, answering: whatever the last test has done to it."""
    if ceph_server.processes.get("gateway") is None:
        ceph_server.start_gateway()
    return ceph_server


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory):
    """A running SLURM cluster of four nodes."""
    module = _load("slurm")
    if module.missing():
        pytest.skip(module.missing())
    cluster = module.start(tmp_path_factory.mktemp("slurm") / "c", grace=30)
    yield cluster
    cluster.stop()


@pytest.fixture
def slurm(slurm_cluster):
    """The cluster without jobs of the last test, its nodes idle."""
    slurm_cluster.clear()
    return slurm_cluster


@pytest.fixture
def make_proxy():
    """Make TCP proxies in front of a port on this machine, and end them."""
    module, made = _load("tcpfault"), []

    def make(port):
        made.append(module.FaultProxy(port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.stop()
