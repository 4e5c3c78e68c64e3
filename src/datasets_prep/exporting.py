"""A prepared dataset in another format, as an artifact of its own beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from datasets_prep import formats
from datasets_prep import meta as metas
from datasets_prep.console import Console
from datasets_prep.errors import OptionError
from datasets_prep.places import place_of
from datasets_prep.tokenizers import Encoded
from datasets_prep.tokens import REQUIRED
from tieredstore import ArtifactNotFound, Build, Got, NoSuchFile, Recipe, TieredStore, open_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION: Final = "1"  # changes whenever the same dataset and options give other bytes
SPLITS: Final = ("train", "val")
_CHUNK: Final = 1 << 22  # tokens that are read at once
_LONGEST: Final = 1 << 28  # tokens of a document


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What a dataset is exported to.

    Attributes
    ----------
    format : str
        ``megatron`` or ``npy``.
    data_dir : path or None
        Where the dataset was prepared; by default in the configured first tier.
    eot : int or None
        The token after which a document ends; by default what the dataset's recipe says.
    force : bool
        Write it anew even if it is there, and replace what durable tiers have.
    config : path or None
        A configuration of the tiers, see `tieredstore.open_store`.
    """

    format: str
    data_dir: str | os.PathLike[str] | None = None
    eot: int | None = None
    force: bool = False
    config: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        known = [name for name in formats.FORMATS if name != "nanogpt"]
        if self.format not in known:
            raise OptionError(f"format {self.format!r}: expected one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that is there now.

    Attributes
    ----------
    name : str
        The artifact: the dataset's name, ``-`` and the format's.
    path : Path
        The folder of its files.
    """

    name: str
    path: Path


def export(name: str, options: ExportOptions, console: Console | None = None) -> Exported:
    """Write a prepared dataset in another format.

    Parameters
    ----------
    name : str
        The dataset, which is prepared; restored where another tier has it.
    options : ExportOptions
        To what.
    console : Console, optional
        Told what happens; prints by default.

    Raises
    ------
    OptionError
        For a dataset that is nowhere, or whose documents cannot be told apart.
    PromoteFailed
        When it was written, and a durable tier could not take it.
    """
    console = console or Console()
    first = None if options.data_dir is None else place_of(options.data_dir, name).tier
    store = open_store(options.config, first=first, reporter=console)
    made = f"{name}-{options.format}"
    try:
        got = store.restore(name, REQUIRED)
    except (ArtifactNotFound, NoSuchFile) as error:
        raise OptionError(f"{error}; prepare it first: datasets-prep prepare {name}") from None
    with got:
        written = _Export(got, options)
        recipe = Recipe("export", VERSION, written.options(), {name: got.generation})
        path = _kept(store, made, written, recipe)
    console.line(f"✅ {made} is in {path}")
    return Exported(made, path)


def _kept(store: TieredStore, name: str, written: _Export, recipe: Recipe) -> Path:
    if not written.force:
        with store.ensure(name, written.write, recipe) as got:
            return got.path
    with store.create(name, recipe) as stage:
        written.write(stage)
    store.promote(name, replace=True)
    with store.restore(name, recipe=recipe) as got:
        return got.path


class _Export:
    """One export of a dataset that is here."""

    def __init__(self, got: Got, options: ExportOptions) -> None:
        self._got = got
        self._format = options.format
        self.force = options.force
        self._facts = dict(got.recipe.facts) if got.recipe else {}
        meta = metas.read(got.path) or {}
        self._type = metas.type_of(meta)
        self._eot = options.eot if options.eot is not None else self._facts.get("eot")
        if type(self._eot) is not int:
            raise OptionError(
                f"{got.name}: its documents cannot be told apart; name the token after which one "
                f"ends with --eot"
            )

    def options(self) -> dict[str, Any]:
        """What changes the files, beside the dataset."""
        return {"format": self._format, "eot": self._eot}

    def write(self, stage: Build) -> None:
        """Write the files."""
        dtype = next(name for name, kind in metas.TYPES.items() if kind == self._type)
        for split in SPLITS:
            with (
                self._got.open(f"{split}.bin") as file,
                formats.writer(self._format, stage.path, split, dtype) as writer,
            ):
                for tokens in self._whole_documents(file):
                    writer.write(Encoded(tokens, self._lengths(tokens)))
            stage.facts.update(writer.facts())
        with self._got.open(metas.META) as file:
            (stage.path / metas.META).write_bytes(file.read())
        kept = ("vocab_size", "tokenizer", "dtype", "eot")
        stage.facts.update({key: self._facts[key] for key in kept if key in self._facts})

    def _whole_documents(self, file: BinaryIO) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        """Many tokens at a time, cut where a document ends."""
        import numpy as np

        held: list[NDArray[np.unsignedinteger[Any]]] = []
        while data := file.read(_CHUNK * np.dtype(self._type).itemsize):
            new = np.frombuffer(data, self._type)
            ends = np.flatnonzero(new == self._eot)
            if len(ends):
                yield np.concatenate([*held, new[: ends[-1] + 1]])
                held, new = [], new[ends[-1] + 1 :]
            held.append(new)
            if sum(map(len, held)) > _LONGEST:
                raise OptionError(
                    f"{self._got.name}: {_LONGEST} tokens without a token {self._eot}, after "
                    f"which a document ends; name another one with --eot"
                )
        if any(map(len, held)):
            yield np.concatenate(held)

    def _lengths(self, tokens: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
        import numpy as np

        ends = np.flatnonzero(tokens == self._eot)
        if not len(ends) or ends[-1] != len(tokens) - 1:
            ends = np.append(ends, len(tokens) - 1)  # the last one has no end of its own
        return np.diff(ends, prepend=-1)
