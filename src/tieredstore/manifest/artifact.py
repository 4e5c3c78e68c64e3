"""What an artifact is: its recipe, and the small head that makes a generation whole.

Parse, emit and validate; no input or output. Records, the large half of a manifest, are in
``records.py``, names and layouts in ``names.py``. Everything above takes them as already valid.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import xxhash

from tieredstore.errors import ManifestError

FORMAT: Final = 1
MAX_HEAD: Final = 64 * 1024  # bytes
HEAD: Final = ".tieredstore.json"
RECORDS: Final = ".tieredstore.records"
SHARDS: Final = ".tieredstore.shards"  # the index; what else begins so is of a packed copy too
_GENERATION: Final = re.compile(r"[0-9a-z][0-9a-z-]{7,63}")
# Stricter than what a head may say: a folder of somebody's own files must never look like one.
GENERATED: Final = re.compile(r"\d{8}t\d{6}-[0-9a-f]{16}|adopted-[0-9a-f]{32}")
_HEX128: Final = re.compile(r"[0-9a-f]{32}")


def random_hex(size: int) -> str:
    """``size`` random bytes in hexadecimal; importing ``secrets`` for it would cost a hit 5 ms."""
    return os.urandom(size).hex()


def new_generation() -> str:
    """A fresh generation: the time to the second, so that it sorts, and 64 random bits."""
    return time.strftime("%Y%m%dt%H%M%S", time.gmtime()) + "-" + random_hex(8)


def check_generation(generation: object) -> str:
    """Return a generation's identity if it is well formed, else raise `ManifestError`."""
    if not isinstance(generation, str) or not _GENERATION.fullmatch(generation):
        raise ManifestError(f"generation {generation!r}: expected 8 to 64 of 0-9, a-z and '-'")
    return generation


Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def canonical(value: object) -> bytes:
    """JSON in its one canonical spelling: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest128(data: bytes) -> str:
    """128-bit XXH3 of ``data`` as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an artifact was made from.

    Two recipes are the same thing when their fingerprints are equal. `facts` are results (token
    counts, a vocabulary's size): they travel with the recipe and do not count for the fingerprint.

    Attributes
    ----------
    preparer, version : str
        Who made it.
    options : dict
        Plain JSON values: subset, tokenizer and so on.
    inputs : dict
        Digest of each input by name.
    facts : dict
        Plain JSON values that were found out while making it.
    """

    preparer: str = ""
    version: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Recipe | Mapping[str, Any] | None) -> Recipe | None:
        """A recipe from a mapping; keys that a recipe does not have become options."""
        if value is None or isinstance(value, Recipe):
            return value
        known = {"preparer", "version", "options", "inputs", "facts"}
        rest = {k: v for k, v in value.items() if k not in known}
        options = {**_mapping(value, "options"), **rest}
        return cls(
            preparer=str(value.get("preparer", "")),
            version=str(value.get("version", "")),
            options=options,
            inputs={k: str(v) for k, v in _mapping(value, "inputs").items()},
            facts=_mapping(value, "facts"),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON of everything but the facts, in hexadecimal."""
        import hashlib

        return hashlib.sha256(canonical(self.identity())).hexdigest()

    def identity(self) -> dict[str, object]:
        """Everything that counts for the fingerprint, as plain JSON."""
        return {
            "preparer": self.preparer,
            "version": self.version,
            "options": dict(self.options),
            "inputs": dict(self.inputs),
        }

    def same_as(self, other: Recipe | None) -> bool:
        """Whether both describe the same thing; an unknown recipe (``None``) equals none."""
        return other is not None and canonical(self.identity()) == canonical(other.identity())

    def with_facts(self, facts: Mapping[str, Any]) -> Recipe:
        """The same recipe with further facts."""
        merged = {**self.facts, **facts}
        return Recipe(self.preparer, self.version, self.options, self.inputs, merged)

    def to_json(self) -> dict[str, object]:
        """The recipe as plain JSON, facts included."""
        return {**self.identity(), "facts": dict(self.facts)}

    def differences(self, other: Recipe) -> str:
        """In a few words, what differs: ``subset: 1.0 there, 0.1 asked for``."""
        ours, theirs = _flat(self.identity()), _flat(other.identity())
        keys = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        return ", ".join(f"{k}: {theirs.get(k)!r} there, {ours.get(k)!r} asked for" for k in keys)


def _mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key, {})
    if not isinstance(found, Mapping):
        raise ManifestError(f"recipe: {key} is {type(found).__name__}, expected a table")
    return dict(found)


def _flat(identity: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in identity.items():
        if isinstance(value, Mapping):
            flat.update(value)
        else:
            flat[key] = value
    return flat


@dataclass(frozen=True, slots=True)
class Shards:
    """The index of a packed copy, see ``shards.py``: its bytes, and their 128-bit XXH3 in hex."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Head:
    """The small half of a manifest: enough to know a generation and to check its records.

    Format version 1, JSON of at most 64 KiB; its last key, ``check``, is the 128-bit XXH3 of the
    canonical JSON of all others, so that one flipped bit is noticed.

    Attributes
    ----------
    generation : str
        Which publication this is.
    files, size : int
        How many files, and their bytes in total.
    records_size : int
        Bytes of the records.
    records_digest : str
        128-bit XXH3 of the records in hexadecimal.
    recipe : Recipe or None
        ``None``: unknown, the data was adopted.
    data : str
        Where files and records lie, relative to the artifact's folder: ``""`` beside the head, or
        the generation where a place keeps each under keys of its own.
    kind : str
        ``"folder"``, or ``"file"`` for a single file with its manifest beside it.
    created : int
        Unix time in seconds.
    shards : Shards or None
        Small files lie in shards: of this copy only, copies in other tiers need not be packed.
    """

    generation: str
    files: int
    size: int
    records_size: int
    records_digest: str
    recipe: Recipe | None = None
    data: str = ""
    kind: str = "folder"
    created: int = 0
    shards: Shards | None = None

    def emit(self) -> bytes:
        """The head as it is written.

        Raises
        ------
        ManifestError
            When the recipe makes it larger than 64 KiB or is no plain JSON.
        """
        body = {
            "format": FORMAT,
            "generation": self.generation,
            "kind": self.kind,
            "created": self.created,
            "files": self.files,
            "size": self.size,
            "digest": "xxh3-128",
            "records": {"size": self.records_size, "digest": self.records_digest},
            "data": self.data,
            "recipe": None if self.recipe is None else self.recipe.to_json(),
        }
        if self.shards is not None:
            body["shards"] = {"size": self.shards.size, "digest": self.shards.digest}
        try:
            body["check"] = digest128(canonical(body))
            data = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ManifestError(f"recipe: only plain JSON values can be kept: {error}") from None
        if len(data) > MAX_HEAD:
            raise ManifestError(f"head: {len(data)} bytes, at most {MAX_HEAD} (a smaller recipe?)")
        return data

    @classmethod
    def parse(cls, data: bytes, where: str) -> Head:
        """Read a head that comes from somewhere not trusted.

        Parameters
        ----------
        data : bytes
            The whole head.
        where : str
            Its place, for messages.

        Raises
        ------
        ManifestError
            When it is oversized, damaged, malformed or of another format version.
        """
        body = _head_body(data, where)
        try:
            return cls._from_body(body)
        except (KeyError, TypeError, AttributeError, ManifestError) as error:
            raise ManifestError(f"{where}: malformed head: {error}") from None

    @classmethod
    def _from_body(cls, body: dict[str, Any]) -> Head:
        generation = check_generation(body["generation"])
        data, kind, records = body["data"], body["kind"], body["records"]
        if data not in {"", generation}:
            raise ManifestError(f"data lies at {data!r}, expected '' or the generation")
        if kind not in {"folder", "file"}:
            raise ManifestError(f"kind {kind!r}, expected 'folder' or 'file'")
        for key in ("records", "shards"):
            if key in body and not _HEX128.fullmatch(body[key]["digest"]):
                raise ManifestError(f"the digest of the {key} is no 128-bit digest")
        return cls(
            generation=generation,
            files=_count(body["files"], "files"),
            size=_count(body["size"], "size"),
            records_size=_count(records["size"], "records"),
            records_digest=records["digest"],
            recipe=Recipe.of(body["recipe"]),
            data=data,
            kind=kind,
            created=_count(body["created"], "created"),
            shards=_shards(body["shards"]) if "shards" in body else None,
        )


def _shards(found: dict[str, Any]) -> Shards:
    return Shards(_count(found["size"], "shards"), found["digest"])


def _head_body(data: bytes, where: str) -> dict[str, Any]:
    if len(data) > MAX_HEAD:
        raise ManifestError(f"{where}: head of more than {MAX_HEAD} bytes")
    try:
        body = dict(json.loads(data).items())
        check = body.pop("check", None)
        version = body.get("format")
        found = digest128(canonical(body))
    except (ValueError, AttributeError, RecursionError):
        raise ManifestError(
            f"{where}: the head is no JSON object; it is damaged or half written"
        ) from None
    if version != FORMAT:
        raise ManifestError(f"{where}: manifest format {version!r}, this release reads {FORMAT}")
    if check != found:
        raise ManifestError(f"{where}: the head does not match its own digest; it is damaged")
    if body.get("digest") != "xxh3-128":
        raise ManifestError(f"{where}: unknown digest {body.get('digest')!r}, expected 'xxh3-128'")
    return body


def _count(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ManifestError(f"{what} is {value!r}, expected a number from 0 on")
    return value
