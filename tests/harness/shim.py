"""The program `mlship` that pages and workflows find on their PATH: its commands are forks, too.

It starts in hundredths of a second: it imports only modules in C, and hands its
arguments, variables, folder and streams to the warm process. A command whose variables are read
when Python starts or a library is imported becomes a process of its own, as in `commands`.
"""

import os
import sys
from collections.abc import Collection
from pathlib import Path

from tests.harness import commands, variables, warm

_TEXT = """#!{python} -ISE
# The modules in C: the imports of `json`, `signal` and `socket` take twice the time of the rest.
import os, sys
import _signal as signals
import _socket as sockets
from _json import encode_basestring_ascii as quoted

fixed = {fixed!r}
at_import = {{
    name: value
    for name, value in os.environ.items()
    if name.startswith({prefixes!r}) and name not in {passed!r} and not value.endswith({utf_8!r})
}}
if at_import != fixed or not {cold!r}.isdisjoint(sys.argv[1:]):
    os.execv(sys.executable, [sys.executable, "-m", "mlship", *sys.argv[1:]])
arguments = ", ".join(map(quoted, sys.argv[1:]))
variables = ", ".join(quoted(name) + ": " + quoted(os.environ[name]) for name in os.environ)
call = (
    '{{"program": "mlship", "descriptors": [0, 1, 2], "folder": ' + quoted(os.getcwd())
    + ', "arguments": [' + arguments + '], "environment": {{' + variables + '}}}}'
)
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
warm = sockets.socket(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
warm.connect({address!r})
warm.sendmsg([call.encode()], [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, streams)])
pid = int(warm.recv(100))
for number in (signals.SIGTERM, signals.SIGINT, signals.SIGHUP):
    signals.signal(number, lambda number, _: os.kill(pid, number))
code = int(warm.recv(100) or -signals.SIGKILL)
warm.close()
if code < 0:
    signals.signal(-code, signals.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def write(file: Path, cold: Collection[str] = ()) -> None:
    """Write the program to a file that can be executed.

    Args:
        file: where it is to be.
        cold: the commands that become processes of their own.
    """
    process = commands.process()
    text = _TEXT.format(
        python=sys.executable,
        prefixes=variables.AT_IMPORT,
        passed=variables.PASSED,
        utf_8=variables.UTF_8,
        cold=frozenset(cold),
        fixed=variables.at_import(os.environ),
        address=warm.address(process.name, "commands"),
    )
    file.write_text(text, "utf-8")
    file.chmod(0o755)
