"""Whether a folder is what a specification says, before it is published and when it is found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from datasets_prep.download.telling import Telling
from datasets_prep.errors import VerificationFailed

if TYPE_CHECKING:
    from datasets_prep.download.verification import Spec


class Verifier:
    """Compares folders with one specification, where there is one.

    Parameters
    ----------
    spec : Spec or str or None
        It, its name, or the path of its file.
    telling : Telling
        Told each line of a report.
    compares : bool
        Whether folders are compared at all.
    """

    def __init__(self, spec: Spec | str | None, telling: Telling, *, compares: bool = True) -> None:
        self._telling = telling
        self._compares = compares
        self._spec: Spec | None = None
        if spec is not None:
            from datasets_prep.download.verification import read_spec

            self._spec = read_spec(spec) if isinstance(spec, str) else spec

    @property
    def knows(self) -> bool:
        """Whether there is a specification to compare with."""
        return self._compares and self._spec is not None

    @property
    def top(self) -> Collection[str]:
        """Names that are expected at the top of a dataset."""
        return () if self._spec is None else self._spec.top

    def check(self, folder: Path, sizes: Mapping[str, int] | None = None) -> None:
        """Compare a folder, whose files and their bytes may be known already.

        Raises
        ------
        VerificationFailed
            When it is another; each problem has been told.
        """
        if self._spec is None or not self._compares:
            return
        from datasets_prep.download.verification import verify

        report = verify(folder, self._spec, self._telling.verified, sizes)
        for line in report.lines:
            self._telling.line(line)
        if not report.ok:
            raise VerificationFailed("the dataset is not what the specification says")
