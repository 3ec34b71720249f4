"""What `mlship doctor` says of where evidence, models and predictions are kept."""

import shlex
import stat

from mlship import files
from mlship.domain import emails, home
from mlship.domain.trust import Trust
from mlship.steps.deploy import KEEP, LOST
from mlship.steps.diagnosis import Surroundings, Warned
from mlship.steps.ledger import contents
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.removal import unfinished
from mlship.steps.verify_image import check_anchors

_TRACKING = "MLFLOW_TRACKING_URI"
_HERE_ALONE = f"kept on this machine, because {_TRACKING} is not set here"
_SHARE = (
    f"export {_TRACKING}=https://HOST of the server that all share, or set store.uri in "
    "mlship.yaml; without a server: kind registry for ledger and store (`mlship guide "
    "without-a-server`)"
)
_BY = (
    "in mlship.yaml, set `kind: mlflow` under ledger for a tracking server, or `kind: registry` "
    "under ledger and store (`mlship guide without-a-server`)"
)

_FEW = 5


def ledger(pipeline: Pipeline, around: Surroundings) -> str | Warned:
    """Check that the ledger can be read, and that all who need it share it."""
    config, text = pipeline.config, f"{len(pipeline.ledger.records())} records, the chain is whole"
    if config.ledger.uri or config.ledger.kind == "registry" or not _shares(pipeline, around):
        return text
    if config.ledger.kind == "mlflow":
        is_named = config.store.kind == "mlflow" and config.store.uri
        return text if is_named else Warned(detail=f"{text}; {_HERE_ALONE}", hint=_SHARE)
    return Warned(detail=f"{text}; evidence is kept in this folder, and jobs share none", hint=_BY)


def signatures(pipeline: Pipeline) -> str | Warned:
    """Check that evidence is signed and whole, that all of it counts, and this machine's would."""
    records = pipeline.look()
    found = contents(pipeline, records)
    check_anchors(pipeline, records.history.players, records)
    if found.untrusted:
        count = home.counted(len(found.untrusted))
        detail = f"{count} without effect, the last because {found.untrusted[-1].reason}"
        return Warned(detail=detail, hint="`mlship ledger verify` shows them and the next action")
    named, whose = pipeline.signatures.trust(), pipeline.signatures.signing
    if named.unsigned:
        detail = "records need no signature: who can write to the ledger decides what is promoted"
        return Warned(detail=detail, hint="run `mlship keys new`, and name the key as it says")
    if warned := _of_people(named):
        return warned
    if whose is None:
        return f"{home.counted(found.records)} signed; this machine has no key and only reads"
    signer = named.signer(whose.key)
    if signer is None:
        detail = "this machine has a key that `trust.signers` does not name"
        return Warned(detail=detail, hint="`mlship keys show` prints what mlship.yaml needs")
    return f"{home.counted(found.records)} signed; this machine signs as {signer.name}"


def _of_people(trust: Trust) -> Warned | None:
    """Return what is said of people: who is not used, and whose address may look like another."""
    if trust.remarks:
        hint = "correct the line, or remove it; nothing that its key signs counts"
        return Warned(detail="; ".join(trust.remarks[:_FEW]), hint=hint)
    similar = [
        f"{email!a} has {character}"
        for signer in trust.signers
        for email in signer.emails
        if (character := emails.beyond_ascii(email))
    ]
    if not similar:
        return None
    hint = "type the address again by hand, and see whether `git diff` shows a change"
    return Warned(detail=f"look at it: {'; '.join(similar[:_FEW])}", hint=hint)


def store(pipeline: Pipeline, around: Surroundings) -> str | Warned:
    """Check that the store can be read, and that all who need it share it."""
    config, text = pipeline.config, f"{len(pipeline.store.versions())} versions"
    if config.store.kind == "registry" or config.store.uri or not _shares(pipeline, around):
        return text
    if config.store.kind == "mlflow":
        return Warned(detail=f"{text}; {_HERE_ALONE}", hint=_SHARE)
    return Warned(detail=f"{text}; models are kept in this folder, and jobs share none", hint=_BY)


def _shares(pipeline: Pipeline, around: Surroundings) -> bool:
    """Return whether the project's jobs, and other people, need a store and a ledger in common."""
    config = pipeline.config
    kinds = {pipeline.target_config(name).kind for name in (STAGING, PRODUCTION)}
    by_server, in_cluster = config.ledger.kind == "mlflow", kinds != {"local"}
    if by_server and in_cluster:
        return True  # whoever else deploys to the cluster has to know what runs there
    wants = by_server or in_cluster or config.store.kind == "registry"
    return wants and any(_TRACKING in text for text in around.workflows().values())


def observations(pipeline: Pipeline) -> str | Warned:
    """Check that outcomes can be read, and that predictions are kept, and for nobody else."""
    records = pipeline.look()
    outcomes = f"{len(pipeline.observations.outcomes(records.ids))} outcomes"
    if broken := unfinished(records):
        begun = broken[0].evidence
        detail = f"an erasure by {begun.actor} at {begun.time:%Y-%m-%d %H:%M} UTC did not end"
        hint = "run the same `mlship predictions erase` again"
        return Warned(detail=f"{outcomes}; {detail}", hint=hint)
    if pipeline.loses_predictions():
        return Warned(detail=f"{outcomes}; {LOST}", hint=KEEP)
    if not files.is_private(pipeline.state):
        mode = f"{stat.S_IMODE(pipeline.state.stat().st_mode):04o}"
        detail = f"{outcomes}; other users of this machine may enter {pipeline.state} ({mode})"
        return Warned(detail=detail, hint=f"chmod 700 {shlex.quote(str(pipeline.state))}")
    return outcomes
