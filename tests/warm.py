"""Runs commands of `xpo-bench`, each in a fork of this process, which has imported the slow modules.

One JSON object per line on stdin, one exit status per line on stdout. No thread is started before a fork.
"""

import gc
import importlib
import json
import os
import pkgutil
import sys
from typing import Any

import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import scipy.stats  # noqa: F401
import torch  # noqa: F401

import xpo_bench
import xpo_bench_plugins
from xpo_bench import cli

# the suite's own modules are seven tenths of what a small command costs; the command registers plugins
for package in (xpo_bench, xpo_bench_plugins):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

if "language" in sys.argv[1:]:  # some seconds more, of which commands on language models save four each
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401


def child(request: dict[str, Any]) -> int:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = request["argv"]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


gc.freeze()  # no child walks through what its parent has made

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = child(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
