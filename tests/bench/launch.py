"""Starts one command and tells what it cost: python -I -S tests/bench/launch.py COMMAND...

The kernel counts a program's peak from what the process that started it held, so this one holds little: it
imports nothing that the interpreter has not loaded anyway. Prints wall, user and sys seconds, peak KiB, exit code.
"""

import os
import sys
import time

QUIETLY = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]

if __name__ == "__main__":
    command = sys.argv[1:]
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=QUIETLY)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    print(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
