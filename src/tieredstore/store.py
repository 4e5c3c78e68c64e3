"""`TieredStore`: named artifacts on a chain of tiers. The verbs; how each works lies beside it.

Here are those that find, bring up and make artifacts; those that keep them are in ``keeping.py``,
those that let promotes wait in ``queueing.py``.
Restoring is in ``restoring.py``, building in ``building.py``, ensuring in ``ensuring.py``,
composing in ``composing.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from tieredstore.manifest.artifact import Recipe
from tieredstore.manifest.names import check_file, check_name
from tieredstore.queueing import Queueing
from tieredstore.tiers.got import Got
from tieredstore.tiers.tier import Located
from tieredstore.verbs.building import Build
from tieredstore.verbs.composing import Composition, PartLike
from tieredstore.verbs.ensuring import Ensuring, claimed
from tieredstore.verbs.filling import Filling
from tieredstore.verbs.recording import SharedRecord
from tieredstore.verbs.restoring import restore
from tieredstore.verbs.status import Survey
from tieredstore.verbs.stream import open_verified
from tieredstore.verbs.unmanaged import AS_IT_IS, Adoption

RecipeLike = Recipe | Mapping[str, Any] | None


class TieredStore(Queueing):
    """Artifacts on a chain of tiers, the first of which is the one that work reads from.

    Parameters
    ----------
    tiers : sequence of Tier
        In the order of the chain; the first is a mounted place.
    reporter : Reporter, optional
        Told what happens; silent by default.

    Raises
    ------
    ConfigError
        When there is no tier, two have one name, or the first is no folder.
    """

    # -- find -----------------------------------------------------------------------------------

    def locate(self, name: str, files: Sequence[str] | None = None) -> list[Located]:
        """What each tier has of an artifact, in the order of the chain."""
        check_name(name)
        return self._chain.locate(name, files)

    def names(self) -> list[str]:
        """All artifacts that some tier has a head of; a tier that fails is skipped and reported."""
        return Survey(self.tiers, self.reporter).names

    def status(self) -> dict[str, list[Located]]:
        """`locate` for every artifact that is known anywhere."""
        survey = Survey(self.tiers, self.reporter)
        return {name: survey.locate(name) for name in survey.names}

    # -- bring up -------------------------------------------------------------------------------

    def restore(
        self,
        name: str,
        files: Sequence[str] | None = None,
        recipe: RecipeLike = None,
        adoption: Adoption | None = None,
    ) -> Got:
        """Bring an artifact, or some of its files, up to the first tier.

        Parameters
        ----------
        name : str
            The artifact.
        files : sequence of str, optional
            Only these; all by default.
        recipe : Recipe or mapping, optional
            What it must have been made from; another recipe is not a hit.
        adoption : Adoption, optional
            What is done with data that has no manifest while it is brought up, as that of
            `SourceFiles.tier` has none.

        Raises
        ------
        ArtifactNotFound
            When no tier can serve it; the message says what each tier answered.
        """
        check_name(name)
        wanted = None if files is None else [check_file(f) for f in files]
        return restore(self._chain, name, wanted, Recipe.of(recipe), adoption or AS_IT_IS)

    def open_stream(self, name: str, file: str) -> BinaryIO:
        """Open one file for reading from start to end, each block verified before it is handed on.

        Nothing is stored in the first tier. A copy that fails half-way is left for the next one.

        Raises
        ------
        ArtifactNotFound
            When no tier has it.
        """
        check_name(name)
        check_file(file)
        return open_verified(self._chain, name, file)

    # -- make -----------------------------------------------------------------------------------

    def create(self, name: str, recipe: RecipeLike = None) -> Build:
        """Stage a new generation in the first tier, to be used in a ``with`` statement.

        The block writes its files below ``stage.path``; they are published as a whole when it
        ends, and discarded when it raises. An artifact of that name is replaced.

        Raises
        ------
        ArtifactExists
            When the name lies inside another artifact's, or holds one.
        """
        self._chain.first.check_free(name)
        return Build(self._chain, name, Recipe.of(recipe), kind="folder")

    def create_file(self, name: str, recipe: RecipeLike = None) -> Build:
        """Like `create`, for an artifact that is a single file; write to ``stage.file``."""
        self._chain.first.check_free(name)
        return Build(self._chain, name, Recipe.of(recipe), kind="file")

    def fill(self, name: str, required: Sequence[str], recipe: RecipeLike = None) -> Filling:
        """Put an artifact's files in one by one, each visible at once under its own path.

        To readers of the store the artifact is absent until all ``required`` files are there.
        """
        self._chain.first.check_free(name)
        return Filling(self._chain, name, [check_file(f) for f in required], Recipe.of(recipe))

    def compose(
        self,
        name: str,
        parts: Sequence[PartLike],
        recipe: RecipeLike = None,
        tier: str | None = None,
        *,
        replace: bool = False,
    ) -> Located:
        """Publish files of artifacts, one after the other, as an artifact that is a single file.

        No digest is computed anew: the file's block table is its parts' tables joined. In S3 the
        server copies what it can, and few bytes or none pass this machine; `verify` reads what was
        copied there. Everywhere else the parts are read from that tier and written to it, each
        block verified.

        Parameters
        ----------
        name : str
            The artifact, named like its file: ``corpus/merged.bin``.
        parts : sequence of str or (str, str)
            In order: ``(artifact, file)``, or the artifact alone where it has one file. Plain
            pairs, because that is what lists of outputs are made of; one file may come twice.
        recipe : Recipe or mapping, optional
            What it is made from.
        tier : str, optional
            The tier that the parts lie in and the file is put together in. By default the first
            one, to which parts are restored where they are missing.
        replace : bool
            Replace the artifact in a lower tier even when another recipe made it; in the first
            tier an artifact of that name is always replaced.

        Returns
        -------
        Located
            What that tier has now.

        Raises
        ------
        ArtifactNotFound, NoSuchFile
            When a part is not in that tier, or is there as another generation than in a tier
            before it; nothing has been touched.
        RecipeConflict
            When the tier holds the artifact made by another recipe.
        CorruptData
            When a part's copy is damaged.
        """
        check_name(name)
        if tier is None or tier == self.tiers[0].name:
            self._chain.first.check_free(name)
        composition = Composition(self._chain, name, tier, replace=replace)
        return composition.run(parts, Recipe.of(recipe))

    def record(self, name: str, tier: str | None = None) -> SharedRecord:
        """A small JSON value that many processes on many nodes change, such as a plan.

        Parameters
        ----------
        name : str
            Such as ``phase1_0/plan.json``; neither an artifact's nor inside one.
        tier : str, optional
            Where it lies: by default the farthest tier that can keep records, which is the one
            that all nodes share.

        Raises
        ------
        ArtifactExists
            When the name lies inside an artifact's, or holds one.
        Unsupported
            When that tier cannot keep records, or is read-only.
        """
        return SharedRecord(self._chain, name, tier)

    def ensure(
        self,
        name: str,
        build: Callable[[Build], object],
        recipe: RecipeLike = None,
        files: Sequence[str] | None = None,
        retry: int = 0,
    ) -> Got:
        """Restore an artifact, or else build it exactly once and promote it.

        Of all processes and nodes that ask for it at once, one builds; the others wait and take
        its result. When the one that builds dies, one of those who wait goes on, in a stage of
        its own: a stage is never taken over. So a long build resumes by the artifacts that it has
        published already: make each step an artifact, and ensure those first. When the build
        raises, all who wait for it raise `BuildFailed`; a call that begins later tries again.

        Parameters
        ----------
        name : str
            The artifact.
        build : callable
            Called with the stage to write to. It may say how far it is: ``stage.progress``.
        recipe : Recipe or mapping, optional
            What it is made from.
        files : sequence of str, optional
            The files that are needed; all by default.
        retry : int
            How many failures of others this call passes over while it waits; then it may build
            itself. Of many who wait together there are ``retry + 1`` attempts at most.

        Raises
        ------
        BuildFailed
            When another process's attempt, which this call waited for, failed.
        PromoteFailed
            When it was built and a durable tier could not take it. The first tier has it whole;
            `queue_promote` lets it wait.
        """
        check_name(name)
        wanted = None if files is None else [check_file(f) for f in files]
        return Ensuring(self._chain, name, wanted, Recipe.of(recipe), retry).run(build)

    def claim(self, name: str) -> AbstractContextManager[bool]:
        """Hold the leases under which `ensure` builds an artifact, unless somebody else does.

        For schedulers that have other work to do meanwhile: nothing is waited for. Leases save
        work and never give correctness; a tier whose leases cannot be had counts as free.

        Returns
        -------
        context manager of bool
            Whether they are held here, until its block ends.
        """
        return claimed(self._chain, check_name(name))
