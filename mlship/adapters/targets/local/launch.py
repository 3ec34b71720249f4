"""The entry point of processes that mlship starts. Run by path; standard library only.

    launch.py COMMAND...            waits for a line on stdin, then executes COMMAND
    launch.py --detach COMMAND...   executes COMMAND in its own session, with init as parent

The supervisor sends the line after it has recorded the pid. If it is killed before that, the pipe
closes and this process exits, so that no unrecorded process is left.
"""

import os
import sys


def main(arguments: list[str]) -> None:
    """Execute the command; return only if this process should exit."""
    if arguments[0] == "--detach":
        command = arguments[1:]
        if os.fork():
            return
        os.setsid()
    else:
        command = arguments
        if not os.read(0, 1):
            return
        devnull = os.open(os.devnull, os.O_RDONLY)
        os.dup2(devnull, 0)
        os.close(devnull)
    os.execv(command[0], command)  # noqa: S606 (without a shell, on purpose)


if __name__ == "__main__":
    main(sys.argv[1:])
