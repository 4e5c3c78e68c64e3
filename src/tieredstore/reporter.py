"""What happens, told to whoever wants to know. Every method does nothing by default.

A user interface subclasses :class:`Reporter` and overrides what it wants to show; the library
itself never prints. Methods may be called from several threads at once.
"""

from __future__ import annotations


class Reporter:
    """Receives what an operation does; base class and silent default."""

    def hit(self, name: str, tier: str) -> None:
        """The first tier already holds the artifact."""

    def located(self, name: str, tier: str, path: str) -> None:
        """A lower tier holds the artifact, at ``path`` in that tier's own terms."""

    def started(self, verb: str, name: str, size: int) -> None:
        """``size`` bytes are about to be moved or read for ``verb``."""

    def advanced(self, size: int) -> None:
        """A further ``size`` bytes are done and verified."""

    def copied(self, file: str, source: str, target: str) -> None:
        """One file is whole in the tier ``target``, taken from the tier ``source``."""

    def finished(self, verb: str, name: str, path: str) -> None:
        """``verb`` is done; ``path`` is where the result lies."""

    def skipped(self, tier: str, why: str) -> None:
        """A tier could not serve and the operation went on without it."""

    def corrupt(self, tier: str, what: str) -> None:
        """A copy differs from its manifest; it was not served."""

    def adopted(self, name: str, tier: str) -> None:
        """Data without a manifest was accepted; its recipe is unknown."""

    def waiting(self, name: str, holder: str) -> None:
        """Somebody else works on the artifact; called again while the wait lasts."""

    def promoted(self, name: str, tier: str, action: str, detail: str) -> None:
        """``tier`` took the artifact or not: ``copied``, ``present``, ``refused`` or ``failed``."""


SILENT = Reporter()
