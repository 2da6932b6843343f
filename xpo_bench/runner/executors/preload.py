"""The first thing that a fork server imports: from here until `preloaded` it ends with the process that asked
for it.

A server watches that process only once it serves. Until then it imports torch, for seconds or, on a busy
machine, longer. The thread is gone before anything is forked.
"""

from __future__ import annotations

import os
import threading

from xpo_bench.runner.executors.subprocesses import ASKED

EVERY_S = 0.5

serving = threading.Event()


def _watch(asked: int) -> None:
    while not serving.wait(EVERY_S):
        if os.getppid() != asked:
            os._exit(1)


watch: threading.Thread | None = None
if asked_by := os.environ.get(ASKED):
    watch = threading.Thread(target=_watch, args=(int(asked_by),), daemon=True)
    watch.start()
