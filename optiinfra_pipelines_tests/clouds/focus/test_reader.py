"""Files as relations: every row once with its place, and every line that is none kept aside."""

import gzip
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.focus.locations import open_location
from optiinfra_pipelines.clouds.focus.reader import RaggedLine, RowSet, row_sets
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.errors import CollectionError


@dataclass
class Read:
    """One set of files as it was read: its columns, its rows as (source, number, values), its ragged lines."""

    names: list[str]
    rows: list[tuple[str, int, list[Any]]]
    ragged: list[tuple[int, str]]


def read(folder: Path) -> list[Read]:
    """Every set of the files in `folder`, read through DuckDB as a load does."""
    location = open_location(BillingSource(location=str(folder)), {})
    with row_sets(location, location.list()) as sets:
        return [read_set(rows, folder) for rows in sets]


def read_set(rows: RowSet, folder: Path) -> Read:
    with duckdb.connect() as con, ExitStack() as stack:
        con.execute("SET TimeZone = 'UTC'")
        if (batches := rows.rows()) is not None:
            con.register("source", batches)
            stack.callback(con.unregister, "source")
        found = con.execute(f"SELECT * FROM {rows.relation} ORDER BY x_source, x_row_number").fetchall()
    assert len(found) == rows.row_count
    seen = [(str(Path(each[-2]).relative_to(folder)), each[-1], list(each[:-2])) for each in found]
    return Read(rows.schema.names, seen, [(line.row_number, line.text) for line in rows.ragged])


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_file_is_text_row_by_row(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 'x,y\n1,one\n02,"t""w,o"\n3.0,"three\nlines"\n')
    assert read(tmp_path) == [
        Read(
            ["x", "y"],
            [("a.csv", 1, ["1", "one"]), ("a.csv", 2, ["02", 't"w,o']), ("a.csv", 3, ["3.0", "three\nlines"])],
            [],
        )
    ]


@pytest.mark.parametrize("printed", ["", "NULL", "null", "Null", '"NULL"', '""'])
def test_what_programs_print_for_nothing_is_null(tmp_path: Path, printed: str) -> None:
    write(tmp_path / "a.csv", f"x,y\n1,{printed}\n")
    assert read(tmp_path)[0].rows == [("a.csv", 1, ["1", None])]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_endings_and_a_byte_order_mark_do_not_matter(tmp_path: Path, ending: str, mark: str) -> None:
    write(tmp_path / "a.csv", mark + ending.join(["x,y", "1,2", "3,4"]))
    assert read(tmp_path) == [Read(["x", "y"], [("a.csv", 1, ["1", "2"]), ("a.csv", 2, ["3", "4"])], [])]


@settings(max_examples=60)
@given(lines=st.lists(st.sampled_from(["1,2", "3", "4,5,6", '"7\n8",9', ""]), max_size=40), data=st.data())
def test_lines_with_too_many_or_too_few_fields_are_kept_aside_under_their_own_numbers(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ragged")
    write(folder / "a.csv", "x,y\n" + "".join(f"{line}\n" for line in lines))
    [found] = read(folder)
    numbered = list(enumerate((line for line in lines if line), 1))  # an empty line is no row of a file
    assert found.ragged == [(number, line) for number, line in numbered if line in ("3", "4,5,6")]
    assert [number for _, number, _ in found.rows] == [
        number for number, line in numbered if line in ("1,2", '"7\n8",9')
    ]


def test_ragged_lines_keep_their_numbers_across_blocks_of_a_large_file(tmp_path: Path) -> None:
    count = 200_000  # more than a block of four megabytes
    lines = ["only one field" if number % 40_000 == 0 else f"{number},{'v' * 20}" for number in range(1, count + 1)]
    write(tmp_path / "a.csv", "x,y\n" + "\n".join(lines) + "\n")
    [found] = read(tmp_path)
    assert [number for number, _ in found.ragged] == [40_000, 80_000, 120_000, 160_000, 200_000]
    assert all(values[0] == str(number) for _, number, values in found.rows)
    assert len(found.rows) == count - 5


def test_a_ragged_line_says_where_it_stands_and_what_was_expected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,y\n1,2\n1,2,3\n")
    location = open_location(BillingSource(location=str(tmp_path)), {})
    with row_sets(location, location.list()) as sets:
        for rows in sets:
            assert sum(batch.num_rows for batch in rows.rows() or ()) == 1
            assert rows.ragged == [RaggedLine(str(path), 2, "1,2,3", 2, 3)]


@pytest.mark.parametrize("content", ["x,y\n", "x,y", "x,y\r\n", "\ufeffx,y\n", "x,y\n\n\n"])
def test_a_file_of_a_header_alone_has_no_rows(tmp_path: Path, content: str) -> None:
    write(tmp_path / "a.csv", content)
    assert read(tmp_path) == [Read(["x", "y"], [], [])]


def test_a_header_may_run_over_several_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", '"x\nx",y\n1,2\n3\n')
    assert read(tmp_path) == [Read(["x\nx", "y"], [("a.csv", 1, ["1", "2"])], [(2, "3")])]


def test_every_member_of_a_gzip_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.csv.gz", gzip.compress(b"x,y\n1,2\n3") + gzip.compress(b",4\n") + gzip.compress(b"5,6\n"))
    assert [values for _, _, values in read(tmp_path)[0].rows] == [["1", "2"], ["3", "4"], ["5", "6"]]


def test_a_gzip_file_is_known_by_its_content_and_plain_text_too(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", gzip.compress(b"x,y\n1,2\n"))
    write(tmp_path / "b.csv.gz", "x,y\n3,4\n")
    assert read(tmp_path)[0].rows == [("a.csv", 1, ["1", "2"]), ("b.csv.gz", 1, ["3", "4"])]


def test_files_of_equal_columns_are_one_set_and_each_keeps_its_own_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x,y\n1,2\n3,4\n")
    write(tmp_path / "b.csv", "x,y\n5,6\n")
    write(tmp_path / "c.csv", "x,y,z\n7,8,9\n")
    pq.write_table(pa.table({"x": ["1"], "y": ["2"]}), tmp_path / "d.parquet")
    pq.write_table(pa.table({"x": ["3"], "y": ["4"]}), tmp_path / "e.parquet")
    assert [(each.names, [row[:2] for row in each.rows]) for each in read(tmp_path)] == [
        (["x", "y"], [("a.csv", 1), ("a.csv", 2), ("b.csv", 1)]),
        (["x", "y", "z"], [("c.csv", 1)]),
        (["x", "y"], [("d.parquet", 1), ("e.parquet", 1)]),
    ]


def test_parquet_keeps_its_types_and_times_arrive_in_utc(tmp_path: Path) -> None:
    moment = datetime(2026, 10, 1, 4, tzinfo=UTC)
    table = pa.table(
        {
            "zoned": pa.array([moment], pa.timestamp("us", tz="America/New_York")),
            "plain": pa.array([datetime(2026, 10, 1)]),
            "nothing": pa.nulls(1),
            "words": pa.array(["a"]).dictionary_encode(),
            "Words": pa.array(["b"]),
            "tags": pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    [found] = read(tmp_path)
    [(_, _, values)] = found.rows
    assert values == [datetime(2026, 10, 1, 4), datetime(2026, 10, 1), None, "a", "b", {"k": "v"}]
    assert found.names == table.schema.names


def test_paths_that_look_like_patterns_are_only_paths(tmp_path: Path) -> None:
    for name in ("a[1]*?.parquet", "a1xy.parquet", "it's {a}.parquet", "größe.parquet"):
        pq.write_table(pa.table({"x": [name]}), tmp_path / name)
    [found] = read(tmp_path)
    assert sorted((source, values[0]) for source, _, values in found.rows) == sorted(
        (name, name) for name in ("a[1]*?.parquet", "a1xy.parquet", "it's {a}.parquet", "größe.parquet")
    )


def test_a_parquet_file_without_rows_is_a_set_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert read(tmp_path) == [Read(["x"], [], [])]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "has no header"),
        ("a.csv", b"\n\nx,y\n1,2\n", "has no header"),
        ("a.csv", b"x,y,x\n1,2,3\n", "names x twice"),
        ("a.csv", "x,ä\n1,2\n".encode("latin-1"), "is not a CSV file in UTF-8"),
        ("a.csv", b"x,y\n1,\xff\xfe\n", "is not a CSV file in UTF-8"),
        ("a.csv", b"x,y\n" + b"1,2\n" * 1_500_000 + b"1,\xff\n", "is not a CSV file in UTF-8"),
        ("a.csv.gz", gzip.compress(b"x,y\n" + b"1,2\n" * 10_000)[:-30], "is not a CSV file in UTF-8 or is truncated"),
        ("a.csv.gz", b"\x1f\x8b\x08garbage", "is not a CSV file in UTF-8 or is truncated"),
        ("a.parquet", b"", "is not a Parquet file or is truncated"),
        ("a.parquet", b"PAR1 and then nothing", "is not a Parquet file or is truncated"),
    ],
    ids=["empty", "blank", "doubled", "latin", "binary", "late", "cut", "garbage", "no parquet", "half a parquet"],
)
def test_a_file_that_is_no_bill_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(CollectionError) as refused:
        read(tmp_path)
    assert refused.value.kind == "malformed"
    assert str(path) in str(refused.value)
    assert said in str(refused.value)
    assert "nothing of this period was loaded" in str(refused.value)


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": list(range(10_000))}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    write(tmp_path / "a.parquet", whole[: len(whole) // 2])
    with pytest.raises(CollectionError, match="is not a Parquet file or is truncated"):
        read(tmp_path)
