"""The contract on an OpenSSH server."""

from __future__ import annotations

import pytest

from tieredstore.testing import BackendContract


class TestSftp(BackendContract):
    leasable = False
    keeps_mode = False
    keeps_mtime = False

    @pytest.fixture
    def backend(self, connect, tmp_path):
        self.folder, self.connect = tmp_path / "served", connect
        return connect(self.folder)

    @pytest.fixture
    def unreachable(self, connect, sshd, tmp_path):
        sshd.kill()
        return connect(tmp_path)

    def put(self, backend, path, data):
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def again(self, backend):
        return self.connect(self.folder)
