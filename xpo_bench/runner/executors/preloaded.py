"""The last thing that a fork server imports: see `preload`."""

import gc

from xpo_bench.runner.executors import preload

preload.serving.set()
if preload.watch:
    preload.watch.join()
# a cell of a language model begins with a collection, to measure its memory: it need not walk through modules
gc.collect()
gc.freeze()
