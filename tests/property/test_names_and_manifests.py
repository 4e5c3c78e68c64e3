"""Any valid name and manifest comes back as it was; any bytes at all raise nothing unexpected."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tieredstore.errors import InvalidName, ManifestError
from tieredstore.manifest.artifact import Head, Recipe, Shards, canonical, digest128
from tieredstore.manifest.names import MAX_FILE, Layout, check_file, check_files, check_name
from tieredstore.manifest.records import FileRecord, Records, find, pack_block
from tieredstore.testing.samples import record_of, table_of

budget = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

characters = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\")
parts = st.text(characters, min_size=1, max_size=30).filter(
    lambda part: part not in {".", ".."} and not part.casefold().startswith(".tieredstore")
)
names = st.lists(parts, min_size=1, max_size=4).map("/".join)
short_names = names.filter(lambda name: len(name.encode()) <= 500)
generations = st.from_regex(r"[0-9a-z][0-9a-z-]{7,63}", fullmatch=True)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
tables = st.dictionaries(st.text(), plain, max_size=4)
recipes = st.none() | st.builds(
    Recipe,
    preparer=st.text(),
    version=st.text(),
    options=tables,
    inputs=st.dictionaries(st.text(), st.text(), max_size=3),
    facts=tables,
)
hexadecimal = st.text("0123456789abcdef", min_size=32, max_size=32)
counts = st.integers(0, 2**63 - 1)
heads = generations.flatmap(
    lambda generation: st.builds(
        Head,
        generation=st.just(generation),
        files=counts,
        size=counts,
        records_size=counts,
        records_digest=hexadecimal,
        recipe=recipes,
        data=st.sampled_from(["", generation]),
        kind=st.sampled_from(["folder", "file"]),
        created=counts,
        shards=st.none() | st.builds(Shards, size=counts, digest=hexadecimal),
    )
)


@st.composite
def file_records(draw, path):
    lengths = draw(st.lists(st.integers(1, 1 << 26), max_size=4))
    digests = st.binary(min_size=16, max_size=16)
    table = b"".join(pack_block(length, draw(digests)) for length in lengths)
    return FileRecord(
        path,
        sum(lengths),
        draw(st.integers(0, 0o777)),
        draw(st.integers(-(2**63), 2**63 - 1)),
        table,
        draw(st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)),
    )


@st.composite
def manifests(draw):
    chosen = draw(st.lists(names, unique=True, max_size=8))
    folders = {n[:i] for n in chosen for i, c in enumerate(n) if c == "/"}
    return Records.of(draw(file_records(n)) for n in chosen if n not in folders)


@budget
@given(st.text() | names)
def test_a_name_is_plain_or_refused(name):
    try:
        check_name(name)
    except InvalidName:
        return
    found = name.split("/")
    assert found
    assert all(part not in {"", ".", ".."} for part in found)
    assert not set(name) & set("\\\0\n\r\x7f")
    assert all(len(part.encode()) <= 255 for part in found)
    assert not any(part.casefold().startswith(".tieredstore") for part in found)


@budget
@given(names)
def test_valid_names_are_accepted(name):
    if len(name.encode()) <= MAX_FILE:
        assert check_file(name) == name


@budget
@given(
    short_names,
    st.sampled_from(["{name}", "data/{name}", "{name}/{name}", "a/b/{name}", "x/{name}/{name}"]),
)
def test_a_layout_finds_the_name_of_its_folder(name, template):
    layout = Layout(template)
    try:
        folder = layout.folder(name)
    except InvalidName:
        assert template.endswith("{name}/{name}")
        return
    assert layout.name_of(folder) == name


@budget
@given(st.lists(short_names, min_size=2, max_size=2, unique=True))
def test_two_names_never_share_a_folder(pair):
    for template in ("{name}", "data/{name}", "{name}/{name}"):
        with suppress(InvalidName):  # 'a/a' beside 'a' in the nested layout
            folders = [Layout(template).folder(name) for name in pair]
            assert folders[0] != folders[1]


@budget
@given(heads)
def test_heads_come_back(head):
    try:
        data = head.emit()
    except ManifestError:
        return  # a recipe larger than a head may be
    found = Head.parse(data, "here")
    assert found == head or canonical(found.recipe.to_json()) == canonical(head.recipe.to_json())


@budget
@given(heads, st.data())
def test_mutated_heads_are_refused_or_equal(head, data):
    good = head.emit()
    parsed = Head.parse(good, "here")
    bad = mutated(good, data)
    with suppress(ManifestError):
        assert Head.parse(bad, "here") == parsed


@budget
@given(st.binary(max_size=300) | plain.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_no_head(data):
    try:
        Head.parse(data, "here")
    except ManifestError:
        return
    raise AssertionError("taken for a head")


@budget
@given(
    heads,
    st.sampled_from([*Head("x" * 8, 0, 0, 0, "0" * 32).__slots__, "records", "format"]),
    plain,
)
def test_resealed_heads_with_any_value_are_refused_or_valid(head, key, value):
    body = json.loads(head.emit())
    del body["check"]
    body[key] = value
    body["check"] = digest128(canonical(body))
    try:
        found = Head.parse(json.dumps(body).encode(), "here")
    except ManifestError:
        return
    assert found.data in {"", found.generation}
    assert min(found.files, found.size, found.records_size, found.created) >= 0


@budget
@given(manifests())
def test_records_come_back_and_every_file_is_found(records):
    data = records.emit()
    assert Records.parse(data, digest128(data), "here") == records
    for path, record in records.files.items():
        found = find(data, path)
        assert found is not None
        assert (found.path, found.size, found.sha256) == (path, record.size, record.sha256)


def mutated(good, data):
    """``good`` with some bytes changed, dropped or put in."""
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(bad) - 1, 0)))
        kind = data.draw(st.sampled_from(["change", "drop", "insert", "repeat"]))
        if kind == "change" and bad:
            bad[at] = data.draw(st.integers(0, 255))
        elif kind == "drop":
            del bad[at : at + data.draw(st.integers(1, 20))]
        elif kind == "insert":
            bad[at:at] = data.draw(st.binary(min_size=1, max_size=5))
        else:
            bad[at:at] = bad[at : at + 40]
    return bytes(bad)


@budget
@given(manifests(), st.data())
def test_mutated_records_are_refused_or_valid(records, data):
    good = records.emit()
    bad = mutated(good, data)
    with suppress(ManifestError):
        assert Records.parse(bad, digest128(good), "here") == records
    try:
        found = Records.parse(bad, digest128(bad), "here")  # as one would who writes both
    except ManifestError:
        pass
    else:
        check_files(found.files)
        assert list(found.files) == sorted(found.files, key=str.encode)
        assert all(f.mode & ~0o777 == 0 and f.size >= 0 for f in found.files.values())
        assert all(sum(b.length for b in f.blocks()) == f.size for f in found.files.values())
    for path in [*records.files, "a", ""]:
        try:
            hit = find(bad, path)
        except ManifestError:
            continue
        assert hit is None or hit.path == path


@budget
@given(st.binary(max_size=400))
def test_any_bytes_are_no_records_or_valid_ones(data):
    try:
        found = Records.parse(data, digest128(data), "here")
    except ManifestError:
        return
    check_files(found.files)


@budget
@given(st.binary(max_size=5000), st.integers(1, 700))
def test_tables_add_up_whatever_the_block(data, block):
    record = record_of("a", data, block)
    assert record.table == table_of(data, block)
    assert sum(b.length for b in record.blocks()) == len(data)
    offsets = [b.offset for b in record.blocks()]
    assert offsets == list(range(0, len(data), block))


@budget
@given(recipes.filter(bool), tables)
def test_facts_never_count(recipe, facts):
    other = recipe.with_facts(facts)
    assert other.same_as(recipe)
    assert other.fingerprint == recipe.fingerprint
    assert recipe.differences(other) == ""
