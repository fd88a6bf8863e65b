"""Measure the pipeline against the plain way and against the limit.

./run_benchmarks.sh [compare] [pipeline] [growth] [--json FILE] [--check]
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import compare, growth, pipeline
from benchmarks.rounds import Figure, as_json, regressions, table

RECORDED = Path(__file__).with_name("baseline.json")
Groups = dict[str, Callable[[], Iterator[Figure]]]
GROUPS: Groups = {
    "compare": compare.figures,
    "pipeline": pipeline.figures,
    "growth": growth.figures,
}


def main(arguments: list[str], groups: Groups = GROUPS, recorded: Path = RECORDED) -> int:
    """Measure, and print the tables. Returns 1 if `--check` finds a ratio more than 10 % worse."""
    parser = argparse.ArgumentParser(
        prog="./run_benchmarks.sh",
        description="Measure the pipeline: ratios, taken in turns in one run, with quartiles.",
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(groups)}; all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for machines")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"end with 1 if a ratio is more than 10 %% worse than in {recorded.name}",
    )
    options = parser.parse_args(arguments)
    for name in options.groups:
        if name not in groups:
            parser.error(f"there is no group {name!r}; name some of {', '.join(groups)}, or none")

    figures: list[Figure] = []
    for name in options.groups or groups:
        measured = []
        for figure in groups[name]():
            print(f"{figure.name}: {figure}", file=sys.stderr, flush=True)
            measured.append(figure)
        for group in dict.fromkeys(figure.group for figure in measured):
            in_group = [figure for figure in measured if figure.group == group]
            print(f"\n{group}\n\n{table(in_group)}", flush=True)
        figures += measured
    if options.json:
        try:
            options.json.write_text(as_json(figures))
        except OSError as error:
            sys.exit(f"cannot write {options.json}: {error.strerror}; name another file")
    return check(figures, recorded) if options.check else 0


def check(figures: list[Figure], recorded: Path) -> int:
    """Print what is more than 10 % worse than recorded. Returns 1 if anything is for certain."""
    try:
        certain, perhaps = regressions(figures, recorded)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"cannot compare with {recorded}: {error}; record it with --json {recorded}")
    for line in perhaps:
        print(f"perhaps worse, but its rounds differ too much to tell: {line}")
    for line in certain:
        print(f"WORSE: {line}")
    print(f"{len(certain)} figures are more than 10 % worse than in {recorded.name}")
    return 1 if certain else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
