"""cat FILE | FILTER | cat >/dev/null: python -I -S tests/bench/launch_pipe.py FILE PIPE_BYTES [FILTER...].

PIPE_BYTES is what the pipes are enlarged to, 0 for the kernel's default. Without a filter there is one pipe.
Imports nothing that the interpreter has not loaded anyway but fcntl, for what `launch.py` says of peaks. Prints
wall seconds of the whole, then user and sys seconds, peak KiB and exit code of the filter (zeros for none).
"""

import fcntl
import os
import sys
import time

F_SETPIPE_SZ = 1031


def pipe(size: int) -> tuple[int, int]:
    """A pipe of some capacity: its two ends."""
    ends = os.pipe()
    if size:
        fcntl.fcntl(ends[1], F_SETPIPE_SZ, size)
    return ends


def spawn(command: list[str], source: int, sink: int) -> int:
    """Start a command between two descriptors, which are closed here."""
    moves = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, sink, 1)]
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=moves)
    os.close(source)
    os.close(sink)
    return pid


if __name__ == "__main__":
    file, size, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    ends = [pipe(size) for _ in range(2 if command else 1)]
    started = time.perf_counter()
    pids = [spawn(["cat"], os.open(file, os.O_RDONLY), ends[0][1])]
    if command:
        pids.append(spawn(command, ends[0][0], ends[1][1]))
    pids.append(spawn(["cat"], ends[-1][0], os.open(os.devnull, os.O_WRONLY)))
    done = {}
    while len(done) < len(pids):
        pid, status, usage = os.wait4(-1, 0)
        done[pid] = status, usage
    wall = time.perf_counter() - started
    if command:
        status, usage = done[pids[1]]
        print(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
    else:
        print(wall, 0, 0, 0, 0)
