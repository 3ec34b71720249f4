"""A ledger in MLflow: one run per record, so that all machines share the evidence.

    experiment  <project>-ledger
    run         "promote/route iris@3f9a0c1b2d4e"
    tags        mlship.record     the digest of the record's bytes
                mlship.record.0   the bytes, UTF-8 JSON in pieces of 4,000 characters
                mlship.record.1   ...

A run and its tags are created atomically by one call. MLflow has no lock: two concurrent writers
fork the chain, and the next record joins it. MLflow cannot prevent that a run is edited or
deleted, but the chain of digests detects it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mlship.adapters.http.retries import Patience
from mlship.adapters.ledgers.chain import Chain
from mlship.adapters.ledgers.mlflow_runs import LibraryRuns, NewRun, Runs, ServerRuns, StoredRun
from mlship.adapters.mlflow.rest import PATIENCE
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Evidence, Record, decode, encode, heads
from mlship.errors import IntegrityError, UnavailableError, shown

RECORD: Final = "mlship.record"
_PIECE: Final = 4000
"""MLflow's REST API limits a tag to 5,000 characters, some hosts to 4,096."""


class MlflowLedger:
    """Stores evidence in the experiment `<name>-ledger`, created with the first record.

    Args:
        uri: `http(s)://` of a tracking server, or `sqlite:///` and the path of a file.
        name: of the project.
        artifacts: the folder for files of runs beside a sqlite database; records have none.
        environ: the environment variables, with credentials and other `MLFLOW_*` settings; by
            default those of the process.
        patience: how long a tracking server is waited for.
        by: signs the records; `None` for records without a signature.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        artifacts: Path,
        environ: Mapping[str, str] | None = None,
        patience: Patience = PATIENCE,
        by: Signing | None = None,
    ) -> None:
        self._by = by
        environ = os.environ if environ is None else environ
        experiment = f"{name}-ledger"
        self._where = f"experiment {experiment} of MLflow at {shown(uri)}"
        self._runs: Runs
        if uri.startswith(("http://", "https://")):
            self._runs = ServerRuns(uri, experiment, environ, patience)
        else:
            self._runs = LibraryRuns(uri, experiment, artifacts, environ)
        self._chain: Chain[bytes] = Chain(
            self._look,
            lambda data: data,
            lambda digest: f"the run of record {digests.short(digest)} in {self._where}",
        )

    def append(self, evidence: Evidence, *, after: Sequence[Digest] | None = None) -> Record:
        """Append evidence after the heads of the chain, durably; return it with its digest.

        Only the new run is read back.

        Args:
            evidence: the evidence to append.
            after: the heads, if the caller has read them; by default all records are read.

        Raises:
            UnavailableError: MLflow cannot be reached or written, and the record was not found
                there.
            IntegrityError: the chain is broken, or MLflow returns another record than it was sent.
        """
        parents = heads(self.records()) if after is None else tuple(after)
        data = encode(msgspec.structs.replace(evidence, parents=parents), self._by)
        record = decode(data)
        try:
            stored = self._runs.write(as_run(record, data))
        except UnavailableError:
            # Only the response may have been lost, not the record.
            kept = self._look().get(record.digest)
            if kept is None:
                raise
        else:
            kept = self._bytes_of(stored)[1]
        if kept != data:
            message = f"record {record.digest} in {self._where} differs from what was written"
            raise IntegrityError(
                message, hint="make sure that nothing edits tags there, then retry"
            )
        return record

    def records(self) -> Sequence[Record]:
        """Return all records, verified, parents before children.

        Raises:
            IntegrityError: a record was changed or removed, or a run is not a record.
            UnavailableError: MLflow cannot be reached or read.
        """
        return self._chain.records()

    def _look(self) -> dict[Digest, bytes]:
        return dict(self._bytes_of(kept) for kept in self._runs.read())

    def _bytes_of(self, kept: StoredRun) -> tuple[Digest, bytes]:
        """Return the digest in the tags of a run, and the bytes of its record.

        Raises:
            IntegrityError: the run was deleted, or is not a record.
        """
        if kept.deleted:
            message = f"run {kept.run} in {self._where} was deleted; it is a record of the ledger"
            raise IntegrityError(message, hint=f"run `mlflow runs restore --run-id {kept.run}`")
        if RECORD not in kept.tags:
            message = f"run {kept.run} in {self._where} is not a record of the ledger"
            raise IntegrityError(
                message, hint="move the run to another experiment; only records belong in this one"
            )
        pieces: list[str] = []
        while (piece := kept.tags.get(f"{RECORD}.{len(pieces)}")) is not None:
            pieces.append(piece)
        return Digest(kept.tags[RECORD]), "".join(pieces).encode()


def as_run(record: Record, data: bytes) -> NewRun:
    """Return the run for a record, with its bytes in the tags, in pieces."""
    text = data.decode()
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    evidence = record.evidence
    return NewRun(
        name=f"{evidence.step} {evidence.release}",
        time=int(evidence.time.timestamp() * 1000),
        tags={
            RECORD: record.digest,
            **{f"{RECORD}.{number}": piece for number, piece in enumerate(pieces)},
        },
    )
