"""The worker of a batch on Apache Beam: requests are the elements of a pipeline.

Beam only decides where a request is answered: its workers read, score and write as a process of
this machine does, with the same function. An element that Beam tries again, or twice at the same
time, writes the same file under the same name.

Beam gives no results back to the program that runs a pipeline, so answers are files in a folder
that both can reach, `temp_location`. The requests and the bundle are there, too. A worker needs
Python with `mlship-cd[beam]`.
"""

import os
import queue
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship.domain.batch_work import Answer, BeamOption, Request, place_of
from mlship.errors import ConfigError, MlshipError, UnavailableError
from mlship.runtime.batches import bundle_archive
from mlship.runtime.batches.beam_options import LOCAL, options_of
from mlship.runtime.batches.replies import Replies, reason

_SECONDS: Final = 0.5
"""Between two looks for answers."""
_NUMBER: Final = re.compile(r"(\d+)\.json$")


def work(bundle: Path, options: Mapping[str, BeamOption]) -> None:
    """Answer the requests on stdin, each when it is done, until stdin ends.

    An empty line ends the requests that belong together: they are one pipeline.

    Args:
        bundle: its folder, which is sent to the workers.
        options: of the pipelines, such as `runner`.
    """
    replies = Replies()
    with tempfile.TemporaryDirectory(prefix="mlship-batch-") as folder:
        try:
            pipelines = _Pipelines(bundle, options, folder, replies)
        except MlshipError as error:
            replies.send(error)
            return
        groups: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        threading.Thread(target=_run_all, args=(pipelines, groups, replies), daemon=True).start()
        for group in _groups():
            groups.put(group)
        # Whoever asked is gone: nobody would take the answers of what runs.
        pipelines.close()
    os._exit(0)


def _groups() -> Iterator[list[bytes]]:
    group: list[bytes] = []
    with os.fdopen(0, "rb", closefd=False) as lines:
        for line in lines:
            if line.strip():
                group.append(line)
            else:
                yield group
                group = []


def _run_all(
    pipelines: "_Pipelines", groups: "queue.SimpleQueue[list[bytes]]", replies: Replies
) -> None:
    while True:
        try:
            pipelines.run(groups.get())
        except MlshipError as error:
            replies.send(error)


class _Pipelines:
    """Runs pipelines, one after the other.

    Args:
        bundle: its folder.
        options: of all pipelines.
        folder: on this machine, which is gone afterwards.
        replies: get the answers.

    Raises:
        ConfigError: an option is invalid.
        UnavailableError: `temp_location` cannot be written.
    """

    def __init__(
        self, bundle: Path, options: Mapping[str, BeamOption], folder: str, replies: Replies
    ) -> None:
        from apache_beam.io.filesystems import FileSystems

        self._files = FileSystems
        self._options, temporary = options_of(options, folder)
        self._runner = str(options.get("runner", LOCAL))
        self._replies = replies
        self._result: Any = None
        self._count = 0
        self._place = FileSystems.join(temporary, f"mlship-batch-{os.urandom(8).hex()}")
        try:
            FileSystems.mkdirs(FileSystems.join(self._place, "answers"))
            self._write(f"{self._place}/bundle.zip", bundle_archive.packed(bundle))
        except Exception as error:
            message = f"batch.beam: cannot write to temp_location, {temporary}: {reason(error)}"
            hint = "check that it exists, the permissions, and the credentials"
            raise UnavailableError(message, hint=hint) from error

    def run(self, lines: Sequence[bytes]) -> None:
        """Answer requests by one pipeline.

        Raises:
            ConfigError: the runner cannot be used, or lacks an option.
        """
        self._count += 1
        folder = self._files.join(self._place, "answers", str(self._count))
        self._files.mkdirs(folder)
        self._write(f"{self._place}/requests-{self._count}.jsonl", b"".join(lines))
        pipeline = self._pipeline(lines, folder)
        run = threading.Thread(target=self._run, args=(pipeline,), daemon=True)
        self._failure = "it ended without an answer"
        run.start()
        left = {str(number): line for number, line in enumerate(lines)}
        while left:
            run.join(_SECONDS)
            has_ended = not run.is_alive()
            self._collect(folder, left)
            if has_ended:
                break
        for line in left.values():
            request: Request = msgspec.json.decode(line, type=Request)
            message = f"the pipeline of Beam ({self._runner}) failed at {place_of(request)}: "
            hint = "read what Beam printed, then run `mlship batch` again: finished parts are kept"
            self._replies.send(UnavailableError(message + self._failure, hint=hint))

    def close(self) -> None:
        """Cancel what runs, and remove what the pipelines were given."""
        try:
            if self._result is not None:
                self._result.cancel()
            self._files.delete([self._place])
        except Exception as error:  # noqa: BLE001 (the batch has its answers; a person may clean)
            sys.stderr.write(f"note: {self._place} was not removed: {reason(error)}\n")

    def _pipeline(self, lines: Sequence[bytes], folder: str) -> Any:
        """Return a pipeline whose elements are the places of the requests in their file.

        The requests themselves may be more than a runner takes for its description of a pipeline.
        """
        import apache_beam as beam

        requests, start = [], 0
        for number, line in enumerate(lines):
            requests.append((number, start, len(line)))
            start += len(line)
        name = f"{self._place}/requests-{self._count}.jsonl"
        try:
            pipeline = beam.Pipeline(options=self._options)
        except Exception as error:
            message = f"batch.beam: the runner {self._runner} cannot be used: {reason(error)}"
            hint = 'correct the options; Dataflow needs pip install "apache-beam[gcp]"'
            raise ConfigError(message, hint=hint) from error
        (
            pipeline
            | "requests" >> beam.Create(requests)
            # Otherwise a runner may give all of them to the worker that made them.
            | "one by one" >> beam.Reshuffle()
            | "answers" >> beam.Map(answer, name, f"{self._place}/bundle.zip", folder)
        )
        return pipeline

    def _run(self, pipeline: Any) -> None:
        try:
            # A runner on this machine returns when it is done, another one with the job's name.
            self._result = pipeline.run()
            state = self._result.wait_until_finish()
            self._failure = f"it ended as {state or self._result.state}, without an answer"
        except Exception as error:  # noqa: BLE001 (runners raise all kinds)
            self._failure = reason(error)

    def _collect(self, folder: str, left: dict[str, bytes]) -> None:
        """Send the answers that are complete, each once."""
        [found] = self._files.match([self._files.join(folder, "*.json")])
        for each in found.metadata_list:
            number = _NUMBER.search(each.path)
            if number is None or number[1] not in left:
                continue
            with self._files.open(each.path) as file:
                line = file.read()
            if line.endswith(b"\n"):  # another one is not complete yet
                del left[number[1]]
                reply: Answer = msgspec.json.decode(line, type=Answer)
                self._replies.send(reply)

    def _write(self, path: str, data: bytes) -> None:
        with self._files.create(path) as file:
            file.write(data)


def answer(request: tuple[int, int, int], requests: str, bundle: str, folder: str) -> None:
    """Answer a request in a worker of Beam.

    Args:
        request: its number, and where it is in its file: start and length.
        requests: the file with the requests.
        bundle: its archive.
        folder: gets the answer.
    """
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    from mlship.runtime.batches import executor

    number, start, length = request
    plain = CompressionTypes.UNCOMPRESSED
    with FileSystems.open(requests, compression_type=plain) as file:
        file.seek(start)
        line = file.read(length).decode()
    reply = executor.answer(line, _unpacked(bundle))
    with FileSystems.create(f"{folder}/{number}.json", compression_type=plain) as out:
        out.write(reply.encode() + b"\n")


@cache
def _unpacked(archive: str) -> Path:
    """Return the folder of the bundle on the machine of a worker."""
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(archive, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return bundle_archive.unpacked(file.read())
