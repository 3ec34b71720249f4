"""Compare-and-set on the revision of a route, which is not the resourceVersion of its object."""

import time
from collections.abc import Callable
from typing import Final

from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.routing import Written, annotations_of, check_home
from mlship.domain.deployment import Revision
from mlship.errors import ConflictError

POLL_SECONDS: Final = 0.05
_TURNS = 20


def compare_and_set(
    scope: Scope,
    expected: Revision,
    read: Callable[[], Written],
    write: Callable[[Written], Written],
) -> Written:
    """Write a route if it is at the expected revision.

    Others write into the same object, as a Gateway's controller does with its status: a conflict
    with them is not a conflict of revisions, and is retried. So is one with a later holder of the
    lock, which stays.

    Args:
        scope: of the target.
        expected: the revision that is replaced.
        read: returns the current route.
        write: replaces that route in the cluster, unless its resourceVersion has changed.

    Raises:
        ConflictError: the route is at another revision; or the lock was lost.
    """
    turns = 0
    while True:
        current = read()
        if current.revision != expected:
            raise conflict(scope, current.revision, expected)
        try:
            return write(current)
        except ConflictError:
            turns += 1
            if turns == _TURNS:
                raise
            time.sleep(POLL_SECONDS)


def overwrite(api: Api, scope: Scope, before: Manifest | None, fresh: Manifest) -> Manifest:
    """Write the object with a route over whatever is there; return it.

    Args:
        api: of the route's cluster.
        scope: of the target.
        before: what is there; `None` if nothing is.
        fresh: a first route.

    Raises:
        ConflictError: it is another project's, or is written to at this moment.
    """
    if before is None:
        return api.create(fresh)
    check_home(scope, before)
    own = fresh["metadata"]
    marks = {**annotations_of(before), **own["annotations"]}
    version = before["metadata"]["resourceVersion"]
    metadata = {**own, "annotations": marks, "resourceVersion": version}
    return api.replace({**fresh, "metadata": metadata})


def conflict(scope: Scope, current: Revision, expected: Revision) -> ConflictError:
    """Return the error for a route at another revision than the expected one."""
    message = f"the route of {scope.target} is at revision {current}, not {expected}"
    return ConflictError(message, hint="run `mlship status`, then decide again")
