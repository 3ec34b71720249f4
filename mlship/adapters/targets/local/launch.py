"""The entry point of processes that mlship starts. Run by path; standard library only.

    launch.py [--memory BYTES] COMMAND...   waits for a line on stdin, then executes COMMAND
    launch.py --detach COMMAND...   executes COMMAND in its own session, with init as parent

The supervisor sends the line after it has recorded the pid. If it is killed before that, the pipe
closes and this process exits, so that no unrecorded process is left.

A command may have as many files open as the system allows: many systems begin with 1,024, fewer
than the connections that Envoy takes. With `--memory`, each of its processes has a limit for its
private memory: more of it is refused, and Python raises MemoryError.
"""

import os
import resource
import sys

_FILES = 65536


def main(arguments: list[str]) -> None:
    """Execute the command; return only if this process should exit."""
    if arguments[0] == "--detach":
        command = arguments[1:]
        if os.fork():
            return
        os.setsid()
    else:
        command = arguments[2:] if arguments[0] == "--memory" else arguments
        if not os.read(0, 1):
            return
        if command is not arguments:
            # Not RLIMIT_AS: models map files, and threads reserve addresses, much larger than what
            # they use. Source: setrlimit(2).
            resource.setrlimit(resource.RLIMIT_DATA, (int(arguments[1]), int(arguments[1])))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
        devnull = os.open(os.devnull, os.O_RDONLY)
        os.dup2(devnull, 0)
        os.close(devnull)
    os.execv(command[0], command)  # noqa: S606 (without a shell, on purpose)


if __name__ == "__main__":
    main(sys.argv[1:])
