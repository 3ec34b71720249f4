"""The composition root: from a Config to the ports. The only package that picks a backend."""

from mlship.adapters.checkout.git import merge
from mlship.adapters.checkout.repository import not_ignored, top_of
from mlship.adapters.checkout.storage import fetch as fetch_data
from mlship.adapters.checkout.storage import kept_by_dvc
from mlship.adapters.checkout.versions import repository
from mlship.wire.assemble import CONFIG, assemble, environment, publishing, read
from mlship.wire.backends import (
    Purpose,
    cluster_access,
    cluster_locks,
    cluster_target,
    docker_engine,
    local_target,
    members,
    parent,
)
from mlship.wire.batch import batching
from mlship.wire.installed import installed
from mlship.wire.load import draw_load, generator
from mlship.wire.personal import personal_key
from mlship.wire.processes import own_commands
from mlship.wire.streams import (
    dead_letters,
    outcome_messages,
    stream_background,
    stream_backlogs,
    stream_files,
    stream_plan,
    stream_workers,
)

__all__ = [
    "CONFIG",
    "Purpose",
    "assemble",
    "batching",
    "cluster_access",
    "cluster_locks",
    "cluster_target",
    "dead_letters",
    "docker_engine",
    "draw_load",
    "environment",
    "fetch_data",
    "generator",
    "installed",
    "kept_by_dvc",
    "local_target",
    "members",
    "merge",
    "not_ignored",
    "outcome_messages",
    "own_commands",
    "parent",
    "personal_key",
    "publishing",
    "read",
    "repository",
    "stream_background",
    "stream_backlogs",
    "stream_files",
    "stream_plan",
    "stream_workers",
    "top_of",
]
