"""Which objects of an export make up a billing period: manifests, export folders, or plain folders of files."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from optiinfra_pipelines.clouds.focus.locations import Location, StoredObject
from optiinfra_pipelines.clouds.focus.normaliser import MAPPING_VERSION, period_of_path
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import BillingPeriod

_DATA_SUFFIXES = (".parquet", ".csv", ".csv.gz")


@dataclass(frozen=True)
class PeriodFiles:
    """The objects of one billing period: `placed` ones are its own, of `mixed` ones the rows have to tell.

    `defaults` are what the connection fills in where files lack a column.
    """

    placed: tuple[StoredObject, ...]
    mixed: tuple[StoredObject, ...]
    defaults: Mapping[str, str]

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        return self.placed + self.mixed

    @property
    def fingerprint(self) -> str:
        """Equal for equal names, sizes and versions that are read alike: then there is nothing to load."""
        reading = f"mapping {MAPPING_VERSION} {json.dumps(dict(self.defaults), sort_keys=True)}"
        parts = [reading, *(f"{each.uri} {each.size} {each.version}" for each in self.objects)]
        return sha256("\n".join(parts).encode()).hexdigest()


def period_files(location: Location, source: BillingSource, period: BillingPeriod) -> PeriodFiles:
    """The objects that make up `period`. CollectionError where the export is not what its layout says."""
    if source.layout == "files":
        named = [(each, _period_named(location, each)) for each in location.list() if _is_data(each)]
        placed = tuple(each for each, name in named if name == str(period))
        mixed = tuple(each for each, name in named if name is None)
        return PeriodFiles(placed, mixed, source.defaults)
    if source.layout == "azure_export":
        return PeriodFiles(_azure_export(location, period), (), source.defaults)
    return PeriodFiles(_by_manifest(location, source.layout, period), (), source.defaults)


def known_periods(location: Location) -> set[BillingPeriod]:
    """The billing periods that paths of the location name; plain files without a period in their path add none."""
    return {BillingPeriod(named) for each in location.list() if (named := _period_named(location, each))}


def unplaced_files(location: Location) -> tuple[StoredObject, ...]:
    """Data files whose path names no period: only their rows can tell."""
    return tuple(each for each in location.list() if _is_data(each) and not _period_named(location, each))


def _period_named(location: Location, stored: StoredObject) -> str | None:
    """The period that the object's path names below the location: folders above it are not the export's."""
    return period_of_path(stored.path.removeprefix(location.root))


def _is_data(stored: StoredObject) -> bool:
    name = PurePosixPath(stored.path).name.lower()
    return name.endswith(_DATA_SUFFIXES) and not name.startswith((".", "_"))


def _by_manifest(location: Location, layout: str, period: BillingPeriod) -> tuple[StoredObject, ...]:
    """AWS writes a manifest last; it alone says which files belong together, whatever else lies beside them."""
    folder = f"metadata/BILLING_PERIOD={period}" if layout == "aws_data_export" else _cur_folder(period)
    found = location.list(folder)
    manifests = [each for each in found if each.path.endswith("-Manifest.json")]
    if not manifests:
        if location.list(f"data/BILLING_PERIOD={period}") if layout == "aws_data_export" else found:
            raise CollectionError(
                "malformed",
                f"billing export {location.uri} has files but no manifest for {period}; the export is still being "
                "written, or the location is not the export's own folder",
            )
        return ()
    # A report's top manifest points at its newest assembly, whose own copy lies one folder deeper.
    newest = max(manifests, key=lambda each: (-each.path.count("/"), int(each.version), each.path))
    manifest = _manifest(location, newest)
    names = manifest.get("dataFiles") or [each.get("filePath") for each in manifest.get("dataFileList", ())]
    names = names or manifest.get("reportKeys")
    if not names:
        raise CollectionError("malformed", f"{newest.uri} names no data files; is it a Data Exports or CUR manifest?")
    bucket = location.root.split("/", 1)[0]
    return tuple(_named(location, newest, f"{bucket}/{_key(str(name))}") for name in names)


def _cur_folder(period: BillingPeriod) -> str:
    return f"{period.start:%Y%m%d}-{period.end:%Y%m%d}"


def _key(name: str) -> str:
    """A manifest names files as `s3://bucket/key`, `arn:aws:s3:::bucket/key` or as a bare key."""
    for prefix in ("s3://", "arn:aws:s3:::"):
        if name.startswith(prefix):
            return name.removeprefix(prefix).split("/", 1)[1]
    return name.lstrip("/")


def _named(location: Location, manifest: StoredObject, path: str) -> StoredObject:
    stored = location.object_at(path)
    if stored is None:
        raise CollectionError(
            "transient",
            f"{manifest.uri} names {location.address(path)}, which is not there; the export is being rewritten, "
            "the next run tries again",
        )
    return stored


def _manifest(location: Location, stored: StoredObject) -> dict[str, Any]:
    try:
        manifest = json.loads(location.read(stored))
    except ValueError as error:
        raise CollectionError("malformed", f"{stored.uri} is not JSON ({error}); the next run tries again") from error
    if not isinstance(manifest, dict):
        raise CollectionError("malformed", f"{stored.uri} is no manifest: a JSON object was expected")
    return manifest


def _azure_export(location: Location, period: BillingPeriod) -> tuple[StoredObject, ...]:
    """Azure keeps each run in a folder of its own below the month: the newest one that finished is the bill."""
    runs: dict[str, list[StoredObject]] = defaultdict(list)
    for each in location.list():
        if _period_named(location, each) == str(period):
            runs[str(PurePosixPath(each.path).parent)].append(each)
    finished = {folder: _azure_manifest(location, objects) for folder, objects in runs.items()}
    with_manifest = {folder: found for folder, found in finished.items() if found is not None}
    if with_manifest:
        folder = max(with_manifest, key=lambda each: with_manifest[each][1])
        stored, _, names = with_manifest[folder]
        container = location.root.split("/", 1)[0]
        return tuple(_named(location, stored, f"{container}/{name}") for name in names)
    without = {folder: [each for each in objects if _is_data(each)] for folder, objects in runs.items()}
    without = {folder: objects for folder, objects in without.items() if objects}
    if not without:
        return ()
    return tuple(max(without.values(), key=lambda objects: max(int(each.version) for each in objects)))


def _azure_manifest(
    location: Location, objects: Iterable[StoredObject]
) -> tuple[StoredObject, tuple[str, str], list[str]] | None:
    """(manifest, sort key of its run, blob names); None where the run has none and so did not finish."""
    for each in objects:
        if PurePosixPath(each.path).name == "manifest.json":
            manifest = _manifest(location, each)
            submitted = str(manifest.get("runInfo", {}).get("submittedTime", ""))
            return each, (submitted, each.version), [str(blob["blobName"]) for blob in manifest.get("blobs", ())]
    return None
