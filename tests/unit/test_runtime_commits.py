"""The log behind the event loop: one append a turn, and each request hears of its own."""

import asyncio
from concurrent.futures import Future

import pytest

from mlship.domain.predicted import Batch
from mlship.errors import UnavailableError
from mlship.runtime import commits as module
from mlship.runtime.commits import Commits
from mlship.runtime.groups import Written
from tests.unit.test_runtime_record import prediction


class Log:
    def __init__(self) -> None:
        self.appended: list[list[str]] = []
        self.written: list[Written] = []
        self.is_closed = False
        self.fault: Exception | None = None

    def append(self, predictions: Batch) -> Written:
        if self.fault is not None:
            raise self.fault
        if self.is_closed:
            raise UnavailableError("the prediction log is closed", hint="retry the request")
        self.appended.append([prediction.id for prediction in predictions])
        self.written.append(Future())
        return self.written[-1]


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_requests_of_one_turn_are_appended_together() -> None:
    async def run() -> None:
        log = Log()
        commits = Commits(log, asyncio.get_running_loop())
        heard: list[tuple[str, BaseException | None]] = []

        def append(name: str) -> None:
            commits.append([prediction(name)]).add_done_callback(
                lambda turn: heard.append((name, turn.exception()))
            )

        append("a")
        append("b")
        assert log.appended == []
        await turn()
        append("c")
        await turn()
        assert log.appended == [["a", "b"], ["c"]]
        assert heard == [], "nothing is durable yet"
        log.written[0].set_result(None)
        await turn()
        assert heard == [("a", None), ("b", None)]
        error = UnavailableError("the disk is full", hint="make room")
        log.written[1].set_exception(error)
        await turn()
        assert heard[2:] == [("c", error)]
        log.is_closed = True
        append("d")
        await turn()
        assert "is closed" in str(heard[3][1])

    asyncio.run(run())


def test_a_log_that_hangs_is_given_up_and_its_late_end_ignored() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        log = Log()
        commits = Commits(log, loop)
        heard: list[BaseException | None] = []
        commits.append([prediction("a")]).add_done_callback(
            lambda turn: heard.append(turn.exception())
        )
        await turn()
        commits.check(loop.time() + module.SECONDS - 1)
        assert heard == []
        commits.check(loop.time() + module.SECONDS + 1)
        assert "was not written within 10 seconds" in str(heard[0])
        # What was given up is still in memory: nothing is added to it.
        with pytest.raises(UnavailableError, match="was not written within 10 seconds"):
            commits.append([prediction("b")])
        log.written[0].set_result(None)
        await turn()
        assert len(heard) == 1
        commits.append([prediction("c")])
        await turn()
        assert log.appended == [["a"], ["c"]]

    asyncio.run(run())


def test_a_request_that_cannot_be_answered_keeps_no_other_of_its_turn_from_it() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        unhandled: list[object] = []
        loop.set_exception_handler(lambda _loop, context: unhandled.append(context["exception"]))
        log = Log()
        commits = Commits(log, loop)
        heard: list[str] = []
        fault = ValueError("no response")

        def fail(_: object) -> None:
            raise fault

        commits.append([prediction("a")]).add_done_callback(fail)
        commits.append([prediction("b")]).add_done_callback(lambda _: heard.append("b"))
        await turn()
        log.written[0].set_result(None)
        await turn()
        assert heard == ["b"]
        assert unhandled == [fault]

    asyncio.run(run())


def test_any_error_of_the_log_reaches_each_request_of_its_turn_and_no_other() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        unhandled: list[object] = []
        loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
        log = Log()
        commits = Commits(log, loop)
        heard: list[tuple[str, BaseException | None]] = []

        def append(name: str) -> None:
            commits.append([prediction(name)]).add_done_callback(
                lambda turn: heard.append((name, turn.exception()))
            )

        fault = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        log.fault = fault
        append("a")
        append("b")
        await turn()
        assert heard == [("a", fault), ("b", fault)]
        log.fault = None
        append("c")
        await turn()
        log.written[0].set_result(None)
        await turn()
        assert heard[2:] == [("c", None)]
        assert unhandled == []

    asyncio.run(run())
