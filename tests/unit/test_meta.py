"""meta.pkl: pickle.load reads ours, and one from elsewhere can do no harm."""

import builtins
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_prep import MetaError, meta, token_type

PLAIN = {
    "vocab_size": 65,
    "tokenizer": "char",
    "byte_level": False,
    "none": None,
    "share": 0.25,
    "large": 1 << 70,
    "itos": {0: "\n", 1: "ä", 2: "\U0001f600"},
    "nested": [1, (2, 3, (4, 5, 6, 7)), {"a": b"bytes"}],
}


class Reduced:
    """Pickles as a call of anything with any arguments."""

    def __init__(self, call, *args) -> None:
        self._call = (call, args)

    def __reduce__(self):
        return self._call


class Plain:
    """An object of a class that exists: even this is imported to be loaded."""


def test_what_is_written_is_read_by_pickle_load(tmp_path: Path) -> None:
    path = tmp_path / "meta.pkl"
    path.write_bytes(meta.dumps(PLAIN))
    with path.open("rb") as file:
        assert pickle.load(file) == PLAIN
    assert meta.read(tmp_path) == PLAIN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol_is_read(protocol: int) -> None:
    plain = {k: v for k, v in PLAIN.items() if k != "nested" or protocol >= 3}
    assert meta.loads(pickle.dumps(plain, protocol)) == plain


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", [os.system, os.mkdir, eval, builtins.open, getattr])
def test_a_pickle_that_calls_anything_is_refused_and_nothing_is_called(
    protocol: int, call, tmp_path: Path
) -> None:
    target = tmp_path / "owned"
    argument = f"touch {target}" if call is os.system else str(target)
    for evil in (Reduced(call, argument), {"vocab_size": Reduced(call, argument)}):
        with pytest.raises(MetaError, match=r"plain data only|damaged"):
            meta.loads(pickle.dumps(evil, protocol))
    assert not target.exists()


@pytest.mark.parametrize(
    "value",
    [Plain(), np.int64(3), np.arange(3), Path("x"), {1, 2}, bytearray(b"x"), complex(1, 2)],
    ids=lambda v: type(v).__name__,
)
def test_objects_are_refused(value) -> None:
    with pytest.raises(MetaError, match="plain data only"):
        meta.loads(pickle.dumps({"vocab_size": value}, 2))


HAND_MADE = {
    "global": b"cos\nsystem\n(S'true'\ntR.",
    "inst": b"(S'true'\nios\nsystem\n.",
    "stack global": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pid\n.",
    "obj": b"(cos\nsystem\nS'true'\no.",
    "build": b"}}b.",
    "out of band buffer": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("data", HAND_MADE.values(), ids=HAND_MADE.keys())
def test_each_opcode_that_does_more_than_data_is_refused(data: bytes) -> None:
    with pytest.raises(MetaError, match="expected plain data only"):
        meta.loads(data)


def test_a_small_pickle_cannot_take_much_memory() -> None:
    far = b"\x80\x02}r" + struct.pack("<I", 0x7FFFFFF0) + b"."  # a memo of two thousand million
    deep = b"\x80\x02" + b"]" * 100_000 + b"."
    tracemalloc.start()
    for data in (far, deep):
        with pytest.raises(MetaError):
            meta.loads(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


def test_one_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "meta.pkl").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MetaError, match="larger than"):
        meta.read(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"no pickle", b"\x80\x04", meta.dumps(PLAIN)[:-5], b"N.", b"]."]
)
def test_damage_and_other_things_are_one_clear_line(data: bytes) -> None:
    with pytest.raises(MetaError) as caught:
        meta.loads(data, "somewhere/meta.pkl")
    assert str(caught.value).startswith("somewhere/meta.pkl: ")
    assert "\n" not in str(caught.value)


def test_keys_must_be_text() -> None:
    with pytest.raises(MetaError, match="expected a table"):
        meta.loads(pickle.dumps({1: 2}))


@given(st.binary(max_size=200))
def test_any_bytes_give_plain_facts_or_a_clear_error(data: bytes) -> None:
    try:
        found = meta.loads(data)
    except MetaError:
        return
    assert type(found) is dict


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_a_changed_pickle_gives_plain_facts_or_a_clear_error(at: int, put: bytes) -> None:
    data = bytearray(meta.dumps(PLAIN))
    at %= len(data)
    data[at : at + len(put)] = put
    try:
        found = meta.loads(bytes(data))
    except MetaError:
        return
    assert type(found) is dict


@pytest.mark.parametrize(
    ("facts", "stored"),
    [
        ({}, "<u2"),
        ({"byte_level": False}, "<u2"),
        ({"byte_level": True}, "|u1"),
        ({"dtype": "uint32"}, "<u4"),
        ({"dtype": "uint16", "byte_level": True}, "<u2"),
    ],
)
def test_how_tokens_are_stored(facts: dict, stored: str, tmp_path: Path) -> None:
    (tmp_path / "meta.pkl").write_bytes(meta.dumps(facts))
    assert token_type(tmp_path) == stored
    assert np.dtype(token_type(tmp_path)).kind == "u"


def test_without_meta_tokens_are_those_of_gpt2(tmp_path: Path) -> None:
    assert token_type(tmp_path) == "<u2"


@pytest.mark.parametrize("named", ["float64", "O", 3, ["uint16"]])
def test_other_types_are_refused(named: object, tmp_path: Path) -> None:
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"dtype": named}))
    with pytest.raises(MetaError, match="expected one of uint8, uint16, uint32"):
        token_type(tmp_path)
