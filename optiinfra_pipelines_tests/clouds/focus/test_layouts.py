"""Which objects make up a month: what a manifest says, the newest finished run, or what paths say; never a leftover."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from optiinfra_pipelines.clouds.focus.layouts import PeriodFiles, known_periods, period_files, unplaced_files
from optiinfra_pipelines.clouds.focus.locations import open_location
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.buckets import Bucket
from optiinfra_pipelines_tests.focus_files import OCTOBER

EXPORT = "exports/focus"
METADATA = f"{EXPORT}/metadata/BILLING_PERIOD=2026-10"
DATA = f"{EXPORT}/data/BILLING_PERIOD=2026-10"
REPORT = "reports/cur"
AZURE = "exports/actual"


def found(bucket: Bucket, layout: Any, prefix: str, period: BillingPeriod = OCTOBER) -> list[str]:
    """Keys of the objects of `period`."""
    source = BillingSource(location=f"s3://{bucket.name}/{prefix}", layout=layout, endpoint_url=bucket.url)
    files = period_files(bucket.location(prefix), source, period)
    assert files.mixed == ()
    return [each.path.removeprefix(f"{bucket.name}/") for each in files.objects]


def refused(bucket: Bucket, layout: Any, prefix: str) -> CollectionError:
    with pytest.raises(CollectionError) as error:
        found(bucket, layout, prefix)
    assert f"s3://{bucket.name}/{prefix}" in str(error.value)
    return error.value


def manifest(bucket: Bucket, *keys: str, name: str = "dataFiles", prefix: str = "s3://{bucket}/") -> bytes:
    return json.dumps({name: [prefix.format(bucket=bucket.name) + key for key in keys]}).encode()


# AWS Data Exports and Cost and Usage Reports


def test_a_manifest_alone_says_which_files_are_current(bucket: Bucket) -> None:
    bucket.put_all(
        {
            f"{METADATA}/focus-Manifest.json": manifest(bucket, f"{DATA}/2.parquet", f"{DATA}/1.parquet"),
            **dict.fromkeys([f"{DATA}/1.parquet", f"{DATA}/2.parquet", f"{DATA}/left-over.parquet"], b"PAR1"),
            f"{EXPORT}/data/BILLING_PERIOD=2026-09/1.parquet": b"PAR1",
        }
    )
    assert found(bucket, "aws_data_export", EXPORT) == [f"{DATA}/2.parquet", f"{DATA}/1.parquet"]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("dataFiles", "s3://{bucket}/"), ("dataFiles", "arn:aws:s3:::{bucket}/"), ("dataFiles", ""), ("reportKeys", "/")],
)
def test_a_manifest_may_spell_its_files_in_several_ways(bucket: Bucket, name: str, prefix: str) -> None:
    bucket.put_all(
        {
            f"{METADATA}/focus-Manifest.json": manifest(bucket, f"{DATA}/1.parquet", name=name, prefix=prefix),
            f"{DATA}/1.parquet": b"PAR1",
        }
    )
    assert found(bucket, "aws_data_export", EXPORT) == [f"{DATA}/1.parquet"]


def test_an_export_that_creates_new_files_is_read_from_its_newest_execution(bucket: Bucket) -> None:
    objects = {}
    for execution in ("2026-10-03T04:00:00.000Z-b", "2026-10-04T04:00:00.000Z-a", "2026-10-02T04:00:00.000Z-c"):
        objects[f"{METADATA}/{execution}/focus-Manifest.json"] = manifest(bucket, f"{DATA}/{execution}/1.parquet")
        objects[f"{DATA}/{execution}/1.parquet"] = b"PAR1"
    for key in sorted(objects):  # in the order of time, as AWS writes them
        bucket.put_all({key: objects[key]})
    assert found(bucket, "aws_data_export", EXPORT) == [f"{DATA}/2026-10-04T04:00:00.000Z-a/1.parquet"]


def test_a_report_is_read_from_the_assembly_that_its_manifest_points_at(bucket: Bucket) -> None:
    month = f"{REPORT}/20261001-20261101"
    new, old = f"{month}/assembly-new/cur-1.csv.gz", f"{month}/assembly-old/cur-1.csv.gz"
    bucket.put_all(
        {
            f"{month}/cur-Manifest.json": manifest(bucket, new, name="reportKeys", prefix=""),
            f"{month}/assembly-new/cur-Manifest.json": manifest(bucket, new, name="reportKeys", prefix=""),
            f"{month}/assembly-old/cur-Manifest.json": manifest(bucket, old, name="reportKeys", prefix=""),
            new: b"x",
            old: b"x",
        }
    )
    assert found(bucket, "aws_cur", REPORT) == [new]
    assert found(bucket, "aws_cur", REPORT, OCTOBER.previous) == []
    assert known_periods(bucket.location(REPORT)) == {OCTOBER}


def test_files_without_a_manifest_are_not_guessed_at(bucket: Bucket) -> None:
    bucket.put_all({f"{DATA}/1.parquet": b"PAR1", f"{REPORT}/20261001-20261101/a/cur-1.csv": b"x"})
    for layout, prefix in (("aws_data_export", EXPORT), ("aws_cur", REPORT)):
        error = refused(bucket, layout, prefix)
        assert error.kind == "malformed"
        assert "has files but no manifest for 2026-10" in str(error)


def test_a_month_of_which_nothing_is_there_has_no_files(bucket: Bucket) -> None:
    bucket.put_all({f"{EXPORT}/readme.txt": b"x"})
    for layout in ("aws_data_export", "aws_cur", "azure_export", "files"):
        assert found(bucket, layout, EXPORT) == []


def test_a_manifest_that_names_an_absent_file_waits_for_the_next_run(bucket: Bucket) -> None:
    bucket.put_all(
        {
            f"{METADATA}/focus-Manifest.json": manifest(bucket, f"{DATA}/1.parquet", f"{DATA}/2.parquet"),
            f"{DATA}/1.parquet": b"PAR1",
        }
    )
    error = refused(bucket, "aws_data_export", EXPORT)
    assert error.kind == "transient"
    assert f"names s3://{bucket.name}/{DATA}/2.parquet, which is not there" in str(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"dataFiles": [', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'["a"]', "a JSON object was expected"),
        (b'{"dataFiles": []}', "names no data files"),
        (b"{}", "names no data files"),
    ],
)
def test_a_manifest_that_is_none_is_named(bucket: Bucket, content: bytes, said: str) -> None:
    bucket.put_all({f"{METADATA}/focus-Manifest.json": content})
    error = refused(bucket, "aws_data_export", EXPORT)
    assert error.kind == "malformed"
    assert said in str(error)


# Azure


def azure_run(run: str, submitted: str | None, *names: str, month: str = "20261001-20261031") -> dict[str, bytes]:
    """Objects of one run of an export; one without `submitted` has no manifest yet."""
    folder = f"{AZURE}/{month}/{run}"
    objects = {f"{folder}/{name}": b"x" for name in names}
    if submitted is not None:
        described = {"runInfo": {"submittedTime": submitted}, "blobs": [{"blobName": key} for key in objects]}
        objects[f"{folder}/manifest.json"] = json.dumps(described).encode()
    return objects


def test_the_newest_finished_run_of_an_azure_export_is_the_month(bucket: Bucket) -> None:
    bucket.put_all(
        azure_run("zzz", "2026-10-02T05:00:00Z", "part_0.csv")
        | azure_run("aaa", "2026-10-03T05:00:00Z", "part_1.parquet", "part_0.parquet")
        | azure_run("running", None, "part_0.csv")
        | azure_run("older", "2026-11-03T05:00:00Z", "part_0.csv", month="20260901-20260930")
    )
    folder = f"{AZURE}/20261001-20261031/aaa"
    assert found(bucket, "azure_export", AZURE) == [f"{folder}/part_1.parquet", f"{folder}/part_0.parquet"]
    assert found(bucket, "azure_export", AZURE, OCTOBER.previous) == [f"{AZURE}/20260901-20260930/older/part_0.csv"]
    assert known_periods(bucket.location(AZURE)) == {OCTOBER, OCTOBER.previous}


def test_an_azure_export_without_manifests_is_its_run_written_last(tmp_path: Path) -> None:
    for run, age in (("a", 30), ("b", 10), ("c", 20)):
        path = tmp_path / f"20261001-20261031/{run}/part_0.csv"
        path.parent.mkdir(parents=True)
        path.write_text("x\n")
        os.utime(path, ns=(1, 10**18 - age * 10**9))
    source = BillingSource(location=str(tmp_path), layout="azure_export")
    files = period_files(open_location(source, {}), source, OCTOBER)
    assert [each.path for each in files.objects] == [str(tmp_path / "20261001-20261031/b/part_0.csv")]


# Plain files


def plain(folder: Path, *paths: str, **source: Any) -> PeriodFiles:
    """The files of October in a folder in which `paths` were written."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x\n")
    described = BillingSource(location=str(folder), **source)
    return period_files(open_location(described, {}), described, OCTOBER)


def below(folder: Path, files: tuple[Any, ...]) -> list[str]:
    return [Path(each.path).relative_to(folder).as_posix() for each in files]


def test_plain_files_are_placed_by_the_month_in_their_path_or_mixed(tmp_path: Path) -> None:
    paths = ["2026-10/b.csv", "x/BILLING_PERIOD=2026-10/a.parquet", "2026-09/c.csv", "all.csv.gz", "2026-13/odd.csv"]
    ignored = ["2026-10/readme.md", "2026-10/_SUCCESS", "2026-10/.hidden.csv", "_tmp.parquet", "notes.json"]
    files = plain(tmp_path, *paths, *ignored)
    assert below(tmp_path, files.placed) == ["2026-10/b.csv", "x/BILLING_PERIOD=2026-10/a.parquet"]
    assert below(tmp_path, files.mixed) == ["2026-13/odd.csv", "all.csv.gz"]
    location = open_location(BillingSource(location=str(tmp_path)), {})
    assert known_periods(location) == {OCTOBER, OCTOBER.previous}
    assert unplaced_files(location) == files.mixed


def test_a_month_in_a_folder_above_the_location_places_nothing(tmp_path: Path) -> None:
    files = plain(tmp_path / "2026-01", "2026-10/a.csv", "b.csv")
    assert below(tmp_path / "2026-01", files.placed) == ["2026-10/a.csv"]
    assert below(tmp_path / "2026-01", files.mixed) == ["b.csv"]


def test_a_fingerprint_is_equal_for_equal_files_and_changes_with_content_names_and_reading(tmp_path: Path) -> None:
    before = plain(tmp_path, "2026-10/a.csv", "2026-10/b.csv").fingerprint
    written = (tmp_path / "2026-10/a.csv").stat().st_mtime_ns
    assert plain(tmp_path).fingerprint == before
    changed = {"defaults": plain(tmp_path, defaults={"BillingCurrency": "EUR"}).fingerprint}
    os.utime(tmp_path / "2026-10/a.csv", ns=(written, written + 1))
    changed["time"] = plain(tmp_path).fingerprint
    (tmp_path / "2026-10/a.csv").write_text("longer\n")
    changed["content"] = plain(tmp_path).fingerprint
    (tmp_path / "2026-10/b.csv").rename(tmp_path / "2026-10/c.csv")
    changed["name"] = plain(tmp_path).fingerprint
    (tmp_path / "2026-10/c.csv").unlink()
    changed["number"] = plain(tmp_path).fingerprint
    assert len({before, *changed.values()}) == 6
