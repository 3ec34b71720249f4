"""A private broker of Kafka, made of the jars that `.ci/run` gets from Maven."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.harness import java
from tests.harness.services import require
from tests.harness.sockets import unused_port

JARS = Path(os.environ.get("TEST_KAFKA", Path.home() / ".cache" / "mlship-kafka" / "4.1.0"))
_FORMATTED = JARS / "formatted"
"""The data of a broker that has not been started yet; to format it takes a virtual machine."""
HINT = "run `.ci/kafka`, which needs Java 17 and Maven"
PASSWORD = "secret"
_SECONDS = 180.0
"""For what takes seconds: a process of a model that ends is started several times."""
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{host}:{port},SASL://127.0.0.1:{guarded},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{host}:{port},SASL://127.0.0.1:{guarded}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_ada="{password}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


def is_installed() -> bool:
    """Tell whether a broker can be started."""
    return shutil.which("java") is not None and _FORMATTED.is_dir()


class Broker:
    """One broker, which is its own controller.

    Args:
        folder: for its data and its log.
        host: this machine's address for those who ask, pods of a cluster for one.

    Attributes:
        address: for all, who may do everything.
        guarded: asks for the password of the user `ada`, who may do nothing.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.port = unused_port()
        self._host = host
        self.address = f"{host}:{self.port}"
        guarded = unused_port()
        self.guarded = f"127.0.0.1:{guarded}"
        self._log = folder / "log"
        self._file = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        ports: dict[str, Any] = {
            "port": self.port,
            "host": host,
            "guarded": guarded,
            "controller": unused_port(),
        }
        text = _PROPERTIES.format(**ports, folder=folder, password=PASSWORD)
        self._file.write_text(text)
        shutil.copytree(_FORMATTED, folder / "data")

    def start(self) -> None:
        """Start the broker and return when it answers."""
        self._process = self._java("kafka.Kafka", str(self._file))
        end = time.monotonic() + _SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, or kill it by SIGKILL."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_SECONDS)

    def pause(self) -> None:
        """Have it stand still, with all connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def create(self, *topics: str, partitions: int = 3, **settings: str) -> None:
        """Make topics; their settings have `_` for dots."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": "2"})
        config = {name.replace("_", "."): value for name, value in settings.items()}
        made = [
            NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config)
            for topic in topics
        ]
        for future in admin.create_topics(made).values():
            future.result(_SECONDS)

    def send(
        self, topic: str, messages: Sequence[dict[str, Any]], most_bytes: str = "1000000"
    ) -> None:
        """Write messages: arguments of `Producer.produce`."""
        common = {"bootstrap.servers": self.address, "linger.ms": "5", "log_level": "2"}
        producer = Producer({**common, "message.max.bytes": most_bytes})
        for message in messages:
            while True:
                try:
                    producer.produce(topic, **message)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(_SECONDS) == 0

    def send_in_transactions(
        self, topic: str, messages: Sequence[dict[str, Any]], aborted: Sequence[dict[str, Any]]
    ) -> None:
        """Write messages in a transaction that is committed, and then others in an aborted one."""
        own = {"bootstrap.servers": self.address, "transactional.id": f"test-{uuid.uuid4()}"}
        producer = Producer({**own, "log_level": "2"})
        producer.init_transactions(_SECONDS)
        for group, end in (
            (messages, producer.commit_transaction),
            (aborted, producer.abort_transaction),
        ):
            producer.begin_transaction()
            for message in group:
                producer.produce(topic, **message)
            assert producer.flush(_SECONDS) == 0
            end(_SECONDS)

    def send_with_name(self, topic: str, value: bytes, key: bytes, name: bytes) -> None:
        """Write a message with a header of any name, which the client for Python cannot.

        By librdkafka, which the client comes with:
        https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka.h
        """
        package = Path(confluent_kafka.__file__).parent
        [found] = package.parent.glob("confluent_kafka.libs/librdkafka*")
        client, pointer = ctypes.CDLL(str(found)), ctypes.c_void_p
        client.rd_kafka_conf_new.restype = client.rd_kafka_new.restype = pointer
        client.rd_kafka_headers_new.restype = pointer
        fault = ctypes.create_string_buffer(512)
        conf = pointer(client.rd_kafka_conf_new())
        address = self.address.encode()
        client.rd_kafka_conf_set(conf, b"bootstrap.servers", address, fault, ctypes.c_size_t(512))
        producer = pointer(client.rd_kafka_new(0, conf, fault, ctypes.c_size_t(512)))
        headers = pointer(client.rd_kafka_headers_new(ctypes.c_size_t(1)))
        whole = ctypes.c_ssize_t(-1)
        client.rd_kafka_header_add(headers, name, whole, b"x", whole)
        size = ctypes.c_size_t
        given = (
            *(1, topic.encode()),  # RD_KAFKA_VTYPE_TOPIC
            *(7, 2),  # ..._MSGFLAGS: a copy
            *(4, value, size(len(value))),
            *(5, key, size(len(key))),
            *(10, headers),
        )
        assert client.rd_kafka_producev(producer, *given, 0) == 0
        assert client.rd_kafka_flush(producer, 60_000) == 0
        client.rd_kafka_destroy(producer)

    def read(
        self, topic: str, least: int = 0, seconds: float = _SECONDS, *, is_committed: bool = True
    ) -> list[Message]:
        """Return all messages of a topic, when there are so many, or the time is over."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": f"reader-{uuid.uuid4()}",
                "enable.auto.commit": "false",
                "isolation.level": "read_committed" if is_committed else "read_uncommitted",
                "enable.partition.eof": "true",
                "log_level": "2",
            }
        )
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        end, found, ended = time.monotonic() + seconds, [], set()
        try:
            while time.monotonic() < end:
                for message in consumer.consume(10_000, 0.1):
                    error = message.error()
                    if error is None:
                        found.append(message)
                    elif error.name() == "_PARTITION_EOF":
                        ended.add(message.partition())
                if len(found) >= least and len(ended) == len(partitions):
                    break
        finally:
            consumer.close()
        return found

    def log(self) -> str:
        """Return the end of what it wrote."""
        return self._log.read_text()[-3000:]

    def _answers(self) -> bool:
        with socket.socket() as probe:
            if probe.connect_ex((self._host, self.port)):
                return False
        return bool(
            AdminClient({"bootstrap.servers": self.address, "log_level": "2"}).list_topics(
                timeout=10
            )
        )

    def _java(self, *arguments: str) -> "subprocess.Popen[bytes]":
        level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        argv = ["java", "-Xmx512m", "-Xms128m", *java.options(JARS), level, "-cp", f"{JARS}/*"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*argv, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


@contextmanager
def broker(host: str = "127.0.0.1") -> Iterator[Broker]:
    """Give a running broker of its own; remove it afterwards."""
    require("kafka", is_installed(), HINT)
    with tempfile.TemporaryDirectory(prefix="mlship-kafka-", ignore_cleanup_errors=True) as folder:
        made = Broker(Path(folder), host)
        made.start()
        try:
            yield made
        finally:
            made.resume()
            made.stop(signal.SIGKILL)
