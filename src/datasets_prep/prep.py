"""`DataPrep`: the facade that training repos call. Inside, nothing but the store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_prep import meta as metas
from datasets_prep.console import Console
from datasets_prep.places import place_of
from datasets_prep.tokenizers import GPT2_VOCAB, gpt2_encoding
from datasets_prep.tokens import REQUIRED, TokenFile, token_counts
from tieredstore import (
    ArtifactNotFound,
    Filling,
    Located,
    NoSuchFile,
    PromoteFailed,
    TieredStore,
    open_store,
)


class DataPrep:
    """One dataset, prepared file by file, each file kept in durable storage as it is written.

    Parameters
    ----------
    data_dir : path
        The folder to work in, made at once; files lie in ``data_dir/dataset_name``.
    dataset_name : str, optional
        The dataset; without one the files lie in ``data_dir`` itself, which gives its name.
    config : path or mapping, optional
        The lower tiers, see `tieredstore.open_store`.
    console : Console, optional
        Told what happens; prints by default.

    Attributes
    ----------
    data_dir : Path
        Where the files lie.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        dataset_name: str | None = None,
        *,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        console: Console | None = None,
    ) -> None:
        place = place_of(data_dir, dataset_name)
        self._name = place.name
        self._console = console or Console()
        self._store: TieredStore = open_store(config, first=place.tier, reporter=self._console)
        self._required: tuple[str, ...] = REQUIRED
        self._filling: Filling | None = None
        self._dtype: str | None = None
        self.dataset_name = dataset_name
        self.data_dir = place.folder
        self.data_dir.mkdir(parents=True, exist_ok=True)

    # -- what is there --------------------------------------------------------------------------

    def check_existing_files(self, required_files: Sequence[str] | None = None) -> bool:
        """Whether all required files are here, or could be restored, all or none.

        Parameters
        ----------
        required_files : sequence of str, optional
            ``train.bin``, ``val.bin`` and ``meta.pkl`` by default; they also say when files that
            are written from now on make the dataset whole.
        """
        self._required = REQUIRED if required_files is None else tuple(required_files)
        where = self._available(self._required)
        if where == self._store.tiers[0].name:
            self._console.found_locally()
        return bool(where)

    def get_existing_token_counts(self) -> tuple[int, int] | None:
        """Tokens of ``train.bin`` and ``val.bin``, restored where needed; ``None`` without them.

        Raises
        ------
        MetaError
            When ``meta.pkl`` has to be asked and cannot be believed.
        """
        if not self._available(("train.bin", "val.bin")):
            return None
        here = self._store.tiers[0].locate(self._name, ("train.bin", "val.bin"))
        by_hand = here.recipe is None or self._rewritten(here, ("train.bin", "val.bin"))
        facts = {} if by_hand or here.recipe is None else here.recipe.facts
        counts = token_counts(self.data_dir, facts)
        self._console.using_existing(*counts)
        return counts

    def _available(self, files: Sequence[str]) -> str:
        """The tier that the files came from, now that they are here; empty: from none."""
        self._settle()
        first = self._store.tiers[0]
        here = first.locate(self._name, files)
        own = Path(first.backend.place, here.folder) == self.data_dir
        if own and (here.state == "unmanaged" or self._rewritten(here, files)):
            return first.name  # left as it is: its owner writes to it by hand
        try:
            got = self._store.restore(self._name, files)
        except (ArtifactNotFound, NoSuchFile):
            return ""
        got.close()
        if got.path != self.data_dir:
            self._bring_in(got.path, files)
        return got.source

    def _rewritten(self, here: Located, files: Sequence[str]) -> bool:
        """Whether all files are here and some were written by hand after their manifest.

        Nothing that may be the only copy of somebody's work is restored over.
        """
        if here.head is None:
            return False
        with suppress(NoSuchFile):
            try:
                TieredStore([here.tier]).restore(self._name, files).close()
            except ArtifactNotFound:
                with suppress(FileNotFoundError):
                    times = [(self.data_dir / f).stat().st_mtime for f in files]
                    return max(times) > here.head.created
        return False

    def _bring_in(self, old: Path, files: Sequence[str]) -> None:
        """Copy files from where older versions kept them to where they belong."""
        for file in files:
            target = self.data_dir / file
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                shutil.copy2(old / file, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    # -- tokens ---------------------------------------------------------------------------------

    def validate_subset(self, subset: float) -> float:
        """The nearest share from 0 to 1."""
        return max(0.0, min(1.0, float(subset)))

    def tokenize_text(self, text: str, add_eot: bool = True) -> list[int]:
        """GPT-2 token ids of a text, with the end-of-text token after them unless told otherwise.

        Raises
        ------
        VocabularyUnavailable
            When the vocabulary cannot be loaded.
        """
        encoding = gpt2_encoding()
        ids: list[int] = encoding.encode_ordinary(text)
        return [*ids, int(encoding.eot_token)] if add_eot else ids

    def create_tokenization_function(
        self, text_column: str = "text"
    ) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """A function for a dataset's ``map``: a row to its ``ids`` and their number, ``len``."""
        return TokenizeRow(text_column)

    # -- writing --------------------------------------------------------------------------------

    def write_binary_file(
        self,
        token_data: Any,
        split_name: str,
        batch_size: int = 1024,
        *,
        dtype: str | None = None,
    ) -> int:
        """Write one split, visible at once here and in durable mounted tiers.

        Parameters
        ----------
        token_data : numpy.ndarray or dataset
            Tokens, or rows with the columns ``ids`` and ``len``. Unsigned arrays are stored as
            they are, anything else as uint16 (uint32 where a token needs it).
        split_name : str
            ``train`` gives ``train.bin``.
        batch_size : int
            Rows of a dataset that are read at once.
        dtype : str, optional
            ``uint8``, ``uint16`` or ``uint32``, the same for every split.

        Returns
        -------
        int
            Tokens written.

        Raises
        ------
        OptionError
            For tokens that their type, or that of the dataset's other split, cannot hold.
        """
        tokens = TokenFile(dtype or self._dtype)
        file = f"{split_name}.bin"
        temporary = self._fill().temporary(file)
        try:
            with temporary.open("wb") as target:
                tokens.write(token_data, target, batch_size)
            self._dtype = tokens.dtype
            self._put(file, temporary)
        finally:
            temporary.unlink(missing_ok=True)
        return tokens.count

    def save_meta(
        self, vocab_size: int = GPT2_VOCAB, tokenizer: str = "gpt2", **further: Any
    ) -> None:
        """Write ``meta.pkl``, which says how the tokens are to be read."""
        meta: dict[str, Any] = {"vocab_size": vocab_size, "tokenizer": tokenizer, **further}
        if self._dtype is not None and metas.TYPES[self._dtype] != metas.type_of(meta):
            meta["dtype"] = self._dtype
        temporary = self._fill().temporary(metas.META)
        try:
            temporary.write_bytes(metas.dumps(meta))
            self._put(metas.META, temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def print_completion(self, name: str, train_tokens: int, val_tokens: int) -> None:
        """Say that the dataset is prepared."""
        self._settle()
        self._console.completion(name, train_tokens, val_tokens)

    def _fill(self) -> Filling:
        if self._filling is None or self._filling.complete:
            self._filling = self._store.fill(self._name, self._required)
        return self._filling

    def _put(self, file: str, written: Path) -> None:
        filling = self._fill()
        first = self._store.tiers[0].name
        try:
            places = filling.put(file, written)
        except PromoteFailed as error:
            self._console.not_saved(error)  # it is whole here
            return
        for tier, path in places.items():
            if tier != first:
                self._console.file_saved(file, tier, path)
                self._console.saved[tier] = path.removesuffix(file).rstrip("/")
        if filling.complete:
            self._dtype = None

    def _settle(self) -> None:
        """Files that were written by hand beside those put in make the dataset whole too."""
        filling = self._filling
        if filling is None or filling.complete:
            filling = self._store.fill(self._name, self._required)
        try:
            filling.settle(self._required)
        except PromoteFailed as error:
            self._console.not_saved(error)


@dataclass(frozen=True, slots=True)
class TokenizeRow:
    """A row's text to GPT-2 tokens; can be sent to other processes."""

    text_column: str

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        encoding = gpt2_encoding()
        ids = [*encoding.encode_ordinary(row[self.text_column]), int(encoding.eot_token)]
        return {"ids": ids, "len": len(ids)}
