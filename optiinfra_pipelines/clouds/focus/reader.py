"""Files of a bill as relations that DuckDB can read: Parquet in place, CSV as Arrow batches of text.

Remote objects are fetched one set at a time into a scratch folder, so both passes over a set see the same bytes
and neither memory nor disk grows with the bill. Lines that are no rows are kept aside, never skipped in silence.
"""

import csv
import gzip
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from optiinfra_pipelines.clouds.focus.locations import Location, StoredObject
from optiinfra_pipelines.clouds.focus.normaliser import ROW_NUMBER, SOURCE
from optiinfra_pipelines.clouds.focus.sql import literal
from optiinfra_pipelines.errors import CollectionError

SCRATCH_BYTES = 1 << 30  # fetched at a time; a single larger object is fetched alone
_FETCHED_AHEAD = 8
_CSV_BLOCK = 4 << 20
_NULLS = ["", "NULL", "null", "Null"]


@dataclass(frozen=True)
class RaggedLine:
    """A CSV line with more or fewer fields than its header. `row_number` counts data lines from 1."""

    source: str
    row_number: int
    text: str
    expected: int
    actual: int


@dataclass
class RowSet:
    """Files with the very same columns, local now: a relation for DuckDB, readable as often as needed."""

    schema: pa.Schema
    files: list[tuple[StoredObject, Path]]
    prefix: str
    ragged: list[RaggedLine] = field(default_factory=list)
    failures: list[CollectionError] = field(default_factory=list)
    _csv_row_count: int = 0

    @property
    def is_parquet(self) -> bool:
        return not _is_csv(self.files[0][0])

    @property
    def relation(self) -> str:
        """SQL to stand after FROM: the files' columns as c0, c1, ..., x_source and x_row_number. CSV comes as `source`.

        Names of files may differ in case alone, which SQL does not see, or be those of other columns.
        """
        if not self.is_parquet:
            return "source"
        paths = ", ".join(literal(re.sub(r"([*?\[])", r"[\1]", str(path))) for _, path in self.files)  # no pattern
        names = ", ".join(f"c{index}" for index in range(len(self.schema)))
        columns = ", ".join(_utc(f"c{index}", each) for index, each in enumerate(self.schema.types))
        origin = f"{literal(self.prefix)} || substr(filename, {self._scratch_length + 1})"
        return (
            f"(SELECT {columns}, {origin} AS {SOURCE}, file_row_number + 1 AS {ROW_NUMBER} FROM read_parquet([{paths}],"
            f" filename = true, file_row_number = true, hive_partitioning = false) AS file({names}))"
        )

    def rows(self, watch: Callable[[pa.RecordBatch], None] | None = None) -> pa.RecordBatchReader | None:
        """The batches that `source` stands for, each shown to `watch` too; None where DuckDB reads the files itself."""
        if self.is_parquet:
            return None
        columns = [(f"c{index}", each) for index, each in enumerate(self.schema.types)]
        schema = pa.schema([*columns, (SOURCE, pa.dictionary(pa.int32(), pa.string())), (ROW_NUMBER, pa.int64())])
        return pa.RecordBatchReader.from_batches(schema, self._csv_rows(schema, watch))

    def columns(self, names: Iterable[str]) -> Iterator[pa.RecordBatch]:
        """Batches of some columns alone, read by Arrow whatever reads the rest."""
        import pyarrow.parquet as pq

        wanted = list(names) or self.schema.names[:1]  # of none, the number of rows is still wanted
        self.ragged.clear()
        for stored, path in self.files:
            if self.is_parquet:
                with _malformed(stored, "a Parquet file"):
                    yield from pq.ParquetFile(path).iter_batches(batch_size=1 << 17, columns=wanted)
            else:
                yield from (batch.select(wanted) for batch, _ in _csv_batches(stored, path, self.ragged))

    def check(self) -> None:
        """Read everything; CollectionError names the file that cannot be read. For finding out why a load failed."""
        for _ in self.columns(self.schema.names):
            pass

    @property
    def row_count(self) -> int:
        """Rows in the files, ragged lines apart: what Parquet footers promise, or what was read of CSV so far."""
        import pyarrow.parquet as pq

        if not self.is_parquet:
            return self._csv_row_count
        return sum(pq.read_metadata(path).num_rows for _, path in self.files)

    @property
    def _scratch_length(self) -> int:
        stored, path = self.files[0]
        return len(str(path)) - len(stored.path)

    def _csv_rows(self, schema: pa.Schema, watch: Callable[[pa.RecordBatch], None] | None) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._labelled(schema, watch)
        except CollectionError as error:
            self.failures.append(error)
            raise

    def _labelled(self, schema: pa.Schema, watch: Callable[[pa.RecordBatch], None] | None) -> Iterator[pa.RecordBatch]:
        self.ragged.clear()
        self._csv_row_count = 0
        for stored, path in self.files:
            for batch, numbers in _csv_batches(stored, path, self.ragged):
                if watch is not None:
                    watch(batch)
                source = pa.DictionaryArray.from_arrays(
                    pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows), [stored.uri]
                )
                self._csv_row_count += batch.num_rows
                yield pa.RecordBatch.from_arrays([*batch.columns, source, numbers], schema=schema)


def _utc(column: str, kind: pa.DataType) -> str:
    zoned = pa.types.is_timestamp(kind) and kind.tz is not None
    return f"timezone('UTC', {column}) AS {column}" if zoned else column


@contextmanager
def row_sets(location: Location, objects: Iterable[StoredObject]) -> Iterator[Iterator[RowSet]]:
    """Fetch `objects` and hand them out as sets of equal columns, each valid until the next is asked for.

    CollectionError (malformed) names the object that is no bill: truncated Parquet, wrong encoding, no header. It is
    raised in place of what DuckDB makes of it where it arose in batches that DuckDB was reading.
    """
    failures: list[CollectionError] = []
    with (
        TemporaryDirectory(prefix="optiinfra-bill-") as scratch,
        closing(_row_sets(location, objects, Path(scratch), failures)) as sets,
    ):
        try:
            yield sets
        finally:
            if failures:
                raise failures[0]


def _fetched(location: Location, objects: Iterable[StoredObject], scratch: Path) -> Iterator[tuple[StoredObject, Path]]:
    """Each object with its local file, in order; a few are fetched ahead, for a listing can hold thousands."""
    ahead: deque[tuple[StoredObject, Future[Path]]] = deque()
    with ThreadPoolExecutor(_FETCHED_AHEAD) as pool:
        for each in objects:
            ahead.append((each, pool.submit(location.fetch, each, scratch)))
            if len(ahead) == _FETCHED_AHEAD:
                stored, fetching = ahead.popleft()
                yield stored, fetching.result()
        for stored, fetching in ahead:
            yield stored, fetching.result()


def _row_sets(
    location: Location, objects: Iterable[StoredObject], scratch: Path, failures: list[CollectionError]
) -> Generator[RowSet, None, None]:
    current: RowSet | None = None
    for stored, path in _fetched(location, objects, scratch):
        schema = _schema(stored, path)
        held = sum(each.size for each, _ in current.files) if current else 0
        fits = held + stored.size <= SCRATCH_BYTES
        if current and fits and current.schema.equals(schema) and _is_csv(current.files[0][0]) == _is_csv(stored):
            current.files.append((stored, path))
            continue
        if current:
            yield current
            _forget(current, scratch)
        current = RowSet(schema, [(stored, path)], location.address(""), failures=failures)
    if current:
        yield current


def _forget(done: RowSet, scratch: Path) -> None:
    for _, path in done.files:
        if path.is_relative_to(scratch):
            path.unlink()


def _is_csv(stored: StoredObject) -> bool:
    return stored.path.lower().endswith((".csv", ".csv.gz"))


def _schema(stored: StoredObject, path: Path) -> pa.Schema:
    import pyarrow.parquet as pq

    if _is_csv(stored):
        schema = pa.schema([(name, pa.string()) for name in _header(stored, path)[0]])
    else:
        with _malformed(stored, "a Parquet file"):
            found = pq.read_schema(path)
        # That Arrow once wrote a dictionary is its own affair: DuckDB sees what the dictionary stands for.
        kinds = [each.value_type if pa.types.is_dictionary(each) else each for each in found.types]
        schema = pa.schema(zip(found.names, kinds, strict=True))
    doubled = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if not any(schema.names) or doubled:
        wrong = f"names {', '.join(doubled)} twice" if doubled else "has no header"
        raise CollectionError("malformed", f"{stored.uri} {wrong}; nothing of this period was loaded")
    return schema


def _header(stored: StoredObject, path: Path) -> tuple[list[str], bool]:
    """The names in a CSV file's first line, and whether another line follows."""
    with _malformed(stored, "a CSV file in UTF-8"), _text(path) as lines:
        names = next(csv.reader(lines), [])
        return [name.strip() for name in names], next(lines, None) is not None


@contextmanager
def _text(path: Path) -> Iterator[Iterator[str]]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with (
        gzip.open(path, "rt", encoding="utf-8-sig", newline="")
        if packed
        else path.open(encoding="utf-8-sig", newline="") as lines
    ):
        yield lines


def _csv_batches(
    stored: StoredObject, path: Path, ragged: list[RaggedLine]
) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Batches of text columns with each row's number among the file's data lines."""
    import pyarrow.csv as arrow_csv

    names, more = _header(stored, path)
    if not more:
        return
    here: list[RaggedLine] = []

    def keep_aside(row: arrow_csv.InvalidRow) -> str:
        here.append(RaggedLine(stored.uri, row.number - 1, row.text, row.expected_columns, row.actual_columns))
        return "skip"

    with _malformed(stored, "a CSV file in UTF-8"), path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = arrow_csv.open_csv(
            pa.CompressedInputStream(file, "gzip") if packed else file,
            # One thread: only then does Arrow say which line was ragged.
            read_options=arrow_csv.ReadOptions(
                use_threads=False, block_size=_CSV_BLOCK, column_names=names, skip_rows_after_names=1
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep_aside),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=_NULLS, strings_can_be_null=True
            ),
        )
        number = 1
        for batch in stream:
            numbers, number = _numbers(number, batch.num_rows, {each.row_number for each in here})
            yield batch, numbers
    ragged.extend(here)


def _numbers(first: int, count: int, left_out: set[int]) -> tuple[pa.Array, int]:
    """Numbers of `count` rows from `first` on, passing over the ones left out; and the next number."""
    import numpy as np

    ahead = sorted(each for each in left_out if each >= first)
    numbers = np.arange(first, first + count + len(ahead))
    numbers = numbers[~np.isin(numbers, ahead)][:count]
    return pa.array(numbers), (int(numbers[-1]) + 1 if count else first)


@contextmanager
def _malformed(stored: StoredObject, expected: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, UnicodeDecodeError, EOFError, csv.Error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        detail = str(error).splitlines()[0]
        raise CollectionError(
            "malformed", f"{stored.uri} is not {expected} or is truncated ({detail}); nothing of this period was loaded"
        ) from error
