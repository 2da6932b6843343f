"""Writes the site as Markdown, for any tool that reads an mkdocs.yml: docs/, README, examples, results.

    python docs/build.py --to site
    mkdocs build --strict -f site/mkdocs.yml        # or: zensical build -f site/mkdocs.yml

Every algorithm gets a page from its class, with the curves of a run that is made for it. Links between files
of the repository become links between pages; a link to a file outside the site is an error. The last ledger
of claims, results/claims.json, becomes a page, and a section on the page of every algorithm that it names.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import algorithm_pages
import claimed

from xpo_bench.claims.pages import markdown
from xpo_bench.errors import UsageError

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
RENAMED = {"README.md": "index.md", "LICENSE": "LICENSE.md"}
ALGORITHMS = "  - Algorithms: algorithms/index.md\n"
"""The line of mkdocs.yml below which the pages of the algorithms go."""
CLAIMS = "      - claims.md\n"
"""The line below which the page of the ledger goes."""
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def sources() -> dict[str, str]:
    """File of the repository -> its place on the site; both are relative, with forward slashes."""
    results = [p for p in (ROOT / "results").rglob("*.*") if p.is_file() and "runs" not in p.parts]
    found = [
        *DOCS.glob("*.md"),
        *DOCS.glob("*.json"),
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE")),
        *(ROOT / "examples").glob("*/README.md"),
        *results,
    ]
    names = sorted(path.relative_to(ROOT).as_posix() for path in found)
    places = {name: RENAMED.get(name, name.removeprefix("docs/")) for name in names}
    # made of its JSON, so that the page and what algorithms' pages say are of one ledger
    return places | ({claimed.PAGE: claimed.PAGE} if claimed.LEDGER.is_file() else {})


def write_site(folder: Path, seeds: int = algorithm_pages.SEEDS) -> None:
    """Write the configuration and all pages; the folder is emptied first.

    Args:
        seeds: of the run that the figures of the algorithms show.

    Raises:
        ValueError: a page links to a file that is not on the site, or the folder holds something else.
        UsageError: the ledger of claims is none.
    """
    _empty(folder)
    places, pages, ledger = sources(), folder / "pages", claimed.last_ledger()
    for name, place in places.items():
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if ledger and place == claimed.PAGE:
            target.write_text(markdown(ledger), "utf-8")
        elif target.suffix == ".md":
            target.write_text(relinked((ROOT / name).read_text("utf-8"), name, places), "utf-8")
        else:
            shutil.copyfile(ROOT / name, target)
    algorithms = algorithm_pages.write(pages / "algorithms", seeds, ledger)
    (folder / "mkdocs.yml").write_text(configuration(algorithms, ledger is not None), "utf-8")


def _empty(folder: Path) -> None:
    """Remove what an earlier build wrote, and nothing that another program did."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "mkdocs.yml").is_file():
        raise ValueError(f"{folder}: holds something other than the site; name another directory")
    shutil.rmtree(folder / "pages", ignore_errors=True)


def configuration(algorithms: list[str], ledger: bool) -> str:
    """docs/mkdocs.yml with a page per algorithm in its navigation, and that of the ledger if there is one."""
    text = (DOCS / "mkdocs.yml").read_text("utf-8")
    for line in (ALGORITHMS, CLAIMS):
        if text.count(line) != 1:
            raise ValueError(f"docs/mkdocs.yml: want the line {line.strip()!r} once")
    if ledger:
        text = text.replace(CLAIMS, f"{CLAIMS}      - {claimed.PAGE}\n")
    entries = "".join(f"      - {name}: algorithms/{name}.md\n" for name in algorithms)
    return text.replace(ALGORITHMS, f"  - Algorithms:\n      - algorithms/index.md\n{entries}")


def relinked(text: str, name: str, places: Mapping[str, str]) -> str:
    """A page of the repository with its links as they are on the site; code blocks stay as they are."""
    here = PurePosixPath(places[name]).parent

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if re.match(r"[a-z]+:", target):
            return found[0]
        wanted = posixpath.normpath((PurePosixPath(name).parent / target).as_posix())
        if wanted not in places:
            raise ValueError(f"{name}: links to {wanted}, which is not on the site")
        return posixpath.relpath(places[wanted], here.as_posix()) + anchor

    return outside_code(text, lambda part: _LINK.sub(link, part))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with `change` applied to all of it but fenced blocks."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="directory to write")
    folder = parser.parse_args().to
    try:
        write_site(folder)
    except (ValueError, UsageError) as error:
        print(f"docs/build.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {folder}: mkdocs build --strict -f {folder}/mkdocs.yml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
