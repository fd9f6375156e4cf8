"""A text to its cost, warm, against building the network with timm and counting it.

All cases take turns in one process, so that its memory, its garbage collector and the machine's
moods are the same for all. `run.py` calls it `one_text.py THREADS [--quick]` and prints the table
of the JSON that it writes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from measure import Case, interleave, ratios, summary
from peers import Counted, Peer, load, peers
from texts import (
    MACS,
    PARAMS,
    SIZE,
    TIMM_NAME,
    foreign_texts,
    published_text,
    reordered_texts,
    rescaled_texts,
)

import archdsl

TEXTS: dict[str, tuple[Callable[[int], Iterator[str]], int, str]] = {
    "reordered": (reordered_texts, 200, "other names and order of blocks in each text"),
    # Fewer a round: what their memos keep would fill the memory that all cases share.
    "rescaled": (rescaled_texts, 10, "another width multiplier and image size in each text"),
    "foreign": (foreign_texts, 10, "every stage block in each text new"),
}


def cost_of(text: str) -> Counted:
    cost = archdsl.parse(text).cost()
    return Counted(cost.params, cost.macs)


def _cost_of_next(texts: Iterator[str]) -> Counted:
    return cost_of(next(texts))


class _PeerCases:
    """A peer timed whole (build and count), and counting alone, on a network it keeps."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.net: Any = None
        self.counted = Counted(0, 0)
        self.whole = Case(peer.name, self._whole)
        self.part = Case(f"{peer.name}, counting alone", self._count)

    def _whole(self) -> None:
        self.counted = self.peer.count(self.peer.build())

    def _count(self) -> None:
        # The first call is the warm-up.
        self.net = self.net or self.peer.build()
        self.peer.count(self.net)


def measure(quick: bool, threads: int) -> dict[str, Any]:
    rounds = 3 if quick else 15
    text = published_text()
    cases = [Case("same", lambda: cost_of(text), 200)]
    for seed, (name, (texts, calls, _)) in enumerate(TEXTS.items()):
        # Made beforehand: writing the texts is not what is timed.
        made = list(itertools.islice(texts(seed), calls * (rounds + 1)))
        assert len(set(made)) == len(made), "two texts are equal"
        cases.append(Case(name, partial(_cost_of_next, iter(made)), calls))
    found, missing = peers(TIMM_NAME, SIZE)
    if found:
        load("torch").set_num_threads(threads)
    against = [_PeerCases(peer) for peer in found]
    interleave([*cases, *(a.whole for a in against), *(a.part for a in against)], rounds)

    counted = cost_of(text)
    wrong = [] if counted == (PARAMS, MACS) else [f"archdsl counts {counted}"]
    wrong += [f"{a.peer.name}: {a.counted}" for a in against if a.counted.params != PARAMS]
    what = {"same": "the published text, the same each time"}
    what |= {name: words for name, (_, _, words) in TEXTS.items()}
    ours = cases[0].rounds
    return {
        "wrong": wrong,
        "rounds": rounds,
        "torch_threads": threads,
        "archdsl": {
            case.name: {
                "what": what[case.name],
                "calls_per_round": case.calls,
                "seconds": summary(case.rounds),
                "warmup": case.warmup,
            }
            for case in cases
        },
        "counts": counted._asdict(),
        "peers": {
            a.peer.name: {
                "seconds": summary(a.whole.rounds),
                "warmup": a.whole.warmup,
                "count_alone": summary(a.part.rounds),
                "ratio": ratios(a.whole.rounds, ours),
                "ratio_count_alone": ratios(a.part.rounds, ours),
                "ratio_to": {case.name: ratios(a.whole.rounds, case.rounds) for case in cases[1:]},
                **a.counted._asdict(),
                "counts": a.peer.counts,
            }
            for a in against
        },
        "missing": missing,
    }


if __name__ == "__main__":
    # The result alone goes to standard output, whatever the peers print.
    with contextlib.redirect_stdout(sys.stderr):
        result = measure("--quick" in sys.argv, int(sys.argv[1]))
    json.dump(result, sys.stdout)
