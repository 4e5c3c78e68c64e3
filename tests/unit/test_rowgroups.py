"""A digest of values: the same wherever they lie, another for other values."""

from __future__ import annotations

import datetime as dt
import decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_prep.errors import MergeError
from datasets_prep.rowgroups import compare, digest

NESTED = pa.struct(
    {
        "text": pa.string(),
        "many": pa.list_(pa.int64()),
        "deep": pa.struct({"yes": pa.bool_(), "nothing": pa.list_(pa.null())}),
    }
)
small = st.none() | st.integers(-3, 3)
values = st.none() | st.fixed_dictionaries(
    {
        "text": st.none() | st.text(max_size=3),
        "many": st.none() | st.lists(small, max_size=3),
        "deep": st.none()
        | st.fixed_dictionaries(
            {
                "yes": st.none() | st.booleans(),
                "nothing": st.none() | st.lists(st.none(), max_size=2),
            }
        ),
    }
)
columns = st.lists(values, max_size=12)
TYPES = {
    "bool": [True, None, False],
    "string": ["x", None, ""],
    "large_string": ["x", None, ""],
    "string_view": ["x", None, ""],
    "binary": [b"x", None, b""],
    "date": [dt.date(2026, 1, 1), None],
    "decimal": [decimal.Decimal("1.5"), None],
    "fixed": [b"ab", None],
    "map": [[("a", 1)], None, [("b", None)]],
    "pair": [[1, 2], None, [3, None]],
    "large_list": [["x", None], None, []],
    "list_view": [["x", None], None, []],
    "dictionary": ["x", None, "y"],
}
KINDS = {
    "bool": pa.bool_(),
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "decimal": pa.decimal128(5, 2),
    "fixed": pa.binary(2),
    "map": pa.map_(pa.string(), pa.int64()),
    "pair": pa.list_(pa.int32(), 2),
    "large_list": pa.large_list(pa.string()),
    "list_view": pa.list_view(pa.string()),
    "dictionary": pa.dictionary(pa.int8(), pa.string()),
}


def of(rows, kind):
    return pa.table({"a": pa.array(rows, kind)})


def read_back(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    found = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
    return found.read_row_group(0, use_threads=False)


@settings(deadline=None, max_examples=150)
@given(one=columns, two=columns)
def test_nested_values_have_one_digest_wherever_they_lie(one, two):
    stored = read_back(of(one or [None], NESTED)).schema.field(0).type
    table, other = of(one, stored), of(two, stored)
    both = of([*two, *one, *two], stored).slice(len(two), len(one))  # in the middle of others
    apart = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    assert digest(table) == digest(both) == digest(apart)
    assert (digest(table) == digest(other)) == (one == two)
    if one:
        assert digest(read_back(table)) == digest(table)


@pytest.mark.parametrize("name", KINDS)
def test_each_type_is_read_back_with_its_digest(name):
    rows = TYPES[name] * 7
    stored = read_back(of(rows, KINDS[name])).schema.field(0).type
    table = of(rows, KINDS[name]).cast(pa.schema([("a", stored)]))
    assert digest(read_back(table)) == digest(table)
    assert digest(table.slice(1, 3)) == digest(of(rows[1:4], stored))
    assert digest(table) != digest(table.slice(0, 6))
    assert digest(of([rows[0], None], stored)) != digest(of([None, rows[0]], stored))


def test_values_below_a_null_do_not_count():
    hidden = pa.Array.from_buffers(
        pa.int32(), 30, [pa.py_buffer(b"\xa5" * 4), pa.py_buffer(bytes(range(120)))]
    )
    assert digest(pa.table({"a": hidden})) == digest(of(hidden.to_pylist(), pa.int32()))


def test_a_file_with_other_values_is_not_taken(tmp_path):
    table = of([1, None, 3] * 10, pa.int64())
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=15)
    halves = [digest(table.slice(0, 15)), digest(table.slice(15))]
    compare(path, halves)
    for wrong, why in (
        (halves[:1], "2 row groups written, expected 1"),
        ([halves[0], digest(table.slice(14, 15))], "row group 1 was written otherwise"),
    ):
        with pytest.raises(MergeError, match=why):
            compare(path, wrong)
    path.write_bytes(b"PAR1")
    with pytest.raises(MergeError, match="no Parquet file"):
        compare(path, halves)
