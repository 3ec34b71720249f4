"""The program `mlship` that pages and workflows find on their PATH: its commands are forks, too.

It starts in a hundredth of a second: it imports only modules that are written in C, since `json`,
`socket` and `signal` take longer than Python itself, and hands its arguments, variables, folder and
streams to the warm process. A command whose variables are read
when Python starts or a library is imported becomes a process of its own, as in `commands`.
"""

import os
import sys
from collections.abc import Collection
from pathlib import Path

from tests.harness import commands, variables, warm

_TEXT = """#!{python} -ISE
import _json, _signal, _socket, array, os, sys

fixed = {fixed!r}
environment = dict(os.environ)
at_import = {{
    name: value
    for name, value in environment.items()
    if name.startswith({prefixes!r}) and name not in {passed!r} and not value.endswith({utf_8!r})
}}
if at_import != fixed or not {cold!r}.isdisjoint(sys.argv[1:]):
    os.execv(sys.executable, [sys.executable, "-m", "mlship", *sys.argv[1:]])
text = _json.encode_basestring_ascii
arguments = ",".join(map(text, sys.argv[1:]))
variables = ",".join(text(name) + ":" + text(value) for name, value in environment.items())
call = (
    '{{"program":"mlship","descriptors":[0,1,2],"folder":' + text(os.getcwd())
    + ',"arguments":[' + arguments + '],"environment":{{' + variables + "}}}}"
)
warm = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
warm.connect({address!r})
streams = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
warm.sendmsg([call.encode()], streams)
pid = int(warm.recv(100))
for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
    _signal.signal(number, lambda number, _: os.kill(pid, number))
code = int(warm.recv(100) or -_signal.SIGKILL)
if code < 0:
    _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
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
