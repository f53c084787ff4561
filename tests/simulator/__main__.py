"""``python -m tests.simulator --seed 1 --hours 2``: lives of a node, until one goes wrong."""

from __future__ import annotations

import argparse
import sys
from time import process_time

from tests.simulator.explain import explain
from tests.simulator.faults import KINDS
from tests.simulator.generate import COMPOSED, generate
from tests.simulator.run import run
from tests.simulator.watch import INVARIANTS

LIFE_MINUTES = 10.0
MINUTES_PER_HOUR = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Runs lives with seeds that follow each other; returns 1 if one of them failed."""
    options = _parse(arguments)
    lives = max(1, round(options.hours * MINUTES_PER_HOUR / options.minutes))
    queries, failed = 0, 0
    for seed in range(options.seed, options.seed + lives):
        history = generate(seed, options.minutes, options.fault)
        began = process_time()
        outcome = run(history, options.ignore)
        queries += outcome.queries
        verdict = outcome.violation or "all held"
        hours = (seed - options.seed + 1) * options.minutes / MINUTES_PER_HOUR
        print(
            f"seed {seed}: {outcome.queries} queries in {process_time() - began:.1f} s: {verdict}"
        )
        if outcome.violation is not None:
            failed += 1
            print(explain(history, outcome.violation, options.ignore, options.shrink), flush=True)
            if not options.keep_going:
                break
    print(f"{hours:.1f} hours, {queries} queries, {failed} of {lives} lives went wrong")
    return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first life (default 1)")
    parser.add_argument("--hours", type=float, default=1.0, help="of virtual time (default 1)")
    parser.add_argument("--minutes", type=float, default=LIFE_MINUTES, help="of one life")
    parser.add_argument(
        "--fault",
        default="",
        choices=["", *COMPOSED, *KINDS],
        metavar="KIND",
        help="no other fault",
    )
    parser.add_argument("--list", action=_List, nargs=0, help="list kinds of faults and invariants")
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        choices=INVARIANTS,
        metavar="INVARIANT",
        help="need not hold",
    )
    parser.add_argument(
        "--shrink", type=float, default=60.0, metavar="S", help="time to look for a shorter history"
    )
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first failure")
    return parser.parse_args(arguments)


class _List(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        faults = {name: kind.meaning for name, kind in KINDS.items()} | COMPOSED
        for title, meanings in (("Faults", faults), ("Invariants", INVARIANTS)):
            print(f"{title}:")
            for name, meaning in meanings.items():
                print(f"  {name:20} {meaning}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
