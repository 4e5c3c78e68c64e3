"""Servers that the contract tests talk to, started once for each test process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_MOTO = Path(__file__).parents[1] / "servers" / "moto.py"


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    """A running moto server."""
    spec = importlib.util.spec_from_file_location("tieredstore_tests_moto", _MOTO)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    why = module.missing()
    if why:
        pytest.skip(why)
    server = module.start(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()
