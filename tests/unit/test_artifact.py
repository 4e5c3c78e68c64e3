"""Names, layouts, recipes and heads: what is refused, and that what is accepted comes back."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from tieredstore.errors import InvalidName, ManifestError
from tieredstore.manifest.artifact import (
    MAX_HEAD,
    Head,
    Recipe,
    Shards,
    canonical,
    check_generation,
    digest128,
    new_generation,
)
from tieredstore.manifest.names import (
    Layout,
    check_case_clashes,
    check_file,
    check_files,
    check_name,
)

ESCAPES = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../up",
    "a/../b",
    "a/..",
    ".",
    "./a",
    "a/.",
    "a/./b",
    "a//b",
    "a/",
    "//a",
    "a\0b",
    "a\\b",
    "..\\up",
    "C:\\x",
    "line\nbreak",
    "tab\t",
    "bell\x07",
    "del\x7f",
    "\ud800",
    ".tieredstore",
    ".tieredstore/stage/x",
    ".tieredstore.json",
    "a/.tieredstore.records",
    "a/.TieredStore.pending",
    ".tieredstore-anything",
    "x" * 256,
    "a/" + "ä" * 128,
    "/".join(["part"] * 200),
]


@pytest.mark.parametrize("check", [check_name, check_file])
@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_escape_are_refused(check, name):
    with pytest.raises(InvalidName) as caught:
        check(name)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, 7, b"bytes", ["a"]])
def test_names_are_text(name):
    with pytest.raises(InvalidName):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "shakespeare",
        "phase1_0/chunks/gpu0/chunk_00000-00049",
        "-dash",
        "a.b",
        "...",
        "..a/b..",
        ".hidden",
        "with space",
        "日本/語",
        "a+b%20#?*",
        "x" * 255,
        "ä" * 127,
        "tieredstore",
    ],
)
def test_odd_but_valid_names_are_accepted(name):
    assert check_name(name) == name
    assert check_file(name) == name


def test_the_longest_name_is_counted_in_bytes():
    assert check_name("/".join(["é" * 85] * 3))  # 512 bytes
    with pytest.raises(InvalidName, match="513 bytes"):
        check_name("/".join(["é" * 85] * 3) + "x")


def test_files_that_nest_or_repeat_are_refused():
    check_files(["a/b", "a/c", "ab", "a.b"])
    for bad in (["a", "a"], ["a", "a/b"], ["a/b/c", "x", "a/b"], ["a/b", "a/b/c/d"]):
        with pytest.raises(InvalidName):
            check_files(bad)
        with pytest.raises(InvalidName):
            check_files(reversed(bad))


def test_names_that_differ_only_in_case_are_refused_where_they_clash():
    check_case_clashes(["a/b", "a/c", "d"], "here")
    for bad in (["A", "a"], ["a/x", "A/y"], ["straße", "STRASSE"], ["deep/er/f", "deep/ER/g"]):
        with pytest.raises(InvalidName, match="here"):
            check_case_clashes(bad, "here")


# -- layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "name", "folder"),
    [
        ("{name}", "a", "a"),
        ("{name}", "a/b", "a/b"),
        ("data/{name}", "a", "data/a"),
        ("data/{name}", "a/b", "data/a/b"),
        ("{name}/{name}", "a", "a/a"),
        ("{name}/{name}", "a/b", "a/b"),
        ("{name}/{name}", "a/b/c", "a/b/c"),
        ("x/{name}/{name}", "a", "x/a/a"),
        ("x/{name}/{name}", "a/b", "x/a/b"),
        ("x/{name}/files", "a/b", "x/a/b/files"),
    ],
)
def test_layouts_both_ways(template, name, folder):
    layout = Layout(template)
    assert layout.folder(name) == folder
    assert layout.name_of(folder) == name


def test_layouts_do_not_claim_folders_that_they_never_write():
    assert Layout("data/{name}").name_of("other/a") is None
    assert Layout("x/{name}/files").name_of("x/a/b") is None


def test_two_names_never_share_a_folder_in_the_nested_layout():
    nested = Layout("{name}/{name}", ("{name}",))
    with pytest.raises(InvalidName, match="'a'"):
        nested.folder("a/a")
    assert nested.old_folders("a") == ["a"]


@pytest.mark.parametrize("template", ["", "data", "/{name}", "../{name}", "{name}/..", "a//{name}"])
def test_layouts_that_escape_or_name_nothing_are_refused(template):
    with pytest.raises(InvalidName):
        Layout(template)
    with pytest.raises(InvalidName):
        Layout("{name}", (template,))


# -- recipes -----------------------------------------------------------------------------------


def test_a_fingerprint_counts_everything_but_facts():
    base = {"preparer": "p", "version": "1", "options": {"subset": 0.5}, "inputs": {"text": "ab"}}
    one = Recipe.of(base)
    same = Recipe.of({**base, "facts": {"tokens": 7}})
    assert one.fingerprint == same.fingerprint
    assert one.same_as(same)
    assert same.facts == {"tokens": 7}
    for change in (
        {"preparer": "q"},
        {"version": "2"},
        {"options": {"subset": 1.0}},
        {"options": {}},
        {"inputs": {"text": "cd"}},
        {"tokenizer": "gpt2"},
    ):
        other = Recipe.of({**base, **change})
        assert other.fingerprint != one.fingerprint
        assert not one.same_as(other)
    assert not one.same_as(None)


def test_keys_that_a_recipe_does_not_have_become_options_in_any_order():
    one = Recipe.of({"subset": 1.0, "tokenizer": "gpt2"})
    other = Recipe.of({"options": {"tokenizer": "gpt2", "subset": 1.0}})
    assert one.fingerprint == other.fingerprint


def test_differences_name_both_sides():
    asked, there = Recipe.of({"subset": 0.1}), Recipe.of({"subset": 1.0, "extra": 1})
    text = asked.differences(there)
    assert "subset: 1.0 there, 0.1 asked for" in text
    assert "extra: 1 there, None asked for" in text
    assert asked.differences(Recipe.of({"subset": 0.1, "facts": {"n": 1}})) == ""


def test_facts_are_merged():
    recipe = Recipe.of({"facts": {"a": 1, "b": 1}}).with_facts({"b": 2})
    assert recipe.facts == {"a": 1, "b": 2}


@pytest.mark.parametrize("key", ["options", "inputs", "facts"])
def test_a_recipe_table_must_be_a_table(key):
    with pytest.raises(ManifestError, match=key):
        Recipe.of({key: ["no table"]})


# -- heads -------------------------------------------------------------------------------------


def head(**changes):
    values = {
        "generation": "20260101t000000-0123456789abcdef",
        "files": 2,
        "size": 30,
        "records_size": 100,
        "records_digest": "0123456789abcdef" * 2,
        "recipe": Recipe.of({"preparer": "p", "subset": 0.5, "facts": {"tokens": 3}}),
        "created": 1_700_000_000,
    }
    return Head(**{**values, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recipe": None},
        {"data": "20260101t000000-0123456789abcdef"},
        {"kind": "file"},
        {"shards": Shards(7, "0" * 32)},
    ],
)
def test_a_head_comes_back(changes):
    assert Head.parse(head(**changes).emit(), "here") == head(**changes)


def test_every_flipped_bit_of_a_head_is_noticed():
    good = head().emit()
    parsed = Head.parse(good, "here")
    for at in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[at] ^= 1 << bit
            with suppress(ManifestError):
                found = Head.parse(bytes(bad), "here")
                assert found == parsed, (at, bit)  # white space, or the case of an escape


def test_every_cut_of_a_head_is_noticed():
    good = head().emit()
    for end in range(len(good)):
        with pytest.raises(ManifestError):
            Head.parse(good[:end], "here")


def test_oversized_heads_are_refused_both_ways():
    with pytest.raises(ManifestError, match="65536"):
        head(recipe=Recipe.of({"text": "x" * MAX_HEAD})).emit()
    with pytest.raises(ManifestError, match="65536"):
        Head.parse(head().emit() + b" " * MAX_HEAD, "here")


def test_recipes_that_are_no_plain_json_are_refused():
    for value in (float("nan"), float("inf"), {1, 2}, b"bytes", object()):
        with pytest.raises(ManifestError, match="plain JSON"):
            head(recipe=Recipe.of({"value": value})).emit()


def resealed(**changes):
    """A head with other values and a right digest: malformed rather than damaged."""
    body = json.loads(head().emit())
    del body["check"]
    for key, value in changes.items():
        if value is ...:
            del body[key]
        else:
            body[key] = value
    body["check"] = digest128(canonical(body))
    return json.dumps(body).encode()


def test_another_format_is_refused_by_its_version():
    with pytest.raises(ManifestError, match="format 2, this release reads 1"):
        Head.parse(resealed(format=2), "here")
    with pytest.raises(ManifestError, match="format None"):
        Head.parse(resealed(format=...), "here")


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "sha1"},
        {"digest": ...},
        {"data": "../../etc"},
        {"data": "/abs"},
        {"data": "20260101t000000-0123456789abcdee"},
        {"data": []},
        {"data": None},
        {"kind": "link"},
        {"kind": {}},
        {"generation": ".."},
        {"generation": "a/b/c/d/e/f"},
        {"generation": "short"},
        {"generation": "A" * 20},
        {"generation": "x" * 65},
        {"generation": 12345678},
        {"generation": ...},
        {"files": -1},
        {"files": 1.5},
        {"files": True},
        {"files": "2"},
        {"size": 2**63},
        {"created": None},
        {"records": {"size": 1, "digest": "short"}},
        {"records": {"size": 1, "digest": 5}},
        {"records": {"size": -1, "digest": "0" * 32}},
        {"records": {"digest": "0" * 32}},
        {"records": None},
        {"records": []},
        {"shards": None},
        {"shards": []},
        {"shards": {"size": 1, "digest": "short"}},
        {"shards": {"size": -1, "digest": "0" * 32}},
        {"shards": {"digest": "0" * 32}},
        {"recipe": "text"},
        {"recipe": ["list"]},
        {"recipe": 5},
        {"recipe": {"options": 7}},
    ],
)
def test_malformed_heads_are_refused(changes):
    with pytest.raises(ManifestError, match="here"):
        Head.parse(resealed(**changes), "here")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"{}",
        b"\xff",
        b"[" * 60_000,
        b'{"format": 1, "x": NaN}',
        b'{"format": 1, "x": 1e999}',
        b'{"format": 1, "x": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"format": 1, "x": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_head_at_all_is_refused(data):
    with pytest.raises(ManifestError, match="here"):
        Head.parse(data, "here")


def test_generations_are_distinct_and_sort_by_time():
    found = {new_generation() for _ in range(1000)}
    assert len(found) == 1000
    assert all(check_generation(g) == g for g in found)
    assert min(found) > "20250101t000000-ffffffffffffffff"
