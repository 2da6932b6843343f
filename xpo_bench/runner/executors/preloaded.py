"""The last thing that a fork server imports: see `preload`."""

from xpo_bench.runner.executors import preload

preload.serving.set()
if preload.watch:
    preload.watch.join()
