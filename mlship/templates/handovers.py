"""What jobs of a pull request hand over to each other, and which of them there are."""

from typing import NamedTuple

from mlship.config.project import Config
from mlship.templates import own_steps
from mlship.templates.registries import registry_of_documents


class Handovers(NamedTuple):
    """How the job that runs unreviewed code and the shared ledger are kept apart.

    Attributes:
        shares: whether jobs share a ledger, so that a job reads it for that one.
        claims: whether what that one says is recorded there.
        public: whether what the project knows may be in artifacts of a public repository.
        own_secrets: whether steps of the user name secrets.
        needs: arguments of the installer in the jobs that use the ledger.
    """

    shares: bool
    claims: bool
    public: bool
    own_secrets: bool
    needs: tuple[str, ...]


def handovers_of(config: Config, needs: tuple[str, ...]) -> Handovers:
    """Return the hand-overs of a project; `needs` installs mlship where the ledger is used."""
    is_shared = config.ledger.kind != "directory" or config.ledger.uri is not None
    # In Google's registry, jobs of a pull request have no identity.
    shares = is_shared and registry_of_documents(config) != "google"
    return Handovers(
        shares=shares,
        # Who may write records to a registry may push images there.
        claims=shares and config.workflows.claims and config.ledger.kind != "registry",
        public=config.workflows.public_data,
        own_secrets=own_steps.name_secrets(config.workflows.steps),
        needs=needs,
    )
