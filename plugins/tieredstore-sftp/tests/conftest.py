"""A real OpenSSH server for the plugin's tests, one for each test process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tieredstore_sftp import SftpBackend

_SSHD = Path(__file__).parents[3] / "tests" / "servers" / "sshd.py"


@pytest.fixture(scope="session")
def _sshd(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("tieredstore_tests_sshd", _SSHD)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    why = module.missing()
    if why:
        pytest.skip(why)
    server = module.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.kill()


@pytest.fixture
def sshd(_sshd):
    """The server, running."""
    if _sshd.process is None:
        _sshd.start()
    return _sshd


@pytest.fixture
def connect(sshd):
    """Makes backends on a folder of this machine, through the server; closed afterwards."""
    made = []

    def backend(folder, **options):
        made.append(SftpBackend(sshd.url(folder), **{**sshd.options, **options}))
        return made[-1]

    yield backend
    for one in made:
        one.close()
