"""Where the pretrained model lies that some tests need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def stories_folder() -> Path:
    """The folder of stories260K; the test is skipped where there is none."""
    places = [Path(__file__).parents[3] / "shared" / "models"]
    if "XPO_BENCH_DATA" in os.environ:
        places.append(Path(os.environ["XPO_BENCH_DATA"]).parent / "models")
    for place in places:
        if (place / "stories260K").is_dir():
            return place / "stories260K"
    pytest.skip("the model stories260K is neither in ../shared/models nor beside XPO_BENCH_DATA")
