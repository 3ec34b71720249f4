"""Which cluster of a target has which slot, and which one gets a new slot."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from mlship.adapters.targets.kubernetes.api import Api
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.members import Member, check_different
from mlship.adapters.targets.kubernetes.parents import Parent
from mlship.adapters.targets.kubernetes.routing import Placed, Written
from mlship.adapters.targets.kubernetes.slots import Slots
from mlship.config.placement import OTHER
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Deployment, Slot
from mlship.domain.digests import Digest
from mlship.domain.ports import Progress
from mlship.errors import ConfigError, MlshipError, NotFoundError

_UNNAMED: Final = NotFoundError("the cluster is not in mlship.yaml", hint="name it there again")


class Directory:
    """The clusters of a target, and their slots: as the route remembers them, else as observed."""

    def __init__(
        self,
        scope: Scope,
        config: TargetConfig,
        members: Mapping[str, Member],
        progress: Progress,
    ) -> None:
        """Store the settings; no request is sent."""
        self._scope = scope
        self._config = config
        self._members = members
        self._progress = progress
        self._is_first = False

    def place(self, slot: Slot, written: Written) -> Member:
        """Return the cluster of a slot, or the one in which the settings place a new one."""
        found = self.known(slot, written)
        if found is not None:
            self._check_there(slot, written, found)
            return found
        check_different(tuple(self._members.values()))
        homes = self._config.homes
        weights = written.split.weights
        if not any(weights.values()):
            return self._members[homes[0]]
        if self._config.challenger != OTHER:
            return self._members[self._config.challenger]
        leading = max(weights, key=lambda each: (weights[each], each))
        champion = self.find(leading, written)
        others = [name for name in homes if champion is None or name != champion.name]
        counts = {
            name: sum(place.cluster == name for place in written.places.values()) for name in others
        }
        return self._members[min(others, key=lambda name: (counts[name], others.index(name)))]

    def find(self, slot: Slot, written: Written) -> Member | None:
        """Return the cluster that has a slot; `None` if none of those in the settings has it.

        Raises:
            UnavailableError: the route does not remember the slot, and a cluster does not answer.
        """
        if slot in written.places:
            return self._members.get(written.places[slot].cluster)
        states = self.looks(quickly=False)
        for name, state in states.items():
            if not isinstance(state, MlshipError) and slot in state:
                return self._members[name]
        for name, state in states.items():
            if isinstance(state, MlshipError):
                raise self.unanswered(self._members[name], state)
        return None

    def looks(self, *, quickly: bool = True) -> dict[str, Mapping[Slot, Deployment] | MlshipError]:
        """Return the slots of each cluster in which releases run, or why it does not answer."""
        names = self._config.homes

        def look(name: str) -> Mapping[Slot, Deployment] | MlshipError:
            member = self._members[name]
            try:
                with member.connected(quickly=quickly) as api:
                    return self._slots(api, member).deployments()
            except MlshipError as error:
                return error

        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(look, names), strict=True))

    def deployments(self, written: Written) -> Mapping[Slot, Deployment]:
        """Return the observed state of each slot; see `ClustersTarget.inspect`."""
        found: dict[Slot, Deployment] = {}
        looks = self.looks()
        for name, state in looks.items():
            if not isinstance(state, MlshipError):
                for slot, deployment in state.items():
                    found[slot] = msgspec.structs.replace(deployment, cluster=name)
        for slot, place in written.places.items():
            state = looks.get(place.cluster, _UNNAMED)
            if isinstance(state, MlshipError):
                found[slot] = _remembered(slot, place, state.message)
            elif slot not in state and self._has_moved(place):
                found[slot] = _remembered(slot, place, self._moved(place))
        return found

    def check_first(self, parent: Parent) -> None:
        """Check, where a parent sends requests to no slot, that no cluster's own route does.

        The clusters are asked once in a command.

        Raises:
            ConfigError: one does. It gets the requests, and what is written elsewhere does nothing.
        """
        if self._is_first:
            return
        for name, member in self._members.items():
            if member is not parent and member.has_route(self._scope):
                message = f"the requests of {self._scope.target} come to cluster {name}, and its "
                message += f"parent in mlship.yaml is {parent.name}"
                hint = f"set `parent: {name}`; to move it, retire all releases before"
                raise ConfigError(message, hint=hint)
        self._is_first = True

    def known(self, slot: Slot, written: Written) -> Member | None:
        """Return the cluster that has a slot, as `find`, if it is in the settings.

        Raises:
            NotFoundError: the route remembers another one.
        """
        found = self.find(slot, written)
        if found is None and slot in written.places:
            cluster = written.places[slot].cluster
            message = f"{slot} of {self._scope.target} runs in cluster {cluster}, which is not in "
            hint = f"name the cluster again; or, if it is gone for good, retire {slot}"
            raise NotFoundError(f"{message}mlship.yaml", hint=hint)
        return found

    def _slots(self, api: Api, member: Member) -> Slots:
        return Slots(api, self._scope, member.config, self._progress, cluster=member.name)

    def _check_there(self, slot: Slot, written: Written, member: Member) -> None:
        """Check that a slot is still there, if its cluster has another address than before."""
        place = written.places.get(slot)
        if place is None or not self._has_moved(place):
            return
        with member.connected() as api:
            if slot in self._slots(api, member).deployments():
                return
        message = f"{slot} of {self._scope.target} is not in {self._moved(place)}"
        hint = f"correct `clusters` in mlship.yaml; or, if it is gone for good, retire {slot}"
        raise NotFoundError(message, hint=hint)

    def _has_moved(self, place: Placed) -> bool:
        return bool(place.server) and place.server != self._members[place.cluster].api_server

    def _moved(self, place: Placed) -> str:
        now = self._members[place.cluster].api_server
        return f"cluster {place.cluster}: it was {place.server}, and is {now} now"

    def unanswered(self, member: Member, error: MlshipError) -> MlshipError:
        """Return the error for a cluster that does not answer as it should."""
        message = f"cluster {member.name} of {self._scope.target}: {error.message}"
        hint = f"{error.hint}. If it is gone for good, remove it from mlship.yaml; see "
        return type(error)(message, hint=f"{hint}`mlship guide clusters`")


def _remembered(slot: Slot, place: Placed, why: str) -> Deployment:
    return Deployment(
        slot=slot,
        release=Digest(place.release),
        artifact=Digest(place.artifact),
        ready=0,
        wanted=1,
        detail=f"unknown: {why}",
        cluster=place.cluster,
        observed=False,
    )
