"""A secured Kafka: TLS, SASL/SCRAM and ACLs, with certificates and users made here."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from conftest import Pipeline, delete_topics, until
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError
from mail_server import WebServer

import embedded_kafka

Changes = Callable[["Secured"], dict[str, str]]

PASSWORD = "open sesame"  # noqa: S105 (it is the test's)
# Ways in: to the test itself, who may do all; with a password; with a client's certificate; and
# two whose own certificates are wrong.
LISTENERS = {
    "PLAIN": "PLAINTEXT",
    "SASL": "SASL_SSL",
    "MUTUAL": "SSL",
    "EXPIRED": "SSL",
    "ELSEWHERE": "SSL",
}
PROGRAMS = ("image_event_alert", "image_analysis", "image_receiving")
# What each program needs, as the README says it; a group's or transactional id's name is a prefix.
TOPIC, GROUP, ID = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
TOPICS = (
    *("images", "image-events", "alerts", "images-without-event", "notifications"),
    "dead-letters",
)
RIGHTS: dict[str, list[tuple[ResourceType, str, tuple[str, ...]]]] = {
    "image_receiving": [
        *((TOPIC, topic, ("DESCRIBE", "DESCRIBE_CONFIGS", "CREATE")) for topic in TOPICS),
        (TOPIC, "images", ("READ", "WRITE")),
        (TOPIC, "dead-letters", ("WRITE",)),
        (GROUP, "image_receiving", ("READ",)),
        (ID, "image_receiving", ("WRITE",)),
    ],
    "image_analysis": [
        *((TOPIC, topic, ("DESCRIBE", "DESCRIBE_CONFIGS", "CREATE")) for topic in TOPICS),
        (TOPIC, "images", ("READ",)),
        (TOPIC, "image-events", ("READ", "WRITE")),
        *((TOPIC, topic, ("WRITE",)) for topic in ("images-without-event", "dead-letters")),
        (GROUP, "image_analysis", ("READ",)),
        (ID, "image_analysis", ("WRITE",)),
    ],
    "image_event_alert": [
        *((TOPIC, topic, ("DESCRIBE", "DESCRIBE_CONFIGS", "CREATE")) for topic in TOPICS),
        (TOPIC, "image-events", ("READ",)),
        (TOPIC, "alerts", ("READ", "WRITE")),
        (TOPIC, "notifications", ("READ", "WRITE")),
        (TOPIC, "dead-letters", ("WRITE",)),
        (GROUP, "image_event_alert", ("READ",)),
        (ID, "image_event_alert", ("WRITE",)),
    ],
    "audit": [
        *((TOPIC, topic, ("READ",)) for topic in TOPICS),
        *((TOPIC, topic, ("WRITE",)) for topic in TOPICS[:3]),
        (GROUP, "image_analysis", ("DESCRIBE",)),
        (GROUP, "image_event_alert", ("DESCRIBE",)),
        (ID, "audit", ("WRITE",)),
    ],
    "dead-letters": [
        *((TOPIC, topic, ("READ", "WRITE")) for topic in (*TOPICS[:2], "notifications")),
        *((TOPIC, topic, ("DESCRIBE",)) for topic in ("alerts", "images-without-event")),
        (TOPIC, "dead-letters", ("READ",)),
        (ID, "dead-letters", ("WRITE",)),
    ],
}


class Secured:
    """A Kafka with a port for each way in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        self.certify("server", self.authority.issue_cert("localhost"))
        long_ago = datetime.now(UTC) - timedelta(days=1)
        self.certify("expired", self.authority.issue_cert("localhost", not_after=long_ago))
        self.certify("elsewhere", self.authority.issue_cert("kafka.example.org"))
        self.ports = {name: embedded_kafka.free_port() for name in (*LISTENERS, "CONTROLLER")}
        self.plain = f"localhost:{self.ports['PLAIN']}"
        self.start()

    def start(self) -> None:
        """Start it, also again: `stop` ends it."""
        addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in self.ports.items()}
        protocols = {**LISTENERS, "CONTROLLER": "PLAINTEXT"}
        properties = {
            "listeners": ",".join(addresses.values()),
            "advertised.listeners": ",".join(addresses[name] for name in LISTENERS).replace(
                "127.0.0.1", "localhost"
            ),
            "listener.security.protocol.map": ",".join(map(":".join, protocols.items())),
            "inter.broker.listener.name": "PLAIN",
            "controller.quorum.voters": f"1@127.0.0.1:{self.ports['CONTROLLER']}",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": f"{self.directory}/server.pem",
            "listener.name.expired.ssl.keystore.location": f"{self.directory}/expired.pem",
            "listener.name.elsewhere.ssl.keystore.location": f"{self.directory}/elsewhere.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": f"{self.directory}/ca.pem",
            "listener.name.mutual.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            # So that a test can write records whose transaction Kafka doesn't end.
            "transaction.partition.verification.enable": "false",
        }
        self.broker = embedded_kafka.start(
            self.directory / "kafka",
            self.ports["PLAIN"],
            [f"{name}={value}" for name, value in properties.items()],
        )
        self.admin = KafkaAdminClient(bootstrap_servers=self.plain)

    def stop(self) -> None:
        """End it, and the client of it: a client that lost its Kafka refuses calls for a while.

        That is `NodeNotReadyError: No node_id provided`, until its wait for a reconnection is over.
        """
        self.admin.close()
        self.broker.stop()

    def certify(self, name: str, certificate: trustme.LeafCert) -> None:
        """Write a certificate and its key as files, and both in one as Kafka wants them."""
        chain = b"".join(one.bytes() for one in certificate.cert_chain_pems)
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.directory / f"{name}.crt").write_bytes(chain)
        (self.directory / f"{name}.key").write_bytes(secret)
        (self.directory / f"{name}.pem").write_bytes(secret + chain)

    def add_user(self, name: str, password: str = PASSWORD) -> None:
        """Make a user, or change the password of one."""
        user = UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, password)
        assert self.admin.alter_user_scram_credentials([user]) == {name: None}

    def allow(self, user: str, kind: ResourceType, name: str, *operations: str) -> None:
        """Give a user rights."""
        self.admin.create_acls(self._rights(user, kind, name, *operations))

    def forbid(self, user: str, kind: ResourceType, name: str, *operations: str) -> None:
        """Take rights away."""
        self.admin.delete_acls(self._rights(user, kind, name, *operations))

    def _rights(self, user: str, kind: ResourceType, name: str, *operations: str) -> list[ACL]:
        is_whole = kind == TOPIC or name == "*"
        pattern = ACLResourcePatternType.LITERAL if is_whole else ACLResourcePatternType.PREFIXED
        resource = ResourcePattern(kind, name, pattern)
        return [
            ACL(f"User:{user}", "*", getattr(ACLOperation, one), ACLPermissionType.ALLOW, resource)
            for one in operations
        ]

    def allow_program(self, program: str) -> None:
        """Make a user for a program, with what it needs."""
        self.add_user(program)
        for kind, name, operations in RIGHTS[program]:
            self.allow(program, kind, name, *operations)

    def lets_in(self) -> bool:
        """Whether a login succeeds."""
        try:
            KafkaAdminClient(
                bootstrap_servers=f"localhost:{self.ports['SASL']}",
                security_protocol="SASL_SSL",
                sasl_mechanism="SCRAM-SHA-512",
                sasl_plain_username="image_receiving",
                sasl_plain_password=PASSWORD,
                ssl_cafile=str(self.directory / "ca.pem"),
            ).close()
        except KafkaError:
            return False
        return True

    def login(self, user: str) -> dict[str, str]:
        """The environment of a program that comes with a password."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{self.ports['SASL']}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CAFILE": str(self.directory / "ca.pem"),
        }

    def certificate(self, name: str, listener: str = "MUTUAL") -> dict[str, str]:
        """The environment of a program that comes with a certificate."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{self.ports[listener]}",
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CAFILE": str(self.directory / "ca.pem"),
            "KAFKA_SSL_CERTFILE": str(self.directory / f"{name}.crt"),
            "KAFKA_SSL_KEYFILE": str(self.directory / f"{name}.key"),
        }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A secured Kafka, with a user for each program and one for a client's certificate."""
    secured = Secured(tmp_path_factory.mktemp("secured"))
    for program in RIGHTS:
        secured.allow_program(program)
    secured.certify("client", secured.authority.issue_cert("a@b.org", common_name="camera"))
    for kind in (TOPIC, GROUP, ID):
        secured.allow("camera", kind, "*", "ALL")
    # The first login to a Kafka that has just started takes seconds: none of ours is to be it.
    until(secured.lets_in, "the first login")
    yield secured
    secured.stop()


@pytest.fixture
def pipeline(data: Path, secured: Secured) -> Iterator[Pipeline]:
    """The pipeline on it, without topics; the test itself goes the plain way."""
    delete_topics(secured.plain)
    pipeline = Pipeline(data, secured.plain)
    yield pipeline
    pipeline.close()
    for program in pipeline.started:
        assert PASSWORD not in program.output
        assert "Traceback" not in program.output


@pytest.mark.slow
def test_with_the_least_rights(pipeline: Pipeline, secured: Secured) -> None:
    """Each program as a user of its own goes all the way, and makes the topics."""
    programs = [pipeline.start(f"{name}.py", **secured.login(name)) for name in PROGRAMS]
    programs[0].says("00007  ALERT")
    assert programs[2].ends() == 0
    pipeline.put("images", b"rubbish")
    programs[1].says("set aside")
    assert pipeline.ids("alerts") == ["00003", "00007"]
    for program in programs[:2]:
        assert program.stop() == 0
    (pipeline.data / "image_event_alerts" / "image_event_alert_00003.txt").unlink()
    for command, line in (
        ("audit --repair", "mended  "),
        ("dead-letters send --all", "1 sent back"),
    ):
        user, *options = command.split()
        program = pipeline.command(user, *options, **secured.login(user))
        assert program.ends() == 0, program
        assert line in program.output


@pytest.mark.slow
def test_topics_of_somebody_else(pipeline: Pipeline, secured: Secured) -> None:
    """What a program may not put right or not even see, it says, with what to do, and goes on."""
    for topic in TOPICS:
        settings = {"max.message.bytes": "1000000"}
        secured.admin.create_topics({topic: {"num_partitions": 4, "configs": settings}})
    receiving = pipeline.start("image_receiving.py", **secured.login("image_receiving"))
    assert receiving.ends() == 0, receiving
    receiving.says("the topic images has 4 partitions instead of 16; give this user the right to")
    receiving.says(
        "the topic dead-letters has max.message.bytes=1000000: set max.message.bytes=2097152"
    )
    secured.forbid("image_receiving", TOPIC, "alerts", "DESCRIBE_CONFIGS")
    receiving = pipeline.start("image_receiving.py", **secured.login("image_receiving"))
    receiving.says("the settings of alerts can't be checked: give this user the right to")
    assert receiving.ends() == 0, receiving
    secured.allow("image_receiving", TOPIC, "alerts", "DESCRIBE_CONFIGS")


@pytest.mark.slow
def test_a_lost_end_with_the_least_rights(pipeline: Pipeline, secured: Secured) -> None:
    """A program sees a hanging transaction where it may read, and nothing forbids it to look."""
    pipeline.start("image_receiving.py", "--count", "1").ends()
    found = []
    for topic in ("dead-letters", "image-events"):
        producer = KafkaProducer(
            bootstrap_servers=secured.plain, transactional_id="image_analysis-host-0"
        )
        producer.init_transactions()
        producer.begin_transaction()
        hangs = TopicPartition(topic, 3)
        producer._transaction_manager._partitions_in_transaction.add(hangs)
        for partition in (3, 5):
            producer.send(topic, b"", partition=partition)
        producer.commit_transaction()
        login = secured.login("image_analysis")
        found.append(pipeline.end_if_hanging("image_analysis-host-0", **login))
        assert found[-1].ends() == len(found) - 1, found[-1]
        producer.close()
    assert re.search(r"lost its end in image-events\[3\], as", found[1].output)


@pytest.mark.slow
def test_recipients_with_the_least_rights(pipeline: Pipeline, secured: Secured) -> None:
    """The alert's user may tell recipients, give up, and tell of what is sent back."""
    web = WebServer()
    web.does = "refuse"
    table = f'[night]\nurl = "{web.url()}"\ngive_up_after = 0'
    (pipeline.data / "recipients.toml").write_text(table)
    alert, *others = (pipeline.start(f"{name}.py", **secured.login(name)) for name in PROGRAMS)
    alert.says("00007  given up")
    web.does = "take"
    rights = secured.login("dead-letters")
    command = pipeline.command("dead-letters", "send", "--all", **rights)
    assert command.ends() == 0, command
    alert.says("00007  told night")
    assert others[1].ends() == 0
    assert alert.stop() == 0
    web.close()


def test_recipients_without_the_rights(pipeline: Pipeline, secured: Secured) -> None:
    """Who may alert but not read `notifications` is told so, and notifies once it may."""
    web = WebServer()
    (pipeline.data / "recipients.toml").write_text(f'[night]\nurl = "{web.url()}"')
    secured.forbid("image_event_alert", TOPIC, "notifications", "READ")
    try:
        alert, *_ = (pipeline.start(f"{name}.py", **secured.login(name)) for name in PROGRAMS)
        alert.says("^notifications: .* forbids it: .*; trying again in 5 s")
        alert.says("^00007  ALERT")
        assert web.tries == 0
    finally:
        secured.allow("image_event_alert", TOPIC, "notifications", "READ")
    alert.says("^00007  told night")
    assert alert.stop() == 0
    web.close()


def test_with_a_certificate(pipeline: Pipeline, secured: Secured) -> None:
    """A client's certificate says who we are, without a password."""
    for name in PROGRAMS:
        pipeline.start(f"{name}.py", **secured.certificate("client"))
    assert pipeline.started[2].ends() == 0
    assert pipeline.waits_for("alerts", 2)


def case(change: Changes, line: str, status: int = 1) -> object:
    """A way in that is closed: the environment, and what the program's last line says."""
    return pytest.param(change, line, status, id=change.__name__)


def wrong_password(secured: Secured) -> dict[str, str]:
    return secured.login("image_receiving") | {"KAFKA_SASL_PASSWORD": f"{PASSWORD}!"}


def unknown_user(secured: Secured) -> dict[str, str]:
    return secured.login("nobody")


def mechanism_that_is_not_offered(secured: Secured) -> dict[str, str]:
    return secured.login("image_receiving") | {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}


def foreign_authority(secured: Secured) -> dict[str, str]:
    trustme.CA().cert_pem.write_to_path(str(secured.directory / "foreign.pem"))
    foreign = str(secured.directory / "foreign.pem")
    return secured.login("image_receiving") | {"KAFKA_SSL_CAFILE": foreign}


def expired_certificate(secured: Secured) -> dict[str, str]:
    return secured.certificate("client", "EXPIRED")


def certificate_of_another_host(secured: Secured) -> dict[str, str]:
    return secured.certificate("client", "ELSEWHERE")


def own_certificate_expired(secured: Secured) -> dict[str, str]:
    return secured.certificate("expired")


def own_certificate_foreign(secured: Secured) -> dict[str, str]:
    secured.certify("foreign", trustme.CA().issue_cert("a@b.org", common_name="camera"))
    return secured.certificate("foreign")


def own_certificate_missing(secured: Secured) -> dict[str, str]:
    settings = secured.certificate("client")
    del settings["KAFKA_SSL_CERTFILE"], settings["KAFKA_SSL_KEYFILE"]
    return settings


def encrypted_to_a_plain_port(secured: Secured) -> dict[str, str]:
    return secured.certificate("client", "PLAIN")


def login_to_a_plain_port(secured: Secured) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": secured.plain,
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "image_receiving",
        "KAFKA_SASL_PASSWORD": PASSWORD,
    }


def plain_to_an_encrypted_port(secured: Secured) -> dict[str, str]:
    return {"KAFKA_BOOTSTRAP_SERVERS": f"localhost:{secured.ports['SASL']}"}


def authority_that_is_no_certificate(secured: Secured) -> dict[str, str]:
    return secured.certificate("client") | {"KAFKA_SSL_CAFILE": __file__}


def key_of_another_certificate(secured: Secured) -> dict[str, str]:
    key = str(secured.directory / "server.key")
    return secured.certificate("client") | {"KAFKA_SSL_KEYFILE": key}


def key_with_a_password(secured: Secured) -> dict[str, str]:
    key = load_pem_private_key((secured.directory / "client.key").read_bytes(), None)
    closed = BestAvailableEncryption(PASSWORD.encode())
    path = secured.directory / "closed.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, closed))
    return secured.certificate("client") | {"KAFKA_SSL_KEYFILE": str(path)}


def key_without_certificate(secured: Secured) -> dict[str, str]:
    return secured.certificate("client") | {"KAFKA_SSL_CERTFILE": ""}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "line", "status"),
    [
        case(wrong_password, "refuses us: .*Authentication failed"),
        case(unknown_user, "refuses us: .*Authentication failed"),
        case(mechanism_that_is_not_offered, "refuses us: .*SaslMechanism"),
        case(
            foreign_authority, "refuses us: .*certificate verify failed: unable to get local issuer"
        ),
        case(expired_certificate, "refuses us: .*certificate has expired"),
        case(certificate_of_another_host, "refuses us: .*Hostname mismatch"),
        case(own_certificate_expired, "refuses us: .*certificate"),
        case(own_certificate_foreign, "refuses us: .*certificate"),
        case(own_certificate_missing, "refuses us: .*certificate"),
        case(encrypted_to_a_plain_port, "refuses us: .*its port is not encrypted"),
        case(login_to_a_plain_port, "refuses us: "),
        case(plain_to_an_encrypted_port, "refuses us: .*its port is encrypted"),
        case(authority_that_is_no_certificate, "KAFKA_SSL_CAFILE: .* has no certificate", 2),
        case(key_of_another_certificate, "no certificate and its key", 2),
        case(key_with_a_password, "no certificate and its key", 2),
        case(key_without_certificate, "KAFKA_SSL_KEYFILE is set without", 2),
    ],
)
def test_a_way_in_that_is_closed(
    pipeline: Pipeline, secured: Secured, change: Changes, line: str, status: int
) -> None:
    """The last line of a program that isn't let in says why; it doesn't wait for long."""
    environment = change(secured) | {"KAFKA_WAIT": "8"}
    program = pipeline.start("image_receiving.py", **environment)
    assert program.ends() == status, program
    assert re.search(line, program.lines[-1]), program


@pytest.mark.slow
def test_rights_that_are_taken_away(pipeline: Pipeline, secured: Secured) -> None:
    """A stage that may not publish any more ends with a clear line; given back, nothing is lost."""
    topic = (TOPIC, "image-events", "WRITE")
    analysis = pipeline.start("image_analysis.py", **secured.login("image_analysis"))
    assert pipeline.start("image_receiving.py", **secured.login("image_receiving")).ends() == 0
    pipeline.waits_for("image-events", 2)
    secured.forbid("image_analysis", *topic)
    try:
        assert pipeline.start("image_receiving.py", **secured.login("image_receiving")).ends() == 0
        assert analysis.ends() == 1
        assert "forbids it: " in analysis.lines[-1]
        assert "TopicAuthorizationFailed" in analysis.lines[-1]
    finally:
        secured.allow("image_analysis", *topic)
    pipeline.start("image_analysis.py", **secured.login("image_analysis"))
    pipeline.waits_for("image-events", 5)
    assert pipeline.ids("image-events") == ["00003", "00007", "00011", "00015", "00019"]


@pytest.mark.slow
def test_a_topic_that_may_not_be_made(pipeline: Pipeline, secured: Secured) -> None:
    """The line names the topic."""
    secured.add_user("guest")
    program = pipeline.start("image_analysis.py", **secured.login("guest"))
    assert program.ends() == 1
    assert re.search("forbids it: .*cannot make the topic", program.lines[-1])


@pytest.mark.slow
def test_a_password_that_changes(pipeline: Pipeline, secured: Secured) -> None:
    """A stage whose password isn't the right one any more says so once it has to log in again."""
    login = secured.login("image_analysis")
    analysis = pipeline.start("image_analysis.py", KAFKA_WAIT="300", **login)
    assert pipeline.start("image_receiving.py", **secured.login("image_receiving")).ends() == 0
    pipeline.waits_for("image-events", 2)
    secured.add_user("image_analysis", "another one")
    try:
        secured.stop()
        secured.start()
        assert analysis.ends() == 1
        assert "Authentication failed" in analysis.lines[-1]
    finally:
        secured.add_user("image_analysis")
