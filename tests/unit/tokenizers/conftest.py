"""The engines and the strange texts that these tests share; nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def engines():
    """The module beside this one."""
    name = "tieredstore_tests_engines"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "engines.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
