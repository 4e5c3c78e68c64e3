"""The contract on mounted places: a local folder, a RunPod volume and shared scratch."""

from __future__ import annotations

import os
import time

import pytest

from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.backends.scratch import ScratchBackend
from tieredstore.testing import BackendContract
from tieredstore.testing.samples import Sample, publish


class Mounted(BackendContract):
    any_order = True
    resumes_files = True
    kind: type[LocalBackend]

    @pytest.fixture
    def backend(self, tmp_path):
        return self.kind(str(tmp_path / "root"))

    @pytest.fixture
    def unreachable(self, tmp_path):
        (tmp_path / "file").write_bytes(b"no folder")
        return self.kind(str(tmp_path / "file"))

    def put(self, backend, path, data):
        target = os.path.join(backend.place, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(data)
        os.utime(target, ns=(time.time_ns(), time.time_ns()))

    def again(self, backend):
        return type(backend)(backend.place)


class TestLocal(Mounted):
    kind = LocalBackend


class TestRunPod(Mounted):
    kind = RunPodBackend

    @pytest.fixture
    def backend(self, tmp_path):
        (tmp_path / "root").mkdir()  # mounted; nothing is ever made in its place
        return self.kind(str(tmp_path / "root"))

    def test_a_volume_that_is_not_mounted_is_never_made(self, tmp_path):
        backend = self.kind(str(tmp_path / "absent"))
        with pytest.raises(FileNotFoundError, match="is the volume mounted"):
            publish(backend, "name", Sample.of({"a": b"1"}))
        assert backend.read_head("name") is None
        assert not (tmp_path / "absent").exists()


class TestScratch(Mounted):
    kind = ScratchBackend
    keeps_mode = False  # the umask says what the group may do
