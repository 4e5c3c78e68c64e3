"""What the crash sweeps share: where they run, the processes that are killed, moto's S3."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECOND = 1.1  # a server tells the second alone in which a key was written: it has to be over


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", name="load")
def loading():
    """Load one of the modules beside this file."""
    return lambda name: _load(f"crash_{name}", HERE / f"{name}.py")


@pytest.fixture(scope="session")
def harness(load):
    return load("harness")


@pytest.fixture(scope="session")
def scenarios(harness, load):
    return load("scenarios").scenarios()


@pytest.fixture(scope="session")
def reading(load):
    return load("reading")


@pytest.fixture
def world():
    """A folder in memory where there is one: a sweep flushes the file system hundreds of times."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def child(harness):
    child = harness.Child()
    yield child
    child.stop()


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    module = _load("crash_moto", HERE.parent / "servers" / "moto.py")
    why = module.missing()
    if why:
        pytest.skip(why)
    server = module.start(tmp_path_factory.mktemp("moto"))
    server.make_bucket("crash")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3_child(harness, moto):
    child = harness.Child(s3=True)
    yield child
    child.stop()


@pytest.fixture
def bucket(harness, moto, request):
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=moto.url,
        region_name="us-east-1",
        aws_access_key_id=moto.options["key"],
        aws_secret_access_key=moto.options["secret"],
    )
    yield harness.Bucket(client, "crash", f"t{abs(hash(request.node.name))}", moto.options)
    client.close()


@pytest.fixture(scope="module")
def wild_child(harness):
    child = harness.Child(operations="wild.py")
    yield child
    child.stop()


@pytest.fixture(scope="module")
def wild_s3_child(harness, moto):
    with pytest.MonkeyPatch.context() as patch:
        for key, value in moto.environment.items():
            patch.setenv(key, value)
        child = harness.Child(s3=True, operations="wild.py")
    yield child
    child.stop()


class Checker:
    """The independent checker's modules, and what follows from a collection."""

    def __init__(self, load):
        self.samples, self.reading, self.promises, self.looking = map(
            load, ("samples", "reading", "promises", "looking")
        )

    @staticmethod
    @contextmanager
    def explained(where):
        """A finding names the process after which it was found."""
        try:
            yield
        except AssertionError as error:
            raise type(error)(f"{where}: {error}") from error

    def collected(self, history, promised):
        """After a collection without grace nothing is left but what is published."""
        if history.bucket is not None:
            time.sleep(SECOND)
        answer = history.order("swept", fault="none", at=0, seed="", operations=0)
        assert "error" not in answer, answer
        for tier, place in history.places(self.looking):
            with self.explained(f"history {history.number}, after gc"):
                self.looking.look(place, tier, promised)
                if tier in answer["result"]:
                    self.looking.look_after_gc(place, tier)


@pytest.fixture(scope="session")
def checker(load):
    return Checker(load)
