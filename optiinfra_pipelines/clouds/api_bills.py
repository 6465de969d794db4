"""Bills that an API tells instead of files: fetched into a scratch file of FOCUS columns, which is then loaded as any
other bill is, with all that this means: exact digits, rejected rows, totals of the source, one load a period.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from optiinfra_pipelines.clouds.collecting import BillSource, Source
from optiinfra_pipelines.clouds.focus.locations import Location, StoredObject
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import BillingPeriod

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

_BILLS = {
    "cost-explorer": ("optiinfra_pipelines.clouds.aws.bill", "CostExplorerBill"),
    "bigquery": ("optiinfra_pipelines.clouds.gcp.bill", "BigQueryBill"),
    "cost-management": ("optiinfra_pipelines.clouds.azure.bill", "CostManagementBill"),
    "vultr": ("optiinfra_pipelines.clouds.vultr.bill", "VultrBill"),
}


def open_api_bill(source: Source) -> BillSource:
    """The API that the connection's billing location names; nothing is contacted."""
    if source.connection.billing is None or not source.connection.billing.is_api:
        raise CollectionError("not_configured", f"{source.name} has no billing location that is an API")
    module, name = _BILLS[source.connection.billing.scheme]
    return cast(BillSource, getattr(import_module(module), name)(source))


class AnswerLocation(Location):
    """A scratch folder with one answer, shown under the API's address `uri`; `version` is a hash of all it says, so
    that it changes with the content alone."""

    def __init__(self, folder: Path, uri: str, version: str) -> None:
        from pyarrow.fs import LocalFileSystem

        super().__init__(LocalFileSystem(), str(folder), "")
        self.uri = uri
        self._version = version

    def _object(self, info: "FileInfo") -> StoredObject:
        return StoredObject(self.uri, info.path, info.size, self._version)


@contextmanager
def fetched(source: Source, period: BillingPeriod) -> Iterator[Location]:
    """A location with the API's answer for `period` while the block lasts; an empty one where there is no bill."""
    import pyarrow.parquet as pq

    rows = open_api_bill(source).rows(period)
    address = f"{source.connection.billing.location if source.connection.billing else ''}/{period}"
    with TemporaryDirectory(prefix="optiinfra-bill-") as scratch:
        folder = Path(scratch) / "bill"
        folder.mkdir()
        if rows.num_rows:
            month = folder / f"BILLING_PERIOD={period}"
            month.mkdir()
            pq.write_table(rows, month / "answer.parquet")
        said = sha256(repr(rows.schema.names).encode())
        for column in rows.columns:
            said.update(repr(column.to_pylist()).encode())
        yield AnswerLocation(folder, address, said.hexdigest())
