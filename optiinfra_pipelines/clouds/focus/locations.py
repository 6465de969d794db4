"""Where bills lie: local folders, S3, Google Cloud Storage and Azure Blob behind one small face: listing and bytes."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from optiinfra_pipelines.errors import CollectionError, ErrorKind
from optiinfra_pipelines.places import Place

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

_CHUNK = 8 << 20  # bytes copied at a time when an object is fetched
_READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
Credentials = Mapping[str, SecretStr]


@dataclass(frozen=True)
class StoredObject:
    """One object: its full address, its path inside the location, bytes, and what tells one version from the next."""

    uri: str
    path: str
    size: int
    version: str


class Location:
    """A folder (or one file) somewhere. Errors are CollectionErrors that name the address and the way out."""

    def __init__(self, filesystem: "FileSystem", root: str, prefix: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self.uri = prefix + self._root
        self._prefix = prefix

    def list(self, below: str = "") -> list[StoredObject]:
        """Every object below the location (or below the folder `below` of it), sorted by path; [] for none."""
        from pyarrow.fs import FileSelector, FileType

        with _explained(self.uri):
            here = self._fs.get_file_info(self._root)
            if here.type is FileType.File:
                return [self._object(here)]
            folder = f"{self._root}/{below}".rstrip("/")
            found = self._fs.get_file_info(FileSelector(folder, recursive=True, allow_not_found=bool(below)))
        return sorted((self._object(info) for info in found if info.is_file), key=lambda each: each.path)

    def folders(self, below: str = "") -> tuple[str, ...]:
        """Names of the folders right below the location (or below the folder `below` of it), sorted."""
        from pyarrow.fs import FileSelector, FileType

        folder = f"{self._root}/{below}".rstrip("/")
        with _explained(self.uri):
            found = self._fs.get_file_info(FileSelector(folder, allow_not_found=bool(below)))
        return tuple(sorted(info.base_name for info in found if info.type is FileType.Directory))

    def object_at(self, path: str) -> StoredObject | None:
        """The object at `path`, a path as `StoredObject.path` has it; None where there is none."""
        with _explained(self._prefix + path):
            info = self._fs.get_file_info(path)
        return self._object(info) if info.is_file else None

    def read(self, stored: StoredObject) -> bytes:
        """The bytes of a small object, such as a manifest."""
        with _explained(stored.uri), self._fs.open_input_stream(stored.path, compression=None) as stream:
            return bytes(stream.read())

    def fetch(self, stored: StoredObject, folder: Path) -> Path:
        """A local file with the object's bytes: itself where it is local, a copy below `folder` otherwise."""
        if self._prefix == "":
            return Path(stored.path)
        target = folder / stored.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            _explained(stored.uri),
            self._fs.open_input_stream(stored.path, compression=None) as stream,
            target.open("wb") as file,
        ):
            while chunk := stream.read(_CHUNK):
                file.write(chunk)
        if target.stat().st_size != stored.size:
            raise CollectionError(
                "transient", f"{stored.uri} changed while it was read ({stored.size} bytes listed); run again"
            )
        return target

    def address(self, path: str) -> str:
        """The full address of a path inside this location's filesystem."""
        return self._prefix + path

    @property
    def root(self) -> str:
        return self._root

    def _object(self, info: "FileInfo") -> StoredObject:
        return StoredObject(self._prefix + info.path, info.path, info.size, str(info.mtime_ns))


def open_location(source: Place, credentials: Credentials) -> Location:
    """The location that `source` names. Nothing is contacted yet but, for a service account, Google's token service."""
    scheme, rest = _split(source.location)
    if scheme == "":
        from pyarrow.fs import LocalFileSystem

        return Location(LocalFileSystem(), rest, "")
    with _explained(source.location):
        try:
            filesystem = _FILESYSTEMS[scheme](source, credentials)
        except ValueError as error:  # credentials that are incomplete, or no JSON: nothing of them may be shown
            raise CollectionError(
                "not_configured", f"{source.location}: the connection's credentials are not complete or not well-formed"
            ) from error
    return Location(filesystem, rest, f"{scheme}://")


def _split(location: str) -> tuple[str, str]:
    scheme, separator, rest = location.partition("://")
    if not separator or scheme == "file":
        return "", rest if separator else location
    if scheme in ("az", "abfs", "abfss"):
        container, at, after = rest.partition("@")
        path = after.partition("/")[2] if at else ""
        return "az", f"{container}/{path}" if at else rest
    return {"gcs": "gs"}.get(scheme, scheme), rest


def _s3(source: Place, credentials: Credentials) -> "FileSystem":
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    endpoint = urlsplit(source.endpoint_url or "")
    return S3FileSystem(
        access_key=_secret(credentials, "access_key_id"),
        secret_key=_secret(credentials, "secret_access_key"),
        session_token=_secret(credentials, "session_token"),
        role_arn=_secret(credentials, "role_arn"),
        region=source.region or ("us-east-1" if source.endpoint_url else None),
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or "https",
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=5),
        connect_timeout=10,
        request_timeout=60,
    )


def _gcs(source: Place, credentials: Credentials) -> "FileSystem":
    from datetime import timedelta

    from pyarrow.fs import GcsFileSystem

    endpoint = urlsplit(source.endpoint_url or "")
    account = _secret(credentials, "service_account_json")
    token, expires = _google_token(source.location, account) if account is not None else (None, None)
    return GcsFileSystem(
        anonymous=bool(source.endpoint_url) and account is None,
        access_token=token,
        credential_token_expiration=expires,
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or None,
        retry_time_limit=timedelta(seconds=60),
    )


def _google_token(location: str, account: str) -> tuple[str, datetime]:
    """An access token, good for an hour, that the service account's JSON key is worth, and when it expires."""
    from google.auth.exceptions import RefreshError, TransportError
    from google.auth.transport.requests import Request
    from google.oauth2.service_account import Credentials as ServiceAccount

    made = ServiceAccount.from_service_account_info(json.loads(account), scopes=[_READ_ONLY])
    try:
        made.refresh(Request())
    except TransportError as error:
        raise CollectionError("transient", f"{location}: Google's token service: {error}; try again later") from error
    except RefreshError as error:
        raise CollectionError(
            "auth", f"{location}: Google refused the service account; check the connection's credentials ({error})"
        ) from error
    return made.token, made.expiry.replace(tzinfo=UTC)


def _azure(source: Place, credentials: Credentials) -> "FileSystem":
    from pyarrow.fs import AzureFileSystem

    written = dict(part.split("=", 1) for part in (_secret(credentials, "connection_string") or "").split(";") if part)
    endpoint = urlsplit(source.endpoint_url or written.get("BlobEndpoint", ""))
    host = re.search(r"@([^./]+)", source.location)
    account = _secret(credentials, "account_name") or written.get("AccountName") or (host[1] if host else None)
    if account is None:
        raise CollectionError(
            "not_configured",
            f"{source.location}: name the storage account in credentials.account_name or credentials.connection_string",
        )
    where, suffix = {}, written.get("EndpointSuffix")
    if endpoint.netloc.startswith(f"{account}.blob."):
        suffix = endpoint.netloc.removeprefix(f"{account}.blob.")
    elif endpoint.netloc:  # an emulator: one address for both of Azure's faces
        where = {f"{face}_storage_authority": endpoint.netloc for face in ("blob", "dfs")}
        where |= {f"{face}_storage_scheme": endpoint.scheme for face in ("blob", "dfs")}
    if suffix is not None:
        where = {f"{face}_storage_authority": f".{face}.{suffix}" for face in ("blob", "dfs")}
    return AzureFileSystem(
        account,
        account_key=_secret(credentials, "account_key") or written.get("AccountKey"),
        sas_token=_secret(credentials, "sas_token") or written.get("SharedAccessSignature"),
        **where,
    )


_FILESYSTEMS: dict[str, Callable[[Place, Credentials], "FileSystem"]] = {"s3": _s3, "gs": _gcs, "az": _azure}


def _secret(credentials: Credentials, name: str) -> str | None:
    value = credentials.get(name)
    return value.get_secret_value() if value is not None else None


# What the storage SDKs say, the kind it means, and what to do about it.
_EXPLANATIONS: tuple[tuple[str, ErrorKind, str], ...] = (
    (
        r"INVALID_ACCESS_KEY|SIGNATURE|ACCESS_DENIED|Forbidden|HTTP (?:status|response code):? 40[13]|"
        r"AuthenticationFailed|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_CLIENT_TOKEN|EXPIRED_TOKEN|"
        r"No credentials|Permission denied",
        "auth",
        "check the connection's credentials and that they may list and read this location",
    ),
    (r"NO_SUCH_BUCKET|No such bucket|does not exist|NotFound|not found", "not_configured", "check the location"),
    (
        r"SLOW_DOWN|TOO_MANY|Throttl|HTTP (?:status|response code):? (?:429|503)",
        "throttled",
        "the next run tries again",
    ),
)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CollectionError("not_configured", f"{uri} does not exist; check the connection's location") from error
    except OSError as error:
        detail = str(error).splitlines()[0]
        for pattern, kind, advice in _EXPLANATIONS:
            if re.search(pattern, detail, re.I):
                raise CollectionError(kind, f"{uri}: {detail}; {advice}") from error
        raise CollectionError("transient", f"{uri}: {detail}; the next run tries again") from error
