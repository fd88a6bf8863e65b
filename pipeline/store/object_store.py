"""Files in an object store: S3 and what speaks its language, by s3fs.

Credentials, the store's address, time-outs and retries are boto's: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_MAX_ATTEMPTS, AWS_RETRY_MODE, or
its files. What still fails after them is said, and tried again like any fault that may pass.
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
from pipeline.store.local_files import MAX_BYTES

AT_ONCE = 16


@cache
def _s3() -> Any:
    """One set of connections for all databases of a program."""
    s3 = S3FileSystem(
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={"max_pool_connections": 4 * AT_ONCE},
    )
    s3.retries = 1  # boto's own are enough, and can be set
    return s3


class ObjectFiles:
    """The objects below one prefix; paths are relative to the prefix above it."""

    max_concurrent = AT_ONCE  # each takes as long as the way to the store
    read_ahead = AT_ONCE
    lists_at_once = False

    def __init__(self, url: str, name: str) -> None:
        """Ends the program with one line if the store refuses us."""
        self.where = f"{url}/{name}"
        self._name = name
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        retrying(self._knock)()

    def has(self, path: str) -> bool:
        """Whether there is an object of this path."""
        return bool(self._head(path))

    def write(self, path: str, content: bytes, *, is_new: bool) -> bool:
        """Put an object; False if another one is there already that must not be overwritten."""
        target = f"{self._bucket}/{self._key(path)}"
        with _passing(f"cannot write {self._url(path)}"):
            try:
                _s3().pipe_file(target, content, mode="create" if is_new else "overwrite")
            except OSError as error:
                if is_new and _code(error) == "PreconditionFailed":
                    # Our own, if the answer to a first try was lost.
                    return self.read(path) == content
                raise
        return True

    def sync(self) -> None:
        """Nothing is to do: what a store acknowledges, it has."""

    def read(self, path: str) -> bytes:
        """An object's bytes."""
        target = f"{self._bucket}/{self._key(path)}"
        with _passing(f"cannot read {self._url(path)}"):
            try:
                content: bytes = _s3().cat_file(target, start=0, end=MAX_BYTES + 1)
            except OSError as error:
                if _code(error) == "InvalidRange":  # it is empty
                    return b""
                if _is_about_the_object(error):
                    raise InvalidInput(f"{path!r} can't be read: {_text(error)}") from error
                raise
        if len(content) > MAX_BYTES:
            raise InvalidInput(f"{path} has more than {MAX_BYTES} bytes")
        return content

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin so."""
        above = f"{self._prefix}{self._name}/"
        names: list[str] = []
        more: dict[str, Any] = {"Prefix": f"{above}{prefix}", "Delimiter": "/"}
        with _passing(f"cannot list {self.where}"):
            while more:
                page = _s3().call_s3("list_objects_v2", Bucket=self._bucket, **more)
                names += [one["Key"].removeprefix(above) for one in page.get("Contents", ())]
                token = page.get("NextContinuationToken")
                more = {**more, "ContinuationToken": token} if token else {}
        return [name for name in names if name]  # without what some stores keep for a folder

    def age(self, path: str) -> float:
        """Seconds since the object was put; none if it has gone."""
        head = self._head(path)
        return time.time() - head["LastModified"].timestamp() if head else 0

    def remove(self, path: str) -> None:
        """Delete an object, if it is there."""
        with _passing(f"cannot delete {self._url(path)}"):
            _s3().call_s3("delete_object", Bucket=self._bucket, Key=self._key(path))

    def _head(self, path: str) -> dict[str, Any]:
        """What the store says of an object; nothing if there is none."""
        with _passing(f"cannot look at {self._url(path)}"):
            try:
                head: dict[str, Any] = _s3().call_s3(
                    "head_object", Bucket=self._bucket, Key=self._key(path)
                )
            except FileNotFoundError:
                return {}
        return head

    def _knock(self) -> None:
        """Ask for as little as can be, to hear whether we may."""
        with _passing(f"cannot list {self.where}"):
            try:
                _s3().call_s3("list_objects_v2", Bucket=self._bucket, MaxKeys=1)
            except HTTPClientError:  # the way there is what fails
                raise
            except (FileNotFoundError, PermissionError, BotoCoreError, ValueError) as error:
                what = "make the bucket, or mend the AWS_ variables"
                status = 1 if isinstance(error, OSError) else 2
                raise FatalError(
                    f"cannot use {self.where}: {_text(error)}; {what}", status
                ) from error

    def _key(self, path: str) -> str:
        """The key of a path that is really below our prefix."""
        directory, *names = path.split("/")
        is_plain = names and not {"", ".", ".."} & {*names} and path.isprintable()
        if directory != self._name or not is_plain or "?versionId=" in path:  # s3fs's own word
            raise InvalidInput(f"{path!r} is not in {self._name}")
        return f"{self._prefix}{path}"

    def _url(self, path: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{path}"


@contextmanager
def _passing(what: str) -> Iterator[None]:
    """What the store or the way to it can't do now is to be tried again."""
    try:
        yield
    except (OSError, BotoCoreError, ClientError, NetworkError) as error:
        raise TransientError(f"{what}: {_text(error)}") from error


def _code(error: BaseException) -> str:
    """S3's own name of an error, which s3fs keeps in what caused it."""
    response = getattr(error.__cause__ or error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _is_about_the_object(error: OSError) -> bool:
    is_absent = isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket"
    return is_absent or error.errno == errno.EINVAL


def _text(error: BaseException) -> str:
    return " ".join((str(error.__cause__ or error) or type(error).__name__).split())
