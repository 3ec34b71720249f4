"""The job of a stream for Spark's Structured Streaming."""

import pprint
from string import Template
from typing import Final

import msgspec

from mlship.domain.stream import Plan, Settings

NAME: Final = "stream_job.py"

_JOB: Final = Template('''\
"""Answers the messages of $input on Spark, by $releases.

    spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0 $name CHECKPOINT

CHECKPOINT is a folder or URL that outlives the job: the next one continues there. Python of the
driver and the executors needs mlship-cd[serve,kafka]. Outputs may be written again after a crash,
with the same header mlship-prediction-id. After a promotion, render and start the job again.
"""

import sys

from mlship.runtime.stream.spark import run

SETTINGS = (
$settings
)
PLAN = (
$plan
)

run(SETTINGS, PLAN, checkpoint=sys.argv[1])
''')


def render(settings: Settings, plan: Plan) -> str:
    """Return the job's file."""
    releases = ", ".join(f"{side.name} ({side.weight} %)" for side in plan.sides)
    return _JOB.substitute(
        input=settings.input,
        releases=releases,
        name=NAME,
        settings=_literal(msgspec.json.encode(settings).decode()),
        plan=_literal(msgspec.json.encode(plan).decode()),
    )


def _literal(text: str) -> str:
    """Return a text as literals of Python on lines that can be read."""
    whole = pprint.pformat(text, width=96)
    if not whole.startswith("("):
        return f"    {whole}"
    return "\n".join(f"    {line.strip()}" for line in whole[1:-1].splitlines())
