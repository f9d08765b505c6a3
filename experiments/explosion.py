"""Gradients at initialisation: BatchNorm makes them grow from layer to layer (Yang et al. 2019).

A fully connected network of pre-activations y_l, with rows as examples,

    y_l = relu(norm(y_{l-1})) W_l   (+ y_{l-1} with a skip connection),      l = 1 ... L

where y_0 (B, n) is normally distributed, and so are the entries of W_l, with variance 2/n (He et
al. 2015). With a random cotangent C (B, n) at the output, G_l is the gradient of ⟨C, y_L⟩ with
respect to y_l. The *factor per layer* is that of the squared norm ‖G_l‖², over batch and units (the
norm itself grows by its square root). In infinite width it is

    relu-batchnorm       π/(π - 1) = 1.467      for a large batch
    linear-batchnorm     (B - 2)/(B - 3)        without the ReLU
    relu                 1                      without a norm

("A Mean Field Theory of Batch Normalization", Yang, Pennington, Rao, Sohl-Dickstein and
Schoenholz, ICLR 2019.) The reason in short: relu of a standard normal unit has second moment 1/2
and variance (1 - 1/π)/2. So a unit of y_l has second moment 1, and over the batch, whose mean the
norm takes away, the variance sigma² = 1 - 1/π. Backward, W_l and the ReLU keep ‖G‖² (2/n · n · 1/2
= 1), and the norm divides it by sigma². Without the ReLU, sigma² (B - 1)/2 is a chi-squared number
of B - 1 degrees of freedom, whose inverse has the mean 1/(B - 3); W_l doubles ‖G‖², and the norm
removes one of the B - 1 directions that a centred gradient has.

A network of L layers consists of the first L layers of the deepest one: depths share weights and
inputs. The factor is exp(-slope) of a straight line through log ‖G_l‖², l = 1 ... L - 1, by least
squares. Both ends are left out: y_0 is not what a layer puts out (it has another variance, and no
common mean), and G_L = C has passed no norm yet. All is in float64.

The rules of the claims. The metric is the factor at one depth, one number a seed; its mean over the
seeds is to lie within the margin of the number above:

    relu-batchnorm, B = 128            5 %
    linear-batchnorm, B = 8, 16, 64    2 %
    relu, B = 128                      5 %

at the largest depth, 64, and at the smallest, 8. There one network's factor varies by 2 to 3 % with
B = 8, so that 20 seeds are needed. With B = 64 the margin contains 1, too: that rule can say that
there is no more growth than the theory's, not that there is some. LayerNorm, the l_p norms and
skip connections stand beside, without a rule. Eight seconds a seed on one core.

    python -m experiments.explosion --quick
    python -m experiments.explosion --seed $(seq 10 29)
    python -m experiments.explosion --resume STUDY
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experiments.training.command_line import UsageError, at_least, flag_value, setting
from experiments.training.json_files import json_number, json_numbers
from experiments.training.runner import Plan, Work, run_study
from experiments.training.session import Experiment
from experiments.training.settings import SharedSettings, check_exact, check_shared
from experiments.training.study import Run, Study
from experiments.views import explosion as explosion_figures
from minibn import Tensor, grad, nn, ops, to_numpy
from minibn.backend import get_backend
from minibn.nn.init import he_normal
from minibn.random import generator
from reference_models.norms import NORMS

KIND = "explosion"
DTYPE = np.float64  # so that nothing depends on rounding
DEEPEST = 500  # in deeper ones the squares overflow
MOST_WEIGHTS = 10**9  # 8 GB


class Network(NamedTuple):
    """A kind of network. norm: a name of NORMS."""

    norm: str
    relu: bool = True
    skip: bool = False


NETWORKS = {
    "relu": Network("none"),
    "relu-batchnorm": Network("batch"),
    "relu-layernorm": Network("layer"),
    "relu-l1": Network("l1"),
    "relu-l2": Network("l2"),
    "relu-linf": Network("linf"),
    "relu-skip": Network("none", skip=True),
    "relu-batchnorm-skip": Network("batch", skip=True),
    "linear-batchnorm": Network("batch", relu=False),
}


@dataclass(frozen=True)
class Settings(SharedSettings):
    """The sizes are our choice; the paper's figures have depths up to 100 and 1,000 units."""

    quick: bool = setting(False, "fewer depths and one seed: over in ten seconds")
    depth: tuple[int, ...] = setting((8, 16, 32, 64), "layers of the networks")
    # The theory is of infinite width: at 512 a layer's factor varies by a few percent.
    width: int = setting(512, "units of each layer")
    # The batch of the trainings. The theory of ReLU with BatchNorm is of large batches.
    batch_size: int = setting(128, "examples in the batch of networks with ReLU")
    # (B - 2)/(B - 3) is far from 1 for the first, and next to 1 for the last.
    linear_batch_sizes: tuple[int, ...] = setting(
        (8, 16, 64), "examples in the batches of the linear networks"
    )
    # Arrays this small gain little from a second thread.
    threads: int | None = setting(1, "threads of kernels and BLAS", kind=int)
    steps: int = setting(1, "", flag=False)  # nothing is trained
    checkpoint_every: int = setting(1, "", flag=False)


QUICK = {"depth": (8, 16, 32)}


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work, before any work is done."""
    check_shared(s, plans(s))
    check_exact(s, "the gradients are measured")
    for depth in s.depth:
        at_least("--depth", depth, 3)  # a line needs two points between both ends
        if depth > DEEPEST:
            raise UsageError(f"--depth {depth} must be at most {DEEPEST}: squares overflow beyond.")
    at_least("--width", s.width, 2)
    at_least("--batch-size", s.batch_size, 4)  # at 3 the mean of 1/sigma² is infinite
    for size in s.linear_batch_sizes:
        at_least("--linear-batch-sizes", size, 4)
    examples = max(s.batch_size, *s.linear_batch_sizes)
    if max(s.depth) * s.width * max(s.width, examples) > MOST_WEIGHTS:
        raise UsageError(
            f"--depth {flag_value(s.depth)} --width {s.width} with batches of {examples} is more "
            "than a machine holds. Take less."
        )


def plans(s: Settings) -> list[Plan]:
    """A run a seed, at no rate: nothing is trained."""
    return [Plan("networks", 0.0, seed) for seed in s.seed]


class Layer(nn.Module):
    """y (B, n) -> relu(norm(y)) W, plus y with a skip connection."""

    def __init__(self, width: int, of: Network) -> None:
        make = NORMS[of.norm]
        self.norm = None if make is None else make(width)
        self.linear = nn.Linear(width, width, bias=False, init=he_normal)
        self.has_relu, self.has_skip = of.relu, of.skip

    def forward(self, y: Any) -> Any:
        x = y if self.norm is None else self.norm(y)
        out = self.linear(ops.relu(x) if self.has_relu else x)
        return y + out if self.has_skip else out


def layers(of: Network, depth: int, width: int, seed: int) -> nn.ModuleList:
    """The layers, whose weights are those of the seed: the same in every kind of network."""
    return nn.ModuleList([Layer(width, of) for _ in range(depth)]).initialize(seed, DTYPE)


def normal(shape: tuple[int, int], seed: int, *names: object) -> Any:
    """Standard normal numbers that belong to these names."""
    return get_backend().asarray(generator(seed, KIND, *names).standard_normal(shape))


def squared_norms(
    of: Network, depths: Sequence[int], shape: tuple[int, int], seed: int
) -> Iterator[tuple[int, list[float]]]:
    """(depth, [‖G_0‖² ... ‖G_depth‖²]) for each depth. shape: (B, n)."""
    y = Tensor(normal(shape, seed, "input"), requires_grad=True)
    outputs = [y]
    for layer in layers(of, max(depths), shape[1], seed):
        outputs.append(layer(outputs[-1]))
    for depth in depths:
        cotangent = normal(shape, seed, "cotangent", depth)
        inner = grad(outputs[depth], outputs[:depth], cotangent, retain_graph=True)
        found = [g.data for g in inner] + [cotangent]
        yield depth, [float(to_numpy((g * g).sum())) for g in found]


def factor_per_layer(squares: Sequence[float]) -> float:
    """By how much ‖G‖² grows a layer, from the output to the input: exp(-slope) of a straight line
    through log ‖G_l‖², by least squares, without l = 0 and the last. nan where one is 0 (all units
    of a narrow network are dead) or not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(squares[1:-1])
        layer = np.arange(len(logs)) - (len(logs) - 1) / 2  # from the middle
        return float(np.exp(-(layer @ logs) / (layer @ layer)))


def measure(s: Settings, folder: Run, plan: Plan) -> dict[str, Any]:
    """gradients.jsonl: one line a network, batch size and depth, with its factor per layer and the
    squared norms of the gradients from y_0 to the output."""
    folder.restore()  # which deletes what a killed process left
    for name, network in NETWORKS.items():
        for size in (s.batch_size,) if network.relu else s.linear_batch_sizes:
            found = squared_norms(network, s.depth, (size, s.width), plan.seed)
            for depth, squares in found:
                folder.stream("gradients").append({
                    "step": 0, "network": name, "batch_size": size, "depth": depth,
                    "factor": json_number(factor_per_layer(squares)),
                    "squared_norms": json_numbers(squares),
                })  # fmt: skip
    result = {"status": "done", "steps": s.steps}
    folder.finish(result)
    return result


def study_all(s: Settings, study: Study) -> int:
    # What is drawn depends on these alone.
    drawn = hashlib.sha256(f"{s.width} {s.batch_size} {s.linear_batch_sizes}".encode()).hexdigest()
    work = Work(
        plans=plans(s),
        configuration=lambda plan: {"experiment": KIND, "data_fingerprint": drawn},
        run=lambda folder, plan: measure(s, folder, plan),
        about=f"(a seed each) of networks of {s.width} units, up to {max(s.depth)} layers deep",
        plot=lambda: explosion_figures.plot([study]),
        keeps_checkpoints=False,
    )
    return run_study(s, study, work)


main = Experiment(KIND, Settings, QUICK, check, study_all, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
