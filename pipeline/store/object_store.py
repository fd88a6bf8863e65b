"""The files of a mock database in an object store: S3 or a compatible one, through s3fs.

The store's address, credentials, time-outs and retries are boto's settings: the variables
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_MAX_ATTEMPTS and
AWS_RETRY_MODE, or the files in ~/.aws. What fails after boto's retries is a `TransientError`.
"""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from aiohttp import ClientError as NetworkError
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from s3fs import S3FileSystem

from pipeline.errors import FatalError, InvalidInput, TransientError
from pipeline.retrying import retrying
from pipeline.store.files import MAX_BYTES
from pipeline.terminal import one_line

MAX_CONCURRENT = 16


@cache
def _s3() -> Any:
    """The connections, which all databases of a program share."""
    s3 = S3FileSystem(
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={"max_pool_connections": 4 * MAX_CONCURRENT},
    )
    s3.retries = 1  # boto retries already, as its settings say
    return s3


class ObjectFiles:
    """The objects below one prefix; see `Files` for what each method does."""

    max_concurrent = MAX_CONCURRENT  # each request mostly waits for the network
    read_ahead = MAX_CONCURRENT
    is_listing_fast = False

    def __init__(self, url: str, name: str) -> None:
        """Open the prefix `name` below the URL. Raises `FatalError` if the store refuses access."""
        self.where = f"{url}/{name}"
        self._name = name
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        retrying(self._check_access)()

    def has(self, path: str) -> bool:
        """Whether the object exists."""
        return bool(self._head(path))

    def write(self, path: str, content: bytes, *, is_new: bool) -> bool:
        """Put the object; with `is_new`, the store itself refuses to replace an existing one."""
        target = f"{self._bucket}/{self._key(path)}"
        with _transient(f"cannot write {self._url(path)}"):
            try:
                _s3().pipe_file(target, content, mode="create" if is_new else "overwrite")
            except OSError as error:
                if is_new and _code(error) == "PreconditionFailed":
                    # Ours, if the answer to an earlier try was lost on its way.
                    return self.read(path) == content
                raise
        return True

    def sync(self) -> None:
        """Do nothing: what a store has acknowledged survives."""

    def read(self, path: str) -> bytes:
        """The object's bytes."""
        target = f"{self._bucket}/{self._key(path)}"
        with _transient(f"cannot read {self._url(path)}"):
            try:
                content: bytes = _s3().cat_file(target, start=0, end=MAX_BYTES + 1)
            except OSError as error:
                if _code(error) == "InvalidRange":  # the object is empty
                    return b""
                if _is_about_the_object(error):
                    raise InvalidInput(f"{path!r} can't be read: {_text(error)}") from error
                raise
        if len(content) > MAX_BYTES:
            raise InvalidInput(f"{path} has more than {MAX_BYTES} bytes")
        return content

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with the prefix."""
        parent = f"{self._prefix}{self._name}/"
        names: list[str] = []
        request: dict[str, Any] = {"Prefix": f"{parent}{prefix}", "Delimiter": "/"}
        with _transient(f"cannot list {self.where}"):
            while request:
                page = _s3().call_s3("list_objects_v2", Bucket=self._bucket, **request)
                names += [found["Key"].removeprefix(parent) for found in page.get("Contents", ())]
                token = page.get("NextContinuationToken")
                request = {**request, "ContinuationToken": token} if token else {}
        return [name for name in names if name]  # without the empty name of a "folder"

    def age(self, path: str) -> float:
        """Seconds since the object was put; 0 if it does not exist."""
        head = self._head(path)
        return time.time() - head["LastModified"].timestamp() if head else 0

    def remove(self, path: str) -> None:
        """Delete the object if it exists."""
        with _transient(f"cannot delete {self._url(path)}"):
            _s3().call_s3("delete_object", Bucket=self._bucket, Key=self._key(path))

    def _head(self, path: str) -> dict[str, Any]:
        """The object's metadata; empty if it does not exist."""
        with _transient(f"cannot look at {self._url(path)}"):
            try:
                head: dict[str, Any] = _s3().call_s3(
                    "head_object", Bucket=self._bucket, Key=self._key(path)
                )
            except FileNotFoundError:
                return {}
        return head

    def _check_access(self) -> None:
        """List one name, to learn whether the settings and rights are good."""
        with _transient(f"cannot list {self.where}"):
            try:
                _s3().call_s3("list_objects_v2", Bucket=self._bucket, MaxKeys=1)
            except HTTPClientError:  # a fault of the network
                raise
            except (FileNotFoundError, PermissionError, BotoCoreError, ValueError) as error:
                what = "make the bucket, or mend the AWS_ variables"
                status = 1 if isinstance(error, OSError) else 2
                raise FatalError(
                    f"cannot use {self.where}: {_text(error)}; {what}", status
                ) from error

    def _key(self, path: str) -> str:
        """The object's key. Raises `InvalidInput` if the path is not below our prefix."""
        directory, *names = path.split("/")
        is_plain = names and not {"", ".", ".."} & {*names} and path.isprintable()
        is_versioned = "?versionId=" in path  # s3fs would read that version of the object
        if directory != self._name or not is_plain or is_versioned:
            raise InvalidInput(f"{path!r} is not in {self._name}")
        return f"{self._prefix}{path}"

    def _url(self, path: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{path}"


@contextmanager
def _transient(what: str) -> Iterator[None]:
    """Turn each error of the store or the network into a `TransientError`."""
    try:
        yield
    except (OSError, BotoCoreError, ClientError, NetworkError) as error:
        raise TransientError(f"{what}: {_text(error)}") from error


def _code(error: BaseException) -> str:
    """S3's name of an error, from the boto error that s3fs keeps as the cause."""
    response = getattr(error.__cause__ or error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _is_about_the_object(error: OSError) -> bool:
    """Whether the path names no object, rather than that the store fails."""
    is_absent = isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket"
    return is_absent or error.errno == errno.EINVAL


def _text(error: BaseException) -> str:
    """The text of the boto error that s3fs keeps as the cause, or else of the error."""
    return one_line(error.__cause__ or error) or type(error).__name__
