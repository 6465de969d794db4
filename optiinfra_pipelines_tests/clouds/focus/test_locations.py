"""Locations: what lies there and its bytes, the same for a folder and a bucket, and errors that say what to do."""

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from optiinfra_pipelines.clouds.focus.locations import Location, open_location
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.s3_server import serve_s3
from optiinfra_pipelines_tests.buckets import SECRET, Bucket


@pytest.fixture(scope="module")
def guarded_s3_url() -> Iterator[str]:
    """An S3 server that knows one access key."""
    with serve_s3("AKIAKNOWN") as url:
        yield url


def local(path: Path) -> Location:
    return open_location(BillingSource(location=str(path)), {})


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_folder_is_listed_with_everything_below_it_in_order(tmp_path: Path) -> None:
    for name in ("b/2.csv", "a.csv", "b/1.csv", "c/d/e.txt"):
        write(tmp_path / name, name.encode())
    found = local(tmp_path).list()
    assert [Path(each.path).relative_to(tmp_path).as_posix() for each in found] == [
        "a.csv",
        "b/1.csv",
        "b/2.csv",
        "c/d/e.txt",
    ]
    assert [(each.uri, each.size) for each in found] == [
        (each.path, len(each.uri) - len(str(tmp_path)) - 1) for each in found
    ]
    assert [Path(each.path).name for each in local(tmp_path).list("b")] == ["1.csv", "2.csv"]
    assert local(tmp_path).list("nothing/here") == []


def test_a_bucket_is_listed_with_everything_below_its_prefix_in_order(bucket: Bucket) -> None:
    bucket.put(bills__b__2="2", bills__a="11", other="3", billsandmore="4")
    found = bucket.location("bills").list()
    assert [(each.uri, each.size) for each in found] == [
        (f"s3://{bucket.name}/bills/a", 2),
        (f"s3://{bucket.name}/bills/b/2", 1),
    ]
    assert bucket.location("bills").list("nowhere") == []


def test_a_listing_goes_on_after_its_first_page(bucket: Bucket) -> None:
    bucket.put_all({f"bills/{number:04}.csv": b"" for number in range(1200)})
    found = bucket.location("bills").list()
    assert [each.path for each in found] == [f"{bucket.name}/bills/{number:04}.csv" for number in range(1200)]


def test_a_location_may_be_one_file(tmp_path: Path, bucket: Bucket) -> None:
    path = write(tmp_path / "bill.csv", b"x\n")
    bucket.put(bill="x\n")
    assert [each.uri for each in local(path).list()] == [str(path)]
    assert [each.uri for each in bucket.location("bill").list()] == [f"s3://{bucket.name}/bill"]


def test_bytes_arrive_as_they_lie_there_whatever_the_name_says(tmp_path: Path, bucket: Bucket) -> None:
    packed = gzip.compress(b"x\n") * 3
    bucket.put_all({"bills/a.csv.gz": packed})
    location = bucket.location("bills")
    [stored] = location.list()
    fetched = location.fetch(stored, tmp_path)
    assert fetched.read_bytes() == location.read(stored) == packed
    assert fetched.is_relative_to(tmp_path)
    own = write(tmp_path / "own.csv", b"x\n")
    assert local(own).fetch(local(own).list()[0], tmp_path / "scratch") == own


def test_an_object_is_found_by_its_path_or_not_there(bucket: Bucket) -> None:
    bucket.put(bills__a="1")
    location = bucket.location("bills")
    assert location.object_at(f"{bucket.name}/bills/a") == location.list()[0]
    assert location.object_at(f"{bucket.name}/bills/b") is None


def test_an_object_that_was_written_again_has_another_version(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"1")
    [before] = local(tmp_path).list()
    write(path, b"2")
    os.utime(path, ns=(1, int(before.version) + 1))
    [after] = local(tmp_path).list()
    assert (before.uri, before.size) == (after.uri, after.size)
    assert before.version != after.version


def test_an_object_that_changes_while_it_is_read_is_tried_again_later(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(bills__a="one")
    location = bucket.location("bills")
    [listed] = location.list()
    bucket.put(bills__a="another")
    with pytest.raises(CollectionError, match="changed while it was read") as error:
        location.fetch(listed, tmp_path)
    assert error.value.kind == "transient"


# Errors: kind, address, advice, and no secret


def refused(location: Location) -> CollectionError:
    with pytest.raises(CollectionError) as error:
        location.list()
    assert location.uri in str(error.value)
    assert SECRET not in str(error.value)
    assert "hunter2" not in str(error.value)
    return error.value


def test_a_folder_that_is_not_there_is_a_matter_of_configuration(tmp_path: Path) -> None:
    error = refused(local(tmp_path / "absent"))
    assert error.kind == "not_configured"
    assert str(error) == f"{tmp_path / 'absent'} does not exist; check the connection's location"


def test_a_prefix_or_a_bucket_that_is_not_there_is_a_matter_of_configuration(bucket: Bucket) -> None:
    bucket.put(bills__a="1")
    assert refused(bucket.location("absent")).kind == "not_configured"
    bucket.name = "no-such-bucket"
    error = refused(bucket.location("bills"))
    assert error.kind == "not_configured"
    assert "check the" in str(error)


@pytest.mark.parametrize("prefix", ["", "bills"])
def test_wrong_credentials_are_named_as_such(guarded_s3_url: str, prefix: str) -> None:
    bucket = Bucket(guarded_s3_url, key="AKIAKNOWN")
    bucket.put(bills__a="1")
    assert len(bucket.location(prefix, key="AKIAKNOWN").list()) == 1
    error = refused(bucket.location(prefix, key="AKIAWRONG"))
    assert error.kind == "auth"
    assert "check the connection's credentials" in str(error)
    assert "AKIAWRONG" not in str(error)


def test_a_server_that_is_slow_for_a_moment_is_asked_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(bills__a="content")
    location = bucket.location("bills")
    bucket.fault(f"GET /{bucket.name}", kind="status", status=503, times=2)
    [stored] = location.list()
    bucket.fault(f"GET /{bucket.name}/bills/a", kind="reset", times=1)
    assert location.fetch(stored, tmp_path).read_bytes() == b"content"


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [(403, "auth", "check the connection's credentials"), (503, "throttled", "the next run tries again")],
)
def test_a_server_that_keeps_refusing_is_reported(bucket: Bucket, status: int, kind: str, advice: str) -> None:
    bucket.put(bills__a="1")
    location = bucket.location("bills")
    bucket.fault("", kind="status", status=status, times=99)
    error = refused(location)
    assert error.kind == kind
    assert advice in str(error)


def test_an_azure_location_needs_its_storage_account() -> None:
    source = BillingSource(location="az://container/bills")
    with pytest.raises(
        CollectionError, match=re.escape("name the storage account in credentials.account_name")
    ) as error:
        open_location(source, {})
    assert error.value.kind == "not_configured"


# Google's and Azure's storage: as much of their wire as a listing and a download need

Answer = tuple[int, bytes, dict[str, str]]


@contextmanager
def storage(answer: Callable[[str, str], Answer]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server that answers (method, path) by `answer`; its address, and the (path, authorization) of each request."""
    requests: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append((self.path, self.headers.get("Authorization", "")))
            status, body, headers = answer(self.command, self.path)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


BILL = b"x,y\n1,2\n"
CHANGED = "Thu, 01 Oct 2026 00:00:00 GMT"


def google(method: str, path: str) -> Answer:
    if path == "/token":
        return 200, b'{"access_token": "token-1", "expires_in": 3600}', {}
    if "alt=media" in path:
        return 200, BILL, {}
    if "/o?" in path:
        item = {"name": "bills/a.csv", "bucket": "bucket", "size": str(len(BILL)), "updated": "2026-10-01T00:00:00Z"}
        return 200, json.dumps({"kind": "storage#objects", "items": [item]}).encode(), {}
    return 404, b'{"error": {"code": 404, "message": "not here"}}', {}


def azure(method: str, path: str) -> Answer:
    if "comp=list" in path:
        return 200, AZURE_LISTING.encode(), {"Content-Type": "application/xml"}
    if path.endswith("a.csv"):
        properties = {"x-ms-blob-type": "BlockBlob", "x-ms-creation-time": CHANGED, "x-ms-server-encrypted": "true"}
        return 200, BILL, properties | {"Last-Modified": CHANGED, "ETag": '"1"', "Content-Type": "text/csv"}
    return 404, b"", {"x-ms-error-code": "BlobNotFound"}


AZURE_LISTING = f"""<?xml version="1.0" encoding="utf-8"?>
<EnumerationResults ServiceEndpoint="x" ContainerName="container"><Prefix>bills/</Prefix><Blobs><Blob>
<Name>bills/a.csv</Name><Properties><Creation-Time>{CHANGED}</Creation-Time><Last-Modified>{CHANGED}</Last-Modified>
<Etag>1</Etag><Content-Length>{len(BILL)}</Content-Length><Content-Type>text/csv</Content-Type>
<BlobType>BlockBlob</BlobType><LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>
<ServerEncrypted>true</ServerEncrypted></Properties></Blob></Blobs><NextMarker/></EnumerationResults>"""


@pytest.fixture(scope="module")
def service_account() -> dict[str, str]:
    """The JSON key of a service account, its private key made for this run."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"type": "service_account", "client_email": "reader@project", "private_key": key.decode()}


def test_google_storage_is_read_as_the_service_account(service_account: dict[str, str]) -> None:
    with storage(google) as (url, requests):
        account = SecretStr(json.dumps(service_account | {"token_uri": f"{url}/token"}))
        source = BillingSource(location="gs://bucket/bills", endpoint_url=url)
        location = open_location(source, {"service_account_json": account})
        [stored] = location.list()
        assert (stored.uri, stored.size, location.read(stored)) == ("gs://bucket/bills/a.csv", len(BILL), BILL)
    assert {authorization for path, authorization in requests if path != "/token"} == {"Bearer token-1"}


def test_a_service_account_that_google_refuses_is_named_as_such(service_account: dict[str, str]) -> None:
    with storage(lambda method, path: (401, b'{"error": "invalid_grant"}', {})) as (url, _):
        account = service_account | {"token_uri": f"{url}/token"}
        with pytest.raises(CollectionError, match="Google refused the service account") as error:
            open_location(
                BillingSource(location="gs://bucket/bills"), {"service_account_json": SecretStr(json.dumps(account))}
            )
    assert error.value.kind == "auth"
    assert "PRIVATE KEY" not in str(error.value)


def test_azure_storage_is_read_by_a_connection_string() -> None:
    with storage(azure) as (url, requests):
        written = f"DefaultEndpointsProtocol=http;AccountName=acme;AccountKey=a2V5a2V5;BlobEndpoint={url}/acme;"
        source = BillingSource(location="az://container/bills")
        location = open_location(source, {"connection_string": SecretStr(written)})
        [stored] = location.list()
        assert (stored.uri, stored.size, location.read(stored)) == ("az://container/bills/a.csv", len(BILL), BILL)
    assert all(authorization.startswith("SharedKey acme:") for _, authorization in requests)


@pytest.mark.parametrize(
    ("given", "credentials"),
    [
        ("s3://bucket/bills", {"access_key_id": "AKIATEST"}),
        ("gs://bucket/bills", {"service_account_json": f"{SECRET} is no JSON"}),
        ("gs://bucket/bills", {"service_account_json": json.dumps({"private_key": SECRET})}),
        ("az://container/bills", {"connection_string": f"AccountName {SECRET}"}),
    ],
)
def test_credentials_that_are_not_well_formed_are_a_matter_of_configuration(
    given: str, credentials: dict[str, str]
) -> None:
    with pytest.raises(CollectionError, match="credentials") as error:
        open_location(BillingSource(location=given), {name: SecretStr(value) for name, value in credentials.items()})
    assert error.value.kind == "not_configured"
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("az://container/bills/", "az://container/bills"),
        ("abfss://container@account.dfs.core.windows.net/bills", "az://container/bills"),
        ("gs://bucket/bills/", "gs://bucket/bills"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_locations_of_every_cloud_are_understood_without_contacting_it(given: str, uri: str) -> None:
    endpoint = "http://127.0.0.1:9" if given.startswith("gs") else None
    credentials = {"account_name": SecretStr("account"), "account_key": SecretStr("a2V5")} if given[0] == "a" else {}
    source = BillingSource(location=given, endpoint_url=endpoint, region="us-east-1" if given[0] == "s" else None)
    assert open_location(source, credentials).uri == uri
