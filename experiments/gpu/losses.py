"""The losses of the first steps of each variant: NumPy's, in a small file, and whether a GPU's are
the same.

    python -m experiments.gpu.losses     computes losses.json beside this file: half an hour

Each case is VGG-11 at half its width, for 50 steps on drawn shapes: with the same seed, a backend
starts from the same weights and sees the same images, so that its losses may differ by rounding
only. With BatchNorm a step from the initial weights amplifies any difference (the more, the deeper
the network and the larger the rate), so how far rounding carries losses apart is measured as well:
NumPy computes each case twice, by the definitions in `minibn.ops` ("reference"; in tf32 and bf16
with products that are rounded by `minibn.fast.rounding`) and by its own kernels ("fast"), which add
in another order. The rule, fixed before any GPU was asked: at step t a backend may be FACTOR times
as far from the definitions as NumPy's kernels were at any step until t, and 1e-5 in any case.

What the rule sees is measured, too: `sees` is how far the losses are, in units of what is allowed,
if every gradient is 1 % too long. In fp32 it is 6, 0.6, 23 and 12, so an error of gradients of 1 %
(of the standard network, 2 %) shows; in tf32 one of 3 %, in bf16 one of 5 %. The laws of the
registry see much smaller ones. This sees what single ops do not show: a stale argument in a
captured graph, an update left out, a batch that is another.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from experiments.output import say
from experiments.training.device_steps import device_step, graphs
from experiments.training.json_files import json_number, json_numbers, read_json, write_json
from experiments.training.loop import cores
from experiments.training.provenance import environment
from experiments.training.step import CLASSIFY, one_step
from experiments.vgg.runs import network, sgd
from experiments.vgg.settings import Settings
from minibn import kernels, precision, use
from minibn.backend import get_backend
from minibn.console import prints_anywhere
from minibn.data import Batches, load

FILE = Path(__file__).with_name("losses.json")
COMMAND = "python -m experiments.gpu.losses"
FACTOR, LEAST = 10.0, 1e-5
WAYS = ("graph", "launches", "reference")  # how a GPU may compute: see `Case.losses`


@dataclass(frozen=True)
class Case:
    """What is trained: a variant of VGG on drawn shapes, its factors rounded to `precision`."""

    variant: str
    precision: str = "fp32"
    lr: float = 3e-4
    model: str = "vgg11"
    width: float = 0.5
    batch: int = 128
    steps: int = 50
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.variant} {self.precision}"

    @functools.cache  # noqa: B019  cases are few
    def batches(self) -> Batches:
        data = load("shapes", None)
        return Batches(data.train_images, data.train_labels, self.batch, self.seed)

    def losses(self, backend: str, way: str) -> list[float]:
        """The losses on a backend, by its kernels with a captured graph ("graph"), by its kernels
        alone ("launches", on NumPy "fast"), or by the definitions ("reference")."""
        settings, batches = Settings(model=self.model, width=self.width), self.batches()
        mode = "reference" if way == "reference" else "fast"
        with use(backend), kernels(mode), precision(self.precision), graphs(GRAPHS[way]):
            model = network(settings, self.variant, self.seed)
            optimizer = sgd(settings, model, self.lr)
            on_device = device_step(model, optimizer, batches, CLASSIFY)
            results = [
                on_device(i) if on_device else one_step(model, optimizer, *batches.batch(i))
                for i in range(self.steps)
            ]
            return [float(loss.item()) for loss, _ in results]


GRAPHS = {"graph": "on", "launches": "off", "fast": "off", "reference": "off"}
CASES = (
    Case("batchnorm"),
    Case("standard", lr=0.1),  # whose gradients are small
    Case("noisy-batchnorm"),
    Case("noisy-standard", lr=0.1),
    *(Case("batchnorm", digits) for digits in ("tf32", "bf16")),
)


def numpys(case: Case) -> dict[str, Any]:
    """NumPy's losses of a case, in both ways, what the rule sees, and a digest of its images."""
    exact = case.precision == "fp32"
    by_definitions = ("numpy", "reference") if exact else ("strict", "fast")
    right = {"reference": case.losses(*by_definitions), "fast": case.losses("numpy", "fast")}
    too_long = replace(case, lr=1.01 * case.lr).losses("numpy", "fast")
    sees = compare(right, too_long)["of_allowed"]
    return {"case": asdict(case), "images": _digest(case), **right, "sees": sees}


def _digest(case: Case) -> str:
    images, labels = case.batches().batch(0)
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


def allowed(right: dict[str, Any]) -> np.ndarray:
    """How far a loss of each step may be from the definitions', relative to it."""
    reference, fast = (np.array(right[way]) for way in ("reference", "fast"))
    apart = np.maximum.accumulate(abs(fast - reference) / abs(reference))
    return np.maximum(FACTOR * apart, LEAST)


def compare(right: dict[str, Any], losses: Iterable[float]) -> dict[str, Any]:
    """A backend's losses beside NumPy's: where they are furthest apart, in units of what is
    `allowed`, and whether all of them agree. A loss that is not finite agrees with none, and gives
    None."""
    reference, theirs = np.array(right["reference"]), np.array(list(losses))
    with np.errstate(invalid="ignore"):
        apart = abs(theirs - reference) / abs(reference)
    share = np.where(np.isfinite(apart), apart / allowed(right), np.inf)
    worst = int(share.argmax())
    return {
        "losses": json_numbers(theirs), "step": worst, "apart": json_number(apart[worst]),
        "of_allowed": json_number(share[worst]), "agree": bool(share[worst] <= 1),
    }  # fmt: skip


def float_or_inf(x: float | None) -> float:
    """A number of a record, where None stands for infinity."""
    return float("inf") if x is None else x


def describe(result: dict[str, Any]) -> str:
    """How far apart the losses of a record of `compare` are."""
    apart, share = (float_or_inf(result[key]) for key in ("apart", "of_allowed"))
    return f"{apart:.1e} at step {result['step']}, {share:.2f} of what is allowed"


def carried(cases: Iterable[Case]) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Each case with NumPy's losses: from the file, or computed now if it holds none. Raises
    ValueError if this machine draws other images than the file's did."""
    known = {str(each["case"]): each for each in _read()["cases"]}
    for case in cases:
        found = known.get(str(asdict(case))) or numpys(case)
        if found["images"] != _digest(case):
            raise ValueError(
                f"{case}: this machine draws other images than {FILE.name} was computed from. "
                f"Compute it here: {COMMAND}"
            )
        yield case, found


def _read() -> dict[str, Any]:
    return read_json(FILE, cases=list) if FILE.exists() else {"cases": []}


@prints_anywhere
def main() -> int:
    """Compute the cases that the file does not hold, and write it after each."""
    found = _read()
    for case in CASES:
        if asdict(case) in [each["case"] for each in found["cases"]]:
            continue
        found["cases"].append(numpys(case))
        where = environment(get_backend("numpy"), cores())
        write_json(
            FILE,
            {
                "command": COMMAND,
                "date": datetime.now(UTC).date().isoformat(),
                **where,
                "cases": found["cases"],
            },
            sealed=True,
        )
        last = found["cases"][-1]
        apart = allowed(last)[-1] / FACTOR
        say(f"{case}: rounding carries its losses {apart:.1e} apart; sees 1 %: {last['sees']:.1f}")
    return 0


def tiny(case: Case) -> Case:
    """The case in the sizes of a rehearsal."""
    return replace(case, model="vgg11", width=1 / 16, batch=4, steps=4)


if __name__ == "__main__":
    sys.exit(main())
