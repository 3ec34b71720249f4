"""The observed state of a local target, by querying each replica."""

from collections.abc import Mapping
from threading import Thread

from mlship.adapters.targets.local import loopback, probe, processes
from mlship.adapters.targets.local.state import Placement, Replica, Running, Wanted
from mlship.adapters.targets.replica import Answer
from mlship.domain.deployment import Deployment, Restarts, Slot
from mlship.domain.digests import Digest

_PROBE_SECONDS = 0.2


def deployments(wanted: Wanted, running: Running, *, supervised: bool) -> dict[Slot, Deployment]:
    """Return the observed state of each slot; replicas are queried in parallel, within 0.2 s."""
    answers = _ask([replica for replica in running.replicas if replica.phase != "crashed"])
    note = _note(wanted, supervised=supervised)
    router = "" if wanted.stopped else _router_problem(wanted, running)
    return {
        slot: _deployment(
            slot,
            placement,
            [replica for replica in running.replicas if replica.slot == slot],
            answers,
            note=note,
            router=router,
            supervised=supervised or wanted.stopped,
        )
        for slot, placement in sorted(wanted.slots.items())
        if placement.replicas or any(replica.slot == slot for replica in running.replicas)
    }


def stopped(before: Running, *, supervised: bool) -> tuple[str, ...]:
    """Return the stopped processes for people, one line each."""
    slots = sorted({replica.slot for replica in before.replicas})
    counts = {slot: sum(item.slot == slot for item in before.replicas) for slot in slots}
    lines = [f"{count} replica{'s'[: count != 1]} of {slot}" for slot, count in counts.items()]
    if before.router:
        lines.append(f"the router on port {before.router.port}")
    if supervised:
        lines.append("the supervisor")
    return tuple(lines)


def _ask(replicas: list[Replica]) -> dict[int, Answer | None]:
    """Return the response of each live replica, by its pid."""
    answers: dict[int, Answer | None] = {}

    def ask(replica: Replica) -> None:
        answers[replica.process.pid] = probe.ask(replica.port, seconds=_PROBE_SECONDS)

    threads = [
        Thread(target=ask, args=(replica,), daemon=True)
        for replica in replicas
        if processes.is_alive(replica.process)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * _PROBE_SECONDS)
    return dict(answers)


def _deployment(
    slot: Slot,
    placement: Placement,
    replicas: list[Replica],
    answers: dict[int, Answer | None],
    *,
    note: str,
    router: str,
    supervised: bool,
) -> Deployment:
    staying = [item for item in replicas if item.phase not in ("draining", "stopping")]
    by_number = {item.number: answers.get(item.process.pid) for item in staying}
    ready_answers = [answer for answer in by_number.values() if answer is not None and answer.ready]
    release = ready_answers[0].release if ready_answers else placement.release
    artifact = ready_answers[0].bundle if ready_answers else placement.artifact
    ready = sum(answer.release == release for answer in ready_answers)
    details = [_detail(item, by_number[item.number], release) for item in staying]
    if not placement.replicas:
        note = "is being removed"
    reasons = [note, *details]
    is_whole = ready == placement.replicas and note != "is being removed"
    return Deployment(
        slot=slot,
        release=Digest(release),
        artifact=Digest(artifact),
        ready=ready,
        wanted=placement.replicas,
        detail="; ".join(text for text in (router, *([] if is_whole else reasons)) if text),
        restarts=restarts_of(by_number),
        supervised=supervised,
    )


def restarts_of(answers: Mapping[int, Answer | None]) -> Restarts | None:
    """Return what the replicas of a slot say of their workers; `None` if there is no replica."""
    if not answers:
        return None
    known = {number: answer for number, answer in sorted(answers.items()) if answer is not None}
    told = [answer for answer in known.values() if answer.restarts is not None]
    silent = len(answers) - len(told)
    return Restarts(
        workers=sum(answer.restarts or 0 for answer in told) if told else None,
        hung=sum(answer.hung or 0 for answer in told) if told else None,
        reasons=tuple(
            f"a worker of replica {number} {answer.last_restart}"
            for number, answer in known.items()
            if answer.last_restart
        ),
        unknown=f"restarts of workers in {silent} of {len(answers)} replicas" if silent else "",
    )


def _detail(replica: Replica, answer: Answer | None, release: str) -> str:
    name = f"replica {replica.number}"
    if answer is not None and answer.release != release:
        return f"{name} reports another release: {answer.release or 'none'}"
    if answer is not None:
        reason = answer.problem or answer.state
        return "" if answer.ready else f"{name} is not ready: {reason}"
    if replica.phase == "crashed":
        return f"{name} crashed {replica.crashes} times in a row"
    return f"{name} does not respond"


def _router_problem(wanted: Wanted, running: Running) -> str:
    """Return why clients get no answer although replicas may be ready; empty if they do.

    It connects to the port: an Envoy that runs may have been told to listen no more.
    """
    if running.router is None or loopback.listens(wanted.port, seconds=_PROBE_SECONDS):
        return ""
    problem = running.router.problem or "see its log, envoy.log"
    return f"the router does not accept connections on port {wanted.port}: {problem}"


def _note(wanted: Wanted, *, supervised: bool) -> str:
    if wanted.stopped:
        return "stopped by `mlship down`"
    return "" if supervised else "the supervisor is not running: deploy again to start it"
