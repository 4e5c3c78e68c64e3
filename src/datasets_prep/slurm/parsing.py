"""YAML and TOML to plain tables, with nothing guessed and no key given twice."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.errors import InvalidJob, reason

if TYPE_CHECKING:
    import yaml

SUFFIXES: Final = (".toml", ".yaml", ".yml")


def parse(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The table that a file holds.

    Parameters
    ----------
    path : path
        Its name ends in ``.toml``, ``.yaml`` or ``.yml``.

    Raises
    ------
    InvalidJob
        For a file that cannot be read, is of another kind, or holds something else.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InvalidJob(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else _yaml(text)
    except OSError as error:
        raise InvalidJob(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJob(f"{path}: no valid TOML: {reason(error)}") from None
    except ValueError as error:
        raise InvalidJob(f"{path}: no valid YAML: {reason(error)}") from None
    if not isinstance(found, dict):
        raise InvalidJob(f"{path}: holds no table, expected keys and their values")
    return found


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        raise ValueError(reason(error)) from None


def _loader() -> type[yaml.SafeLoader]:
    """YAML 1.2's plain values: in 1.1 ``2:00:00`` is 7200, ``no`` is false and ``010`` is 8."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.YAMLError(
                        f"line {line}: a key is a list or a table, expected a text"
                    )
                if key.value in seen:
                    raise ValueError(f"line {line}: the key {key.value!r} is there twice")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    plain = {
        "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
        "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
        "float": (r"[-+]?(0|[1-9][0-9]*)?\.[0-9]+([eE][-+]?[0-9]+)?", "-+.0123456789"),
        "null": (r"~|null|Null|NULL|", "~nN\0"),
    }
    for kind, (shape, first) in plain.items():
        starts = ["" if char == "\0" else char for char in first]
        shaped = re.compile(f"^(?:{shape})$")
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", shaped, starts)
    return Loader
