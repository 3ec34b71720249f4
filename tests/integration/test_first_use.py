"""Two threads that read the first answers of two servers at once do not crash the process."""

import subprocess
import sys

import pytest

RACE = """
import sys, threading
import msgspec
from mlship.adapters.http.bodies import decoded
sys.setswitchinterval(1e-6)
for _ in range(500):
    part = msgspec.defstruct("Part", [("name", str), ("labels", dict[str, str] | None, None)])
    item = msgspec.defstruct("Item", [("metadata", part)])
    whole = msgspec.defstruct("Whole", [("items", list[item] | None, None)])
    barrier = threading.Barrier(2)
    def read(whole=whole, barrier=barrier):
        barrier.wait()
        READ(b'{"items": [{"metadata": {"name": "x"}}]}', whole)
    threads = [threading.Thread(target=read) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""


@pytest.mark.cold
@pytest.mark.parametrize(
    ("read", "survives"),
    [("decoded", True), ("(lambda text, kind: msgspec.json.decode(text, type=kind))", False)],
    ids=["ours", "the control: msgspec alone"],
)
def test_a_type_is_prepared_in_one_thread(read: str, survives: bool) -> None:
    code = RACE.replace("READ", read)
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (ended.returncode == 0) == survives, ended.stderr.decode()
