"""The programs that pages and workflows find on their PATH, whose processes are forks, too.

`mlship` forks for all its commands, `python` for a script on stdin or in an argument. It starts in
hundredths of a second: it imports only modules of the standard library, and hands its arguments,
variables, folder and streams to the warm process. A command whose variables are read when Python
starts or a library is imported becomes a process of its own, as in `commands`.
"""

import os
import sys
from collections.abc import Collection
from pathlib import Path

from tests.harness import commands, variables, warm

_TEXT = """#!{python} -ISE
import json, os, signal, socket, sys

fixed = {fixed!r}
at_import = {{
    name: value
    for name, value in os.environ.items()
    if name.startswith({prefixes!r}) and name not in {passed!r} and not value.endswith({utf_8!r})
}}
is_known = {forked!r} is None or sys.argv[1:2] and sys.argv[1] in {forked!r}
if at_import != fixed or not is_known or not {cold!r}.isdisjoint(sys.argv[1:]):
    os.execv(sys.executable, [sys.executable, *{start!r}, *sys.argv[1:]])
call = {{
    "program": {program!r},
    "arguments": sys.argv[1:],
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "descriptors": [0, 1, 2],
}}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as warm:
    warm.connect({address!r})
    socket.send_fds(warm, [json.dumps(call).encode()], [0, 1, 2])
    pid = int(warm.recv(100))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(warm.recv(100) or -signal.SIGKILL)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def write(file: Path, cold: Collection[str] = ()) -> None:
    """Write the program `mlship` to a file that can be executed.

    Args:
        file: where it is to be.
        cold: the commands that become processes of their own.
    """
    _write(file, program="mlship", start=("-m", "mlship"), cold=frozenset(cold), forked=None)


def write_python(file: Path) -> None:
    """Write the program `python` to a file that can be executed."""
    _write(file, program="python", start=(), cold=frozenset(), forked=("-", "-c"))


def _write(file: Path, **choices: object) -> None:
    process = commands.process()
    text = _TEXT.format(
        python=sys.executable,
        prefixes=variables.AT_IMPORT,
        passed=variables.PASSED,
        utf_8=variables.UTF_8,
        **choices,
        fixed=variables.at_import(os.environ),
        address=warm.address(process.name, "commands"),
    )
    file.write_text(text, "utf-8")
    file.chmod(0o755)
