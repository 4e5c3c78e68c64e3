"""What an experiment's summary says of its datasets: ``evaluation.tasks[].dataset`` in YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets_prep.errors import OptionError
from datasets_prep.slurm.parsing import parse


def datasets_of(path: str | os.PathLike[str]) -> list[str]:
    """The data files of an experiment's evaluation, each once, in their order.

    Parameters
    ----------
    path : path
        The summary, in YAML or TOML. Paths in it are relative to its folder; a task may do without.

    Raises
    ------
    OptionError
        For a file that cannot be read, or says nothing of datasets, naming the key.
    """
    path = Path(path)
    evaluation = _table(parse(path).get("evaluation"), f"{path}: evaluation")
    tasks = evaluation.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise OptionError(f"{path}: evaluation.tasks is {tasks!r}, expected a list of tasks")
    found = []
    for number, task in enumerate(tasks, 1):
        where = f"{path}: evaluation.tasks, task {number}"
        dataset = _table(task, where).get("dataset")
        if dataset is None:
            continue
        if not isinstance(dataset, str) or not dataset:
            raise OptionError(f"{where}: dataset is {dataset!r}, expected a path")
        found.append(os.path.abspath(path.parent / Path(dataset).expanduser()))
    if not found:
        raise OptionError(f"{path}: no task of evaluation.tasks has a dataset, expected a path")
    return list(dict.fromkeys(found))


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionError(f"{where} is {value!r}, expected a table")
    return value
