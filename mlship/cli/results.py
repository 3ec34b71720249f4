"""What the commands of steps print when they end, and the outputs that they set in a GitHub job."""

from typing import TYPE_CHECKING, Any

from mlship.cli import output
from mlship.domain import shapes
from mlship.domain.evidence import Record
from mlship.domain.facts import (
    Contained,
    Containerized,
    Deployed,
    Facts,
    PushedImage,
    Staged,
    Tested,
    Verified,
)
from mlship.errors import RefusedError
from mlship.reports.summary import summary

if TYPE_CHECKING:
    from mlship.steps.restore import Standing


def record(result: Record, *, json: bool, refuse: bool = True) -> None:
    """Print the result of a step; in a GitHub job, also set outputs.

    The outputs are `release`, `verdict` and, if the step has them, `endpoint`, `reference` and
    `digest`.

    Raises:
        RefusedError: the verdict is not `passed` and `refuse` is set.
    """
    evidence, detail = result.evidence, summary(result)
    _set_outputs(result)
    details = _details(result)
    if refuse and evidence.verdict != "passed":
        if not json:
            for failure in _failures(result):
                output.line(f"  {failure}")
        raise RefusedError(
            f"{evidence.step} of {evidence.release}: {evidence.verdict}. {detail}".rstrip(". "),
            hint=f"run `mlship report {evidence.release}` for details",
            facts=details,
        )
    if json:
        output.as_json(details)
    else:
        output.line(f"{evidence.step} {evidence.release}: {evidence.verdict}. {detail}".strip())


def beside(result: Record, shadow: Record | None, *, json: bool) -> None:
    """Print what is published, and what a challenger answered in its shadow: one document as JSON.

    Raises:
        RefusedError: a verdict is not `passed`. If it is the shadow's, the message says that the
            other result stays published.
    """
    if shadow is None or result.evidence.verdict != "passed":
        record(result, json=json)
        return
    if shadow.evidence.verdict == "passed" and json:
        _set_outputs(result)
        output.as_json(_details(result) | {"shadow": _details(shadow)})
        return
    if not json:
        record(result, json=json)
    try:
        record(shadow, json=json)
    except RefusedError as error:
        _set_outputs(result)
        error.message = f"{error.message}; what {result.evidence.release} answered is published"
        error.facts = _details(result) | {"shadow": _details(shadow)}
        raise
    _set_outputs(result)


def _details(result: Record) -> dict[str, Any]:
    evidence = result.evidence
    return {
        "release": str(evidence.release),
        "step": evidence.step,
        "verdict": evidence.verdict,
        "facts": evidence.facts,
        "record": result.digest,
    }


def deployed(result: Record, found: "Standing | None", *, json: bool) -> None:
    """Print the result of a deployment to production; of a release that was there, what it has.

    Raises:
        RefusedError: the verdict is not `passed`.
    """
    if found is None:
        record(result, json=json)
        return
    release = str(result.evidence.release)
    output.set_outputs(release=release, verdict=result.evidence.verdict, endpoint=found.endpoint)
    if json:
        details = {"release": release, "step": "deploy-production", "verdict": "passed"}
        output.as_json({**details, "facts": found, "record": result.digest})
    else:
        output.line(f"deploy-production {release}: passed. {found}")


def _set_outputs(record: Record) -> None:
    release, verdict = str(record.evidence.release), record.evidence.verdict
    output.set_outputs(release=release, verdict=verdict, **_outputs(shapes.read(record)))


def _outputs(facts: Facts) -> dict[str, str]:
    """Return what the steps of a job after this one may need."""
    match facts:
        case Staged() | Verified() | Deployed():
            return {"endpoint": facts.endpoint}
        case Containerized() | PushedImage():
            return {"reference": facts.reference, "digest": facts.digest}
        case Contained():
            return {"reference": facts.reference}
        case _:
            return {}


def _failures(record: Record) -> list[str]:
    """Return a line for each test that failed and for each request that differed."""
    facts = shapes.read(record)
    match facts:
        case Tested():
            return [failure for run in facts.tests for failure in run.failures]
        case Contained() | Verified():
            failures = [failure for run in facts.tests for failure in run.failures]
            return [*failures, *facts.differences]
        case _:
            return []
