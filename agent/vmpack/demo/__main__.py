"""The demo's worker process; `vmpack demo` starts it below `lab.supervise`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from vmpack.cli.main import guarded
from vmpack.demo.story import Story
from vmpack.demo.summary import Summary, lines
from vmpack.demo.view import View, stream_beside
from vmpack.errors import UsageError
from vmpack.lab.lab import Lab


def main() -> int:
    """Run the demo, print the summary, write the JSON; 0 when it kept its promise, else 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser()
    parser.add_argument("--guests", type=int, required=True)
    parser.add_argument("--json")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    return guarded(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    view = View(stream_beside(args.json))
    with view, Lab.embedded() as lab:
        keep_dir = args.keep or lab.state.root / "demo"  # goes with the lab, also after a kill
        summary = Story(lab, args.guests, keep_dir, view.tell, view.show).run()
    view.tell("")
    for line in lines(summary):
        view.tell(f"  {line}")
    if args.keep is not None:
        view.tell(f"  journal and metrics are in {args.keep}; try `vmpack replay {args.keep}/journal`")
    if args.json is not None:
        _write(args.json, summary)
    return 0 if summary.kept_its_promise else 1


def _write(path: str, summary: Summary) -> None:
    text = json.dumps(asdict(summary), indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", "give --json a file that can be written"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
