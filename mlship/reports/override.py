"""An override of a promotion's gate, as text: a challenger has more traffic than configured."""

from mlship.domain.override import Overridden
from mlship.reports import formatting


def sentence(overridden: Overridden) -> str:
    """Return who overrode the gate, when and why, and what the release has since."""
    return (
        f"override: {overridden.release} gets {overridden.share} % of the traffic, and "
        f"{overridden.configured} % are configured. {overridden.by} overrode the gate of a "
        f"promotion at {formatting.moment(overridden.time)} UTC: {overridden.why}"
    )
