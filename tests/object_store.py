"""A real object store on this machine, and a bad network before it.

The store is SeaweedFS with its S3 interface, one program that comes as a Python wheel. It is killed
rather than stopped: what it has acknowledged survives that, and to end in peace takes it 15 s.
"""

import asyncio
import dataclasses
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import botocore.session
from aiohttp import ClientError, ClientSession, web
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.exceptions import ClientError as Refusal
from yarl import URL

import embedded_kafka

WEED = Path(sys.executable).with_name("weed")
BUCKET = "pipeline"
KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "a secret"}

SERVICES = ("master", "volume", "filer", "s3")
OPTIONS = (
    *("-logtostderr", "mini", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
    # No calls to the outside, no interfaces that nobody asked for, no buckets by mistake.
    *("-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.iam=false"),
    *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"),
    # With its defaults it votes for up to 20 s at each start on who of one is to lead.
    *("-master.electionTimeout=100ms", "-master.heartbeatInterval=50ms"),
    "-master.resumeState=false",  # or else it may wait 15 s for other machines' volumes
)


class ObjectStore:
    """An S3-compatible store on 127.0.0.1 that keeps its objects in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        """Start it with what the directory has, or with an empty bucket."""
        self.directory = directory
        ports: set[int] = set()
        while len(ports) < 2 * len(SERVICES) + 1:
            ports.add(embedded_kafka.free_port())
        self._ports = sorted(ports)
        names = [f"{service}.port{kind}" for service in SERVICES for kind in ("", ".grpc")]
        names.append("admin.port")  # to which it adds 10,000 for the other kind
        self._options = [f"-{name}={port}" for name, port in zip(names, self._ports, strict=True)]
        self.port = self._ports[2 * SERVICES.index("s3")]
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a program where the store is, and who the program is."""
        return reached_at(self.port)

    def start(self) -> None:
        """Start it on its directory and return once it takes and gives objects."""
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "weed.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                # On Linux it ends with us, however we end.
                ["setpriv", "--pdeathsig", "KILL", WEED, *OPTIONS, *self._options],
                cwd=self.directory,
                env=os.environ | KEYS,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        end = time.monotonic() + 60
        while not self._is_ready():
            said = log.read_text(errors="replace")
            assert self._process.poll() is None, f"the object store has ended:\n{said}"
            assert time.monotonic() < end, f"the object store isn't there after 60 s:\n{said}"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL; `start` brings it back with all that it has acknowledged."""
        self._process.kill()
        self._process.wait()
        for port in (
            *self._ports,
            self._ports[-1] + 10_000,
        ):  # which it would have taken away in peace
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                socket.unlink()

    def _is_ready(self) -> bool:
        once = Config(connect_timeout=1, read_timeout=10, retries={"max_attempts": 0})
        session = botocore.session.get_session()
        session.set_credentials(*KEYS.values())
        where = self.environment
        client = session.create_client(
            "s3", where["AWS_DEFAULT_REGION"], endpoint_url=where["AWS_ENDPOINT_URL"], config=once
        )
        try:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="probe", Body=b"probe")
            client.delete_object(Bucket=BUCKET, Key="probe")
        except (BotoCoreError, Refusal):
            return False
        finally:
            client.close()
        return True


def reached_at(port: int) -> dict[str, str]:
    """The environment of a program that reaches the store by this port of this machine."""
    where = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    # Whatever this machine's user has set up for other stores is not for the tests.
    none = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return KEYS | where | none | {"AWS_EC2_METADATA_DISABLED": "true"}


@dataclasses.dataclass(frozen=True)
class Faults:
    """How a network misbehaves. Shares are of all requests, and add up to 1 at most."""

    slow_down: float = 0  # answered 503 SlowDown, not passed on
    error: float = 0  # answered 500 InternalError, not passed on
    cut_request: float = 0  # half of the body passed on, then cut
    cut_response: float = 0  # carried out, and the response cut in the middle of the body
    stall: float = 0  # held until the faults change, then passed on
    delay: float = 0  # seconds, for each request
    refuse: bool = False  # no connection at all
    seed: int = 0  # the same requests have the same faults


@dataclasses.dataclass(frozen=True)
class Seen:
    """A request that came by, and what became of it: `passed` or the name of a fault."""

    method: str
    path: str  # `/bucket/key`
    query: dict[str, str]
    fate: str


ANSWERS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "error": (500, "InternalError", "We encountered an internal error. Please try again."),
}
# Those of one connection, not of the request, which the next connection sets itself.
OF_A_CONNECTION = {"connection", "keep-alive", "expect", "transfer-encoding"}
NOT_OURS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class FaultyNetwork:
    """A proxy on 127.0.0.1 before the store, which misbehaves as it is told, while it runs."""

    def __init__(self, store: ObjectStore) -> None:
        """Start it, well; it doesn't mind when the store is away."""
        self.port = embedded_kafka.free_port()
        self.seen: list[Seen] = []  # since the start, in the order in which they came
        self._store = f"http://127.0.0.1:{store.port}"
        self._faults = Faults()
        self._times: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    @property
    def environment(self) -> dict[str, str]:
        """What tells a program to reach the store through this network."""
        return reached_at(self.port)

    def becomes(self, faults: Faults) -> None:
        """Misbehave like this from now on; `Faults()` is well again."""
        asyncio.run_coroutine_threadsafe(self._become(faults), self._loop).result(10)

    def close(self) -> None:
        """End it; what it holds is cut."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._changed = asyncio.Event()
        self._session = ClientSession(auto_decompress=False, skip_auto_headers=NOT_OURS)
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def _become(self, faults: Faults) -> None:
        for site in list(self._runner.sites):
            if faults.refuse:
                await site.stop()
        if not faults.refuse and not self._runner.sites:
            await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self._faults = faults
        self._changed.set()
        self._changed = asyncio.Event()

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def _fate(self, request: web.Request) -> str:
        """What is to become of a request, by itself and how often it has come, not by its turn."""
        if self._faults.refuse:
            return "refuse"
        name = f"{self._faults.seed} {request.method} {request.raw_path}"
        self._times[name] += 1
        drawn = random.Random(f"{name} {self._times[name]}").random()
        for fault in ("slow_down", "error", "cut_request", "cut_response", "stall"):
            drawn -= getattr(self._faults, fault)
            if drawn < 0:
                return fault
        return "passed"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        fate = self._fate(request)
        self.seen.append(Seen(request.method, request.path, dict(request.query), fate))
        changed = self._changed
        body = await request.read()
        await asyncio.sleep(self._faults.delay)
        if fate in ANSWERS:
            status, code, message = ANSWERS[fate]
            text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            return web.Response(status=status, text=text, content_type="application/xml")
        if fate == "stall":
            await changed.wait()
        if fate == "refuse" or (fate == "cut_request" and not body):
            return _cut(request)
        try:
            return await self._pass_on(request, body, fate)
        except (ClientError, ConnectionError):  # the store is away, or we cut the way to it
            return _cut(request)

    async def _pass_on(self, request: web.Request, body: bytes, fate: str) -> web.StreamResponse:
        # The signature covers the host and other headers: they go on as they came.
        async with self._session.request(
            request.method,
            URL(self._store + request.raw_path, encoded=True),
            headers=[one for one in request.headers.items() if _goes_on(one[0])],
            data=_half(body) if fate == "cut_request" else body,
            allow_redirects=False,
        ) as response:
            content = await response.read()
            headers = [one for one in response.headers.items() if _goes_on(one[0])]
            if fate != "cut_response":
                return web.Response(status=response.status, headers=headers, body=content)
            if content:
                cut = web.StreamResponse(status=response.status, headers=headers)
                cut.content_length = len(content)
                await cut.prepare(request)
                await cut.write(content[: len(content) // 2])
            return _cut(request)


def _goes_on(header: str) -> bool:
    return header.lower() not in OF_A_CONNECTION


async def _half(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionResetError


def _cut(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.close()
    return web.Response()
