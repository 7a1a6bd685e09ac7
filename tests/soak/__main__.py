"""`python -m tests.soak --hours 2`: hours of churn and calm on real guests, and a JSON summary at the end.

A line a minute tells how it goes. Ctrl-C (or SIGTERM) ends it cleanly with the summary so far. Exit code 1
when anything was found.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.soak.soak import Soak, broken_off
from tests.soak.verdict import summary
from vmpack.lab.lab import Lab


def soak(hours: float, churn: float, seed: int, folder: Path) -> dict[str, Any]:
    """Run one soak with the agent's files in `folder`, to its end or until interrupted; the summary."""
    with Lab.private() as lab:
        one = Soak(lab, folder, hours, churn, seed, lambda line: print(line, file=sys.stderr, flush=True))
        try:
            one.run()
        except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - it has still found something
            one.findings.broken_off = broken_off(error)
        return summary(
            one.findings,
            one.watch,
            one.guests.silences,
            hours=hours,
            churn=churn,
            seed=seed,
            broken_off=one.findings.broken_off,
        )


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="how long (default: 2)")
    parser.add_argument("--churn", type=float, default=10.0, help="times the normal churn (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="what happens follows from it (default: 1)")
    parser.add_argument("--json", type=Path, help="write the summary here too")
    parser.add_argument("--folder", type=Path, help="keep the agent's log and state here")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="vmpack-soak-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = soak(args.hours, args.churn, args.seed, folder)
    text = json.dumps(found, indent=2)
    if args.json:
        args.json.write_text(text + "\n")
    print(text)
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
