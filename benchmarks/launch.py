"""Run one command and say what it cost: ``python -I -S launch.py SECONDS OUTPUT COMMAND…``.

A process of its own, and a small one, because the kernel counts what a process was before ``exec``
into its peak memory. Prints one line of JSON: seconds of wall time, of user and of system time,
peak MiB of its largest process, exit status.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def main(limit: int, output: str, command: list[str]) -> None:
    begin = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        into = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(into, 1)
        os.dup2(into, 2)
        os.execvp(command[0], command)
    for told in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(told, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(limit)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - begin
    peak = used.ru_maxrss / 1024
    print(
        f'{{"wall": {wall:.4f}, "user": {used.ru_utime:.4f}, "system": {used.ru_stime:.4f}, '
        f'"peak_mib": {peak:.1f}, "status": {os.waitstatus_to_exitcode(status)}}}'
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
