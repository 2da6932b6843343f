"""A stand-in for xpo_bench/compare/speed/worker.py: the same lines, invented times, faults on request."""

import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

home = Path(sys.argv[1])
settings = json.loads((home / "settings.json").read_text("utf-8"))
fault = settings["fault"]
seed = random.randrange(2**32)
draw = random.Random(seed)
own = math.exp(draw.gauss(0.0, settings["process_noise"]))


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def note(event: str) -> None:
    """Who was asked for what, in the order of time."""
    with (home.parent / "asked.log").open("a", encoding="utf-8") as log:
        log.write(f"{settings['name']} {os.getpid()} {event}\n")


def block() -> None:
    steps = max(1, round(0.1 / settings["step_s"]))
    seconds = steps * settings["step_s"] * own * math.exp(draw.gauss(0.0, settings["noise"]))
    say(steps=steps, cpu_s=seconds, wall_s=2 * seconds, gpu_s=None)


note("started")
if fault == "no import":
    say(error="ModuleNotFoundError: No module named 'xpo_bench'")
    sys.exit()
say(hello={"xpo-bench": "0.1.0", "torch": "2", "python": "3"})
asked = 0
for line in sys.stdin:
    command = json.loads(line)
    note(command["do"])
    if command["do"] == "start" and fault == "refuses":
        say(error="LookupError: has no algorithm 'dpo' (known: none)")
    elif command["do"] == "start":
        say(ready=100)
    elif command["do"] == "stop":
        say(stopped=True)
    else:
        asked += 1
        if asked == 3 and fault == "exits":
            print("out of luck", file=sys.stderr)
            sys.exit(7)
        if asked == 3 and fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if asked == 3 and fault == "hangs":
            time.sleep(600)
        if asked == 3 and fault == "garbage":
            print("Loading weights: 100%", flush=True)
        elif asked == 3 and fault == "no number":
            say(steps=3, cpu_s="fast", wall_s=1.0, gpu_s=None)
        elif asked == 3 and fault == "no time":
            say(steps=3, cpu_s=0.0, wall_s=1.0, gpu_s=None)
        else:
            block()
