"""The contract of a preparer, and preparers by name; each dataset is a file of its own beside this.

Others join through the entry-point group ``datasets_prep.preparers`` and are loaded one at a time.
The built-in ones are known here too: they need no distribution's metadata to be read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from datasets_prep.errors import OptionError, UnknownDataset, reason
from datasets_prep.preparers.corpus import Corpus

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from datasets_prep.sources import Source

GROUP: Final = "datasets_prep.preparers"
BUILT_IN: Final = {
    "shakespeare": "datasets_prep.preparers.shakespeare:Shakespeare",
    "pydoc_topics": "datasets_prep.preparers.pydoc_topics:PydocTopics",
    "openwebtext": "datasets_prep.preparers.openwebtext:OpenWebText",
    "proofpile": "datasets_prep.preparers.proofpile:ProofPile",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen of a preparer's options.

    Attributes
    ----------
    tokenizer : str
        One of its tokenizers.
    subset : float
        Which share of each split, from 0 (excluded) to 1.
    num_proc : int
        Processes that may work at once; results do not depend on it.
    """

    tokenizer: str
    subset: float = 1.0
    num_proc: int = 1


class Preparer(ABC):
    """How one dataset is made.

    Attributes
    ----------
    name, title : str
        The artifact's name, and how people call it.
    version : str
        Changes whenever the same input and options give other bytes.
    tokenizers : tuple of str
        Those it can use, the usual one first.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str] = "1"
    tokenizers: ClassVar[tuple[str, ...]]

    @abstractmethod
    def source(self) -> Source:
        """The usual input, with its known sha256."""

    @abstractmethod
    def prepare(self, data: bytes, folder: Path, choice: Choice) -> dict[str, Any]:
        """Write ``train.bin``, ``val.bin`` and ``meta.pkl`` to a folder.

        Parameters
        ----------
        data : bytes
            The input.
        folder : Path
            Where to write; published as a whole afterwards.
        choice : Choice
            The options.

        Returns
        -------
        dict
            Facts as plain JSON: ``train_tokens``, ``val_tokens`` and what ``meta.pkl`` says.
        """


def names() -> list[str]:
    """Every dataset that can be prepared, without loading any preparer."""
    return sorted({*BUILT_IN, *(point.name for point in _points())})


def load(name: str) -> Preparer | Corpus:
    """The preparer of that name; no other is loaded.

    Parameters
    ----------
    name : str
        Of one that is built in or installed; or ``FILE.py:CLASS``, a class in a file.

    Raises
    ------
    UnknownDataset
        When there is none.
    OptionError
        When two distributions offer it, or it cannot be loaded.
    """
    file, _, attribute = name.rpartition(":")
    if file.endswith(".py"):
        return _made(name, name, lambda: getattr(_module_at(Path(file)), attribute))
    if name in BUILT_IN:
        return _loaded(name, BUILT_IN[name])
    found = {point.value: point for point in _points() if point.name == name}
    if not found:
        raise UnknownDataset(
            f"no dataset {name!r}; expected one of {', '.join(names())}, or FILE.py:CLASS"
        )
    if len(found) > 1:
        raise OptionError(f"dataset {name!r} is offered by {' and by '.join(sorted(found))}")
    return _loaded(name, next(iter(found)))


def _points() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


def _loaded(name: str, value: str) -> Preparer | Corpus:
    from importlib import import_module

    module, _, attribute = value.partition(":")
    return _made(name, value, lambda: getattr(import_module(module), attribute))


def _made(name: str, value: str, find: Callable[[], type[Any]]) -> Preparer | Corpus:
    try:
        made = find()()
    except Exception as error:
        raise OptionError(
            f"dataset {name!r} ({value}) cannot be loaded: {reason(error)}"
        ) from error
    if not isinstance(made, Preparer | Corpus):
        raise OptionError(
            f"dataset {name!r} ({value}) is no subclass of datasets_prep.Preparer or Corpus"
        )
    return made


def _module_at(path: Path) -> ModuleType:
    import sys
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: cannot be imported")
    module = module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
