"""The contract on a SQLite file: all that a backend's tests need to say."""

from __future__ import annotations

import pytest

from tieredstore.backend import ANY_HEAD
from tieredstore.testing import BackendContract
from tieredstore_example import SqliteBackend


class TestSqlite(BackendContract):
    leasable = False  # declared, and checked: it has no leases and keeps no modes or times
    keeps_mode = False
    keeps_mtime = False

    @pytest.fixture
    def backend(self, tmp_path):
        return SqliteBackend(str(tmp_path / "shelf.sqlite"))

    @pytest.fixture
    def unreachable(self, tmp_path):
        (tmp_path / "text").write_text("no database, and long enough to be taken for one\n" * 99)
        return SqliteBackend(str(tmp_path / "text"))

    def put(self, backend, path, data):
        backend.put(path, data, ANY_HEAD)

    def again(self, backend):
        return SqliteBackend(backend.place)
