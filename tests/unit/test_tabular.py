"""JSON, CSV and saved datasets as Parquet: every value kept, and what does not fit is named."""

from __future__ import annotations

import gzip
import json
import math
import os
import re

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_prep import OptionError, SourceError
from datasets_prep.tabular import ParquetOptions, json_rows, to_parquet

ROWS = [
    {
        "id": n,
        "text": "wörd \U0001f600" * (n % 5),
        "x": {"s": n / 7, "l": [1, None, n]},
        "t": n % 2 == 0,
    }
    for n in range(1000)
]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIEREDSTORE_RUNPOD_VOLUME", str(tmp_path / "none"))
    monkeypatch.delenv("TIEREDSTORE_CONFIG", raising=False)
    return tmp_path


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zst(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def read(path="out.parquet"):
    return pq.read_table(path).to_pylist()


def failing(name, data, **options):
    with open(name, "wb") as file:
        file.write(data)
    with pytest.raises(SourceError) as raised:
        to_parquet(name, "out.parquet", ParquetOptions(**options))
    assert not os.path.exists("out.parquet")
    return str(raised.value)


# -- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", lines(ROWS)),
        ("a.ndjson", b"\xef\xbb\xbf" + lines(ROWS).replace(b"\n", b"\n\n \r\n")),
        ("a.jsonl.gz", gzip.compress(lines(ROWS[:500])) + gzip.compress(lines(ROWS[500:]))),
        ("a.jsonl.zst", zst(lines(ROWS))),
        ("a.json", lines(ROWS)[:-1]),
        ("b.json", json.dumps(ROWS).encode()),
        ("c.json.gz", gzip.compress(json.dumps(ROWS, indent=2).encode())),
    ],
)
def test_records_of_json_are_kept(name, data, place):
    (place / name).write_bytes(data)
    done = to_parquet(name, "out.parquet")
    assert (done.rows, done.groups, done.made) == (len(ROWS), 1, True)
    assert read() == ROWS
    group = pq.ParquetFile("out.parquet").metadata.row_group(0)
    assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}


def test_an_array_below_a_field(place):
    whole = {"info": {"data": [1]}, "v": {"data": ROWS, "more": 1}}
    (place / "n.json").write_text(json.dumps(whole))
    to_parquet("n.json", "out.parquet", ParquetOptions(field="v.data"))
    assert read() == ROWS
    with pytest.raises(SourceError, match=r"n.json: line 1: has no field 'none'"):
        to_parquet("n.json", "other.parquet", ParquetOptions(field="none"))
    (place / "l.jsonl").write_bytes(lines(ROWS))
    with pytest.raises(OptionError, match="has lines, and no one object"):
        to_parquet("l.jsonl", "other.parquet", ParquetOptions(field="v"))


def test_columns_in_the_order_that_was_asked_for(place):
    rows = [*ROWS, {"id": 5, "text": None, "new": 1}, {"text": "x", "t": "another type"}]
    (place / "a.jsonl").write_bytes(lines(rows))
    to_parquet("a.jsonl", "out.parquet", ParquetOptions(columns=("text", "id")))
    assert read() == [{"text": row["text"], "id": row.get("id")} for row in rows]
    assert pq.read_schema("out.parquet").names == ["text", "id"]
    with pytest.raises(OptionError, match="column 'none': the first record has id, text"):
        to_parquet("a.jsonl", "other.parquet", ParquetOptions(columns=("none",)))


def test_types_of_what_the_first_records_do_not_show(place, monkeypatch):
    monkeypatch.setattr(json_rows, "_SAMPLE", 100)
    monkeypatch.setattr(json_rows, "_BLOCK", 1000)
    rows = [{"a": None, "b": 1}] * 100 + [{"a": "x", "b": 1.5}]
    (place / "a.jsonl").write_bytes(lines(rows))
    with pytest.raises(SourceError, match=r"line 101: a is text, expected null; its first"):
        to_parquet("a.jsonl", "out.parquet")
    to_parquet("a.jsonl", "out.parquet", ParquetOptions(types={"a": "string", "b": "float64"}))
    assert read() == rows


def test_several_files_are_one_after_the_other(place):
    (place / "in/deep").mkdir(parents=True)
    (place / "in/b.jsonl").write_bytes(lines(ROWS[300:]))
    (place / "in/a.jsonl.gz").write_bytes(gzip.compress(lines(ROWS[:200])))
    (place / "in/b.jsonl.zst").write_bytes(zst(lines(ROWS[:1])))
    (place / "in/a.jsonl").write_bytes(b"")
    (place / "in/.hidden.jsonl").write_bytes(b"no JSON")
    (place / "in/README.md").write_text("no JSON")
    (place / "in/deep/z.jsonl").write_bytes(lines(ROWS[1:2]))
    to_parquet("in", "out.parquet")
    assert read() == [*ROWS[:200], *ROWS[300:], ROWS[0], ROWS[1]]
    (place / "in/c.csv").write_text("a\n1\n")
    with pytest.raises(SourceError, match="has CSV and JSON lines; name one"):
        to_parquet("in", "out.parquet")


def test_files_of_another_place(place):
    with fsspec.open("memory://tabular/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(lines(ROWS)))
    to_parquet("memory://tabular", "out.parquet")
    assert read() == ROWS


plain = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.text()
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["a", "b", "c\u0301", ""])


def test_lists_of_nothing_but_nulls_are_kept(place):
    """Arrow's own reader makes arrays of them whose values cannot be read."""
    rows = [{"a": [None, None], "b": {"c": [None]}}, {"a": [], "b": None}] * 10
    (place / "a.jsonl").write_bytes(lines(rows))
    to_parquet("a.jsonl", "out.parquet")
    assert read() == rows


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.dictionaries(keys, values, max_size=3), max_size=6))
def test_any_records_are_kept_or_refused_and_both_ways_agree(rows):
    """By blocks and by records: the same tables, and the values that Python's json reads."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    shape = json_rows.Shape()
    try:
        for row in rows:
            shape.see(row)
    except json_rows.Mixed:
        return
    if not shape.fields():
        return
    schema = pa.schema(shape.fields())
    records = json_rows._in_lines(data, 1, "x")
    try:
        slow = json_rows._checked(records, schema, ParquetOptions())
    except SourceError:  # a lone surrogate, a float too large
        slow = None
    fast = json_rows._parsed(data, schema, ParquetOptions()) if data else None
    if slow is not None:
        expected = [{name: row.get(name) for name in schema.names} for row in rows]
        assert alike(slow.to_pylist(), expected)
        if fast is not None:
            assert alike(fast.to_pylist(), slow.to_pylist())
    else:
        assert fast is None


def alike(one, two):
    """Equal, where NaN is NaN, and what an object lacks is null."""
    if isinstance(one, dict) and isinstance(two, dict):
        return all(alike(one.get(key), two.get(key)) for key in {*one, *two})
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(alike, one, two))
    nan = isinstance(one, float) and isinstance(two, float) and math.isnan(one) and math.isnan(two)
    return nan or (one == two and isinstance(one, bool) == isinstance(two, bool))


# -- CSV, and datasets that were saved -------------------------------------------------------------


def test_rows_of_csv_are_kept(place):
    text = "id,name,score\n" + "".join(f'{n},"a ""b"",\n{n}",{n / 2}\n' for n in range(500))
    (place / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    to_parquet("a.csv.gz", "out.parquet", ParquetOptions(columns=("name", "id")))
    assert read() == [{"name": f'a "b",\n{n}', "id": n} for n in range(500)]
    (place / "zip.tsv").write_text("zip\tday\n00123\t2026-01-02\n")
    to_parquet("zip.tsv", "two.parquet", ParquetOptions(types={"zip": "string", "day": "string"}))
    assert read("two.parquet") == [{"zip": "00123", "day": "2026-01-02"}]
    to_parquet("zip.tsv", "three.parquet")
    assert str(pq.read_schema("three.parquet").field("day").type) == "date32[day]"


def test_a_row_of_csv_that_does_not_fit_is_named(place, monkeypatch):
    monkeypatch.setattr("datasets_prep.tabular.other_rows._BLOCK", 512)
    good = b"a,b\n" + b"1,x\n" * 300
    assert "a.csv: In CSV column #0: Row #302: " in failing("a.csv", good + b"q,y\n" + b"1,z\n" * 9)
    assert "a.csv: CSV parse error: Row #302: Expected 2" in failing("a.csv", good + b"1,y,3\n")
    assert "b has values that are no valid UTF-8" in failing("a.csv", b"a,b\n1,\xff\n")
    (place / "in").mkdir()
    (place / "in/1.csv").write_text("a,b\n1,x\n")
    (place / "in/2.csv").write_text("a,c\n1,x\n")
    with pytest.raises(SourceError, match=r"2.csv: has a, c, expected a, b as in 1.csv"):
        to_parquet("in", "out.parquet")


def saved(folder, tables):
    """What ``Dataset.save_to_disk`` writes: a description, and Arrow streams."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05}-of-{len(tables):05}.arrow" for n in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.ipc.new_stream(str(folder / name), table.schema) as stream:
            stream.write_table(table, max_chunksize=100)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))


def test_a_saved_dataset_is_kept_with_its_features(place):
    schema = pa.schema(
        {
            "n": pa.int32(),
            "when": pa.timestamp("s"),
            "label": pa.dictionary(pa.int8(), pa.string()),
        },
        metadata={b"huggingface": b'{"info": {}}'},
    )
    labels = pa.DictionaryArray.from_arrays(pa.array([1, 0, None] * 100, pa.int8()), ["x", "y"])
    hidden = pa.Array.from_buffers(  # values below a null are anything at all
        pa.int32(), 300, [pa.py_buffer(b"\xa5" * 38), pa.py_buffer(bytes(range(240)) * 5)]
    )
    table = pa.table([hidden, pa.array(range(300), pa.timestamp("s")), labels], schema=schema)
    saved(place / "ds", [table, table])
    done = to_parquet("ds", "out.parquet", ParquetOptions(group_rows=70))
    assert (done.rows, done.groups) == (600, 9)
    assert read() == table.to_pylist() * 2
    assert pq.read_schema("out.parquet").metadata[b"huggingface"] == b'{"info": {}}'


def test_one_split_of_several_is_chosen(place):
    for number, split in enumerate(("train", "test")):
        saved(place / "dd" / split, [pa.table({"a": [number]})])
    (place / "dd/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(OptionError, match="several splits; expected one of train, test"):
        to_parquet("dd", "out.parquet")
    to_parquet("dd", "out.parquet", ParquetOptions(split="test"))
    assert read() == [{"a": 1}]
    os.remove("dd/test/data-00000-of-00001.arrow")
    with pytest.raises(SourceError, match=r"state.json: test/data-00000-of-00001.arrow is miss"):
        to_parquet("dd", "out.parquet", ParquetOptions(split="test"))


# -- what does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": "x"}', "line 1001: id is text, expected int64"),
        (b'{"id": true}', "line 1001: id is a truth value, expected int64"),
        (b'{"id": 1.0}', "line 1001: id is a number, expected int64"),
        (b'{"id": 9223372036854775808}', "line 1001: id is 9223372036854775808, which int64"),
        (b'{"more": 1}', "line 1001: more is new: no earlier record has it"),
        (b'{"x": {"s": 1, "z": 2}}', "line 1001: x.z is new"),
        (b'{"x": {"l": [1, "2"]}}', r"line 1001: x.l\[\] is text, expected int64"),
        (b'{"text": "\\ud83d"}', r"line 1001: text is '\\ud83d', which string does not hold"),
        (b'{"text": "\xff"}', "line 1001: no valid UTF-8: byte 11"),
        (b'{"id": 1', "line 1001: no valid JSON"),
        (b"[1]", "line 1001: a list, expected an object"),
        (b'{"id": 1} {"id": 2}', "line 1001: no valid JSON: Extra data"),
        (b'{"id": 1,\n"text": "a"}', "line 1001: no valid JSON"),
        (b"[" * 100_000, "line 1001: no valid JSON"),
    ],
)
def test_a_line_that_does_not_fit_is_named(line, why, monkeypatch):
    monkeypatch.setattr(json_rows, "_SAMPLE", 10_000)
    monkeypatch.setattr(json_rows, "_BLOCK", 20_000)
    found = failing("a.jsonl", lines(ROWS) + line + b"\n" + lines(ROWS))
    assert found.startswith("a.jsonl: ")
    assert re.search(why, found), found


def test_an_element_that_does_not_fit_is_named(monkeypatch):
    monkeypatch.setattr(json_rows, "_SAMPLE", 1)
    rows = ",\n".join(json.dumps(row) for row in [*ROWS, {"id": []}])
    assert "a.json: line 1001: id is a list, expected int64" in failing(
        "a.json", f"[{rows}]".encode()
    )
    assert "a.json: line 1001: expected ',' or ']'" in failing("a.json", f"[{rows}".encode())


@pytest.mark.parametrize("pack", [gzip.compress, zst])
def test_compressed_data_that_is_damaged_is_named(pack):
    rows = [{"id": n, "text": os.urandom(20).hex()} for n in range(3000)]
    packed = pack(lines(rows))
    name = "a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst"
    assert f"{name}: line " in failing(name, packed[:-20])
    broken = packed[:5000] + bytes(100) + packed[5100:]
    assert f"{name}: line " in failing(name, broken)


def test_what_there_is_not_is_named(place):
    for name, data in {"a.jsonl": b"", "b.jsonl": b"\n \n", "c.json": b"[]"}.items():
        assert "has no records" in failing(name, data)
    assert "a.txt: nothing to convert; expected .jsonl" in failing("a.txt", b"x")
    with pytest.raises(SourceError, match=r"none\.jsonl"):
        to_parquet("none.jsonl", "out.parquet")
    with pytest.raises(OptionError, match="expected one of bool"):
        ParquetOptions(types={"a": "text"})
    with pytest.raises(OptionError, match="is a folder"):
        to_parquet("a.jsonl", place)
