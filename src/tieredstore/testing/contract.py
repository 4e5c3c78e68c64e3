"""`BackendContract`: what every backend has to do, proven by what a reader finds afterwards.

A backend's tests subclass it, say how a fresh backend is made and how a file gets into its place
from outside, and declare what that place does otherwise; each declaration is checked too::

    class TestShelf(BackendContract):
        keeps_mode = False

        @pytest.fixture
        def backend(self, tmp_path):
            return ShelfBackend(tmp_path / "shelf")

        def put(self, backend, path, data):
            shelf_client.upload(path, data)

Reading is in ``reading.py``, publishing in ``publishing.py``; leases are here.
"""

from __future__ import annotations

import threading
import time

import pytest

from tieredstore.backend import Leasable, Readable
from tieredstore.errors import LeaseTimeout
from tieredstore.testing.publishing import PublishingContract


class BackendContract(PublishingContract):
    """Subclass this with a ``backend`` fixture and a `put`; see the module's text.

    Attributes
    ----------
    publishable, leasable : bool
        Whether the backend has these capabilities.
    listable : bool
        Whether the place can say what it has; where not, `list` refuses and `folders` is empty.
    keeps_case : bool
        Whether the place tells ``A`` from ``a``.
    keeps_mode, keeps_mtime : bool
        Whether a published file's mode and modification time are those of its record.
    any_order : bool
        Whether the blocks of one file may be written in any order ("random access").
    exclusive : bool
        Whether of several that publish the first head at the same instant only one can.
    refused_names : tuple of str
        Those of `ODD_NAMES` that the place cannot keep; they are refused with `InvalidName`.
    resumes : bool
        Whether a later staging of a generation knows which files an interrupted one left whole.
        Where it does not, files are written again; what that costs is the backend's to say.
    resumes_files : bool
        Whether what an aborted writer had written can be gone on with.
    """

    leasable: bool = True

    def test_leasable_as_declared(self, backend: Readable) -> None:
        assert isinstance(backend, Leasable) == self.leasable

    @pytest.fixture
    def contenders(self, backend: Readable) -> tuple[Leasable, Leasable]:
        """Two users of one place."""
        if not self.leasable:
            pytest.skip("declared: leasable = False")
        one, other = backend, self.again(backend)
        assert isinstance(one, Leasable)
        assert isinstance(other, Leasable)
        return one, other

    def test_lease_excludes_a_second_holder(self, contenders: tuple[Leasable, Leasable]) -> None:
        one, other = contenders
        since = time.monotonic()
        with one.lease("data/set.build", 5, _ignore):
            with pytest.raises(LeaseTimeout) as caught:
                with other.lease("data/set.build", 0.3, _ignore):
                    raise AssertionError("two hold one lease")
        assert 0.3 <= time.monotonic() - since < 5
        assert isinstance(caught.value, TimeoutError)

    def test_lease_is_free_after_use_and_after_an_error(
        self, contenders: tuple[Leasable, Leasable]
    ) -> None:
        one, other = contenders
        with pytest.raises(RuntimeError, match="mine"):
            with one.lease("name", 5, _ignore):
                raise RuntimeError("mine")
        with other.lease("name", 5, _ignore):
            pass
        with one.lease("name", 5, _ignore):
            pass

    def test_leases_of_different_names_do_not_meet(
        self, contenders: tuple[Leasable, Leasable]
    ) -> None:
        one, other = contenders
        with one.lease("a/b", 5, _ignore), other.lease("a_b", 5, _ignore):
            with one.lease("a/b.promote", 5, _ignore):
                pass

    def test_lease_is_handed_on_to_who_waits(self, contenders: tuple[Leasable, Leasable]) -> None:
        one, other = contenders
        order: list[str] = []
        held = threading.Event()

        def first() -> None:
            with one.lease("name", 5, _ignore):
                held.set()
                time.sleep(0.3)
                order.append("first lets go")

        thread = threading.Thread(target=first)
        thread.start()
        assert held.wait(10)
        with other.lease("name", 30, _ignore):
            order.append("second has it")
        thread.join(10)
        assert order == ["first lets go", "second has it"]

    def test_a_note_beside_a_lease_is_there_for_all_until_it_is_taken_away(
        self, contenders: tuple[Leasable, Leasable]
    ) -> None:
        one, other = contenders
        if type(one).read_note is Leasable.read_note:
            pytest.skip("keeps no notes beside leases")
        assert other.read_note("data/set.build") == b""
        for note in (b"first", b"x" * 8192, b"last"):
            one.write_note("data/set.build", note)
            assert other.read_note("data/set.build") == note
        assert other.read_note("data/set.promote") == b""
        with other.lease("data/set.build", 5, _ignore):
            assert one.read_note("data/set.build") == b"last"
        for _ in range(2):
            one.write_note("data/set.build", b"")
        assert other.read_note("data/set.build") == b""


def _ignore(holder: str) -> None:
    """Nobody is told who holds the lease."""
