"""Run `vgg_cifar` and be killed: python killed.py MOMENT ARGUMENTS...

A MOMENT is "before X", "after X" or "amid X", where X is a place that the run passes, optionally
"2nd X"; `+` joins several words of a file's name. There the run gets SIGKILL, or another signal
with "SIGINT: before 2nd step" (the run goes on if it handles that).
"""

import io
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from few_products import few_products

from experiments import vgg_cifar
from experiments.training import loop
from experiments.training.json_files import Stream
from experiments.training.study import Run
from experiments.vgg import runs as vgg_runs
from experiments.views import vgg as vgg_figures

# Background jobs of a script ignore SIGINT, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def happen(name: str) -> None:
    """Send this process the signals in `name`, joined by `+`."""
    for part in name.split("+"):
        os.kill(os.getpid(), getattr(signal, part))


def patch(
    owner: Any, name: str, when: str, nth: int, what: Callable, matches: Callable[..., bool]
) -> None:
    real, seen = getattr(owner, name), [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        seen[0] += matches(*args)
        here = seen[0] == nth and matches(*args)
        if here and when == "before":
            what()
        result = real(*args, **kwargs)
        if here and when == "after":
            what()
        return result

    setattr(owner, name, wrapped)


def half_of_a_checkpoint(nth: int, what: Callable) -> None:
    real, seen = np.savez, [0]

    def savez(file: Any, **arrays: Any) -> None:
        seen[0] += 1
        if seen[0] == nth:
            whole = io.BytesIO()
            real(whole, **arrays)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            what()
        real(file, **arrays)

    np.savez = savez


def half_of_a_line(stream: str, nth: int, what: Callable) -> None:
    real, seen = Stream.flush, [0]

    def flush(self: Stream) -> None:
        seen[0] += self.path.stem == stream and bool(self._lines)
        if self.path.stem == stream and seen[0] == nth:
            text = "".join(line for _, line in self._lines)
            with self.path.open("a") as file:
                file.write(text[: len(text) - 20])
            what()
        real(self)

    Stream.flush = flush  # type: ignore[method-assign]  # on purpose


def arrange(moment: str) -> None:
    """Patch the function that is called at the moment."""
    name, _, rest = moment.rpartition(": ")
    words = rest.split()
    nth = int(words.pop(1)[:-2]) if words[1][0].isdigit() else 1
    when, place = words[0], " ".join(words[1:])

    def what() -> None:
        happen(name or "SIGKILL")

    if when == "amid" and place == "checkpoint":
        half_of_a_checkpoint(nth, what)
    elif when == "amid":
        half_of_a_line(place, nth, what)
    elif place == "sync":
        patch(os, "fsync", when, nth, what, lambda handle: True)
    elif place == "step":
        patch(loop, "one_step", when, nth, what, lambda *args: True)
    elif place == "run":
        patch(Run, "begin", when, nth, what, lambda *args: True)
    elif place == "data":
        patch(vgg_runs, "load_data", when, nth, what, lambda *args: True)
    elif place == "plotting":
        patch(vgg_figures, "plot", when, nth, what, lambda *args: True)
    elif place.startswith("flush of "):
        file = place.removeprefix("flush of ")
        patch(Stream, "flush", when, nth, what, lambda stream: stream.path.name == file)
    elif place.startswith("cut of "):
        file = place.removeprefix("cut of ")
        patch(os, "truncate", when, nth, what, lambda path, size: Path(path).name == file)
    elif place.startswith("rename of "):
        file = place.removeprefix("rename of ")
        patch(os, "replace", when, nth, what, lambda source, target: Path(target).name == file)
    else:
        raise ValueError(moment)


if __name__ == "__main__":
    vgg_figures.plot = lambda study: print("plotted")
    vgg_runs.Curvature = few_products  # type: ignore[misc,assignment]  # a function for a class
    if sys.argv[1].startswith("files of "):  # as on a full disk, no file grows beyond so much
        most = int(sys.argv[1].removeprefix("files of "))
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    elif sys.argv[1] != "never":
        arrange(sys.argv[1])
    sys.exit(vgg_cifar.main(sys.argv[2:]))
