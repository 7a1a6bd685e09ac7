"""Many matches of one kind played on several processors.

Called by replay/contest, replay/grant_contest and replay/vcpu_contest. What comes out does not depend on how
many processes work, nor on their order.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from vmpack.errors import UnavailableError

Match = TypeVar("Match")
Score = TypeVar("Score")


def play_all(
    play: Callable[[Match], Score], matches: Sequence[Match], workers: int, progress: Callable[[], None]
) -> list[Score]:
    """Play all; `progress` is told of each. Raises UnavailableError when a worker dies."""
    scores: dict[int, Score] = {}
    for place, score in _played(play, matches, workers):
        scores[place] = score
        progress()
    return [scores[place] for place in range(len(matches))]


def _played(
    play: Callable[[Match], Score], matches: Sequence[Match], workers: int
) -> Iterator[tuple[int, Score]]:
    if workers == 1 or len(matches) == 1:
        for place, match in enumerate(matches):
            yield place, play(match)
        return
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), initializer=_begin, initargs=(play,)
    )
    try:
        places = {executor.submit(_play, match): place for place, match in enumerate(matches)}
        for done in as_completed(places):
            yield places[done], done.result()
    except BrokenProcessPool as error:
        hint = "it may have run out of memory: try fewer --vms, or --jobs 1"
        raise UnavailableError("a process of the simulation was killed", hint) from error
    finally:
        executor.shutdown(cancel_futures=True)


_how: Callable[[Any], Any] | None = None


def _begin(play: Callable[[Any], Any]) -> None:
    """In a worker: Ctrl-C ends it without words, the parent tells."""
    global _how
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _how = play


def _play(match: Any) -> Any:
    assert _how is not None
    return _how(match)
