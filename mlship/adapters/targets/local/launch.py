"""The first instruction of a process that mlship starts. Run by path; standard library only.

    launch.py COMMAND...            waits for a line on stdin, then becomes COMMAND
    launch.py --detach COMMAND...   becomes COMMAND in a session of its own, with init as parent

The supervisor sends the line after it has written the pid down. Killed before that, it leaves
no process behind that nobody knows of: the pipe closes, and this process ends.
"""

import os
import sys


def main(arguments: list[str]) -> None:
    """Become the command; return only where this process is to end."""
    if arguments[0] == "--detach":
        command = arguments[1:]
        if os.fork():
            return
        os.setsid()
    else:
        command = arguments
        if not os.read(0, 1):
            return
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
    os.execv(command[0], command)  # noqa: S606 (no shell is the point)


if __name__ == "__main__":
    main(sys.argv[1:])
