"""The rows of batches that champion and challenger are compared on, with what both answered."""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from mlship.domain import batch as batches
from mlship.domain import batch_outcomes
from mlship.domain.batch import Entry, Manifest
from mlship.domain.batch_outcomes import Answers
from mlship.domain.bundle import ID
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.prediction import Outcome, Prediction
from mlship.steps.batch import Batching
from mlship.steps.batch_trace import SLOT


class Contests:
    """The runs that compare champion and challenger.

    Args:
        batching: the ports of batches.
        records: of the ledger.
        champion: the id of its release.
        challenger: likewise.
        since: runs that were published before do not count.
    """

    def __init__(
        self,
        batching: Batching,
        records: Sequence[Record],
        champion: Digest,
        challenger: Digest,
        since: datetime,
    ) -> None:
        self._batching = batching
        self._runs: list[tuple[Answers, Manifest]] = []
        self._gone: list[str] = []
        for both in batch_outcomes.contests(records, champion, challenger, since):
            manifests = [batching.manifests.read(each.folder) for each in both]
            known = [each for each in manifests if each is not None]
            if len(known) == len(both):
                self._runs += zip(both, known, strict=True)
            else:
                lacking = zip(both, manifests, strict=True)
                self._gone += [each.folder for each, manifest in lacking if manifest is None]
        self._parts = [
            batch_outcomes.parts_of(manifest, each.side) for each, manifest in self._runs
        ]

    @property
    def parts(self) -> Collection[str]:
        """The prefixes of the ids of their rows."""
        return frozenset().union(*self._parts)

    @property
    def notes(self) -> list[str]:
        """What does not count, in words: outputs that somebody removed."""
        shown = dict.fromkeys(self._gone)
        return [f"the outputs in {folder} are gone and do not count" for folder in shown]

    def answers(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[int, Prediction]]:
        """Return what each release answered to rows with outcomes, with the outcomes' places.

        Of a run, only the parts that have such rows are read. A row may come twice from a release,
        if two runs have its part; both answers are the same.

        Raises:
            NotFoundError: an output of a run is gone.
            IntegrityError: an output was changed since it was written.
            UnavailableError: an output cannot be read.
        """
        # Places in an array, since a million outcomes are usual. Those of a part are few.
        wanted: dict[str, array[int]] = defaultdict(lambda: array("q"))
        for place, outcome in enumerate(outcomes):
            if (row := batches.row_of(outcome.prediction)) is not None:
                wanted[row[0]].append(place)
        for (each, manifest), parts in zip(self._runs, self._parts, strict=True):
            for prefix, part in parts.items():
                own = {outcomes[place].prediction: place for place in wanted.get(prefix, ())}
                for id_, prediction in self._of_part(each, manifest, part, own) if own else ():
                    yield own[id_], prediction

    def _of_part(
        self, each: Answers, manifest: Manifest, part: Entry, wanted: Collection[str]
    ) -> Iterator[tuple[str, Prediction]]:
        time = datetime.fromisoformat(manifest.time)
        rows = self._batching.outputs.rows(each.folder, manifest, [part], ID, wanted)
        for row in rows:
            yield (
                row.id,
                Prediction(
                    id=row.id,
                    release=each.release,
                    slot=SLOT,
                    time=time,
                    inputs={},
                    outputs=row.outputs,
                    latency_ms=0.0,
                ),
            )
