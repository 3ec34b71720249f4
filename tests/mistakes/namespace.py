"""A namespace of a real cluster, which mistakes are made in and on the way to."""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import yaml

from mlship.adapters.targets.kubernetes import Access, find
from mlship.config.targets import KubernetesConfig
from tests.mistakes.project import Project
from tests.mistakes.remote import Remote
from tests.mistakes.starts import Starts
from tests.stand_ins.faulty import Fault, before

_PREFIX = "MLSHIP_TARGETS__STAGING__"
OURS = f"{_PREFIX}KUBERNETES__"
_PLACES = {
    "deployment": "apps/v1/{}/deployments",
    "service": "v1/{}/services",
    "disruption budget": "policy/v1/{}/poddisruptionbudgets",
    "route": "gateway.networking.k8s.io/v1/{}/httproutes",
}


class Cluster(Remote):
    """A namespace of the tests' cluster, reached by a kubeconfig of the project's own."""

    def __init__(self, project: Project, starts: Starts) -> None:
        super().__init__(project)
        self.real = Path(os.environ["TEST_KUBECONFIG"])
        self.access: Access = find(KubernetesConfig(kubeconfig=str(self.real)), {})
        self.namespace = f"mistakes-{uuid.uuid4().hex[:8]}"
        self._client = project.held.enter_context(
            httpx.Client(
                base_url=self.access.server,
                verify=self.access.trust,
                auth=self.access.auth,
                timeout=20,
            )
        )
        self._found()
        project.held.callback(self.ask, "DELETE", f"/api/v1/namespaces/{self.namespace}")
        self.kubeconfig = project.folder / ".git" / "kubeconfig"
        self.document = yaml.safe_load(self.real.read_text())
        self._write()
        project.variables |= {
            f"{_PREFIX}KIND": "kubernetes",
            f"{OURS}GATEWAY": "gateway/gateway",
            f"{_PREFIX}READY_SECONDS": "240",
            f"{OURS}KUBECONFIG": str(self.kubeconfig),
            f"{OURS}NAMESPACE": self.namespace,
            f"{OURS}PATH": f"/{self.namespace}",
            f"{OURS}CPU": "null",
            f"{OURS}MEMORY": "null",
            f"{OURS}PRESTOP_SECONDS": "0",
        }
        self.names[self.namespace] = "NAMESPACE"
        self.settle()

    def _found(self) -> None:
        """Make the namespace, and wait for the account that its pods need."""
        named = {"metadata": {"name": self.namespace}}
        self.ask("POST", "/api/v1/namespaces", json=named)
        account = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"
        while self._client.get(account).status_code == 404:
            time.sleep(0.1)

    def ask(self, method: str, where: str, **given: Any) -> Any:
        """Ask the API server as the tests' own user."""
        answer = self._client.request(method, where, **given)
        assert answer.is_success, answer.text
        return answer.json()

    def within(self, kind: str) -> str:
        """Return the path of a kind in the namespace."""
        group = kind.format(f"namespaces/{self.namespace}")
        return f"/api/{group}" if kind.startswith("v1/") else f"/apis/{group}"

    def left(self) -> dict[str, str]:
        """Return the objects that are there, with what matters of their specs."""
        found = {}
        for kind, place in _PLACES.items():
            for one in self.ask("GET", self.within(place))["items"]:
                spec = one["spec"]
                spec.pop("clusterIP", None)
                spec.pop("clusterIPs", None)
                name = f"cluster/{kind} {one['metadata']['name']}"
                found[name] = json.dumps(spec, sort_keys=True)
        return found

    def _write(self) -> None:
        self.kubeconfig.write_text(json.dumps(self.document))

    def reach(self, server: str) -> None:
        """Name another server in the kubeconfig."""
        self._write()
        changed = json.loads(self.kubeconfig.read_text())
        changed["clusters"][0]["cluster"]["server"] = server
        self.kubeconfig.write_text(json.dumps(changed))

    def user(self, **credentials: str) -> None:
        """Be somebody else."""
        changed = json.loads(json.dumps(self.document))
        changed["users"][0]["user"] = credentials
        self.kubeconfig.write_text(json.dumps(changed))

    def through(self, *faults: Fault) -> None:
        """Reach the cluster by a proxy that answers some requests itself."""
        proxy = self.project.held.enter_context(before(self.access.server, self.access.trust))
        proxy.faults += faults
        self.reach(f"http://{proxy.host}")

    def mend(self) -> None:
        super().mend()
        self._write()
