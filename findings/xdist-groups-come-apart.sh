#!/usr/bin/env bash
# A good guess: under pytest-xdist's `--dist loadgroup`, tests of one `xdist_group` run in one process, one after the other.
# With pytest-xdist 3.8.0 and pytest 9.2.0 the group is ignored without a word: its tests are spread over all processes as others are.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q pytest==9.2.0 pytest-xdist==3.8.0
cat > "$here/test_group.py" <<'PY'
import pathlib
import time

import pytest


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(12))
def test_one_of_a_group(number, worker_id):
    time.sleep(0.2)
    with open(pathlib.Path(__file__).with_name("workers"), "a", encoding="utf-8") as file:
        file.write(worker_id + "\n")
PY
cd "$here"
"$here/env/bin/python" -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup test_group.py > "$here/log"
"$here/env/bin/pip" list 2> /dev/null | grep -E "^pytest(-xdist)? "
echo "processes that ran tests of the one group, and how many each:"
sort "$here/workers" | uniq -c
test "$(sort -u "$here/workers" | wc -l)" = 2
