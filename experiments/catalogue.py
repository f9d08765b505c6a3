"""The experiments, their figures and costs, and the tools. `python -m experiments` prints them.

Costs of `--quick` are CPU seconds of one core of an AMD EPYC (2026-11); "a step" is a training
step of the network in question.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One module of `experiments`."""

    name: str
    figures: str
    what: str
    cost: str


EXPERIMENTS = (
    Entry(
        "vgg_cifar",
        "Figs. 1, 2, 8",
        "VGG without, with and with noisy BatchNorm, and with the noise alone",
        "--quick 52 s; 15,000 steps a run at the paper's scale",
    ),
    Entry(
        "covariate_shift",
        "Fig. 3a",
        "Definition 2.1 for every layer, and how the layers' distributions move",
        "--quick 37 s; one measurement costs about 10 steps, each 100 steps",
    ),
    Entry(
        "landscape",
        "Figs. 4, 11a",
        "loss, gradient and effective beta along the gradient and in random directions",
        "--quick 28 s; one probe costs 5 to 6 steps, each 100 steps",
    ),
    Entry(
        "lp_norms",
        "Figs. 5a, 6, 12",
        "l1, l2 and l-infinity normalisation in BatchNorm's place",
        "--quick 44 s; a step costs about as much as BatchNorm's",
    ),
    Entry(
        "equal_loss",
        "(control of Figs. 4, 11a)",
        "the landscape at equal training loss, by step size, from Glorot's and He's initialisation",
        "--quick below 2 min; of finished studies, seconds",
    ),
    Entry(
        "deep_linear",
        "Figs. 3b, 5b, 9, 10, 11b, 13",
        "the 25-layer linear network, BatchNorm and l_p norms: loss, landscape, covariate shift",
        "--quick below 2 min; the paper's own scale in about 17 min a seed",
    ),
    Entry(
        "theorems",
        "Thms. 4.1 to 4.5, C.1",
        "the identities on random losses and, unit by unit, along a real training",
        "--quick 17 s",
    ),
    Entry(
        "learning_rates",
        "(Bjorck et al. 2018)",
        "the largest rate that trains, and the accuracy over a grid of rates, for each norm",
        "--quick below 2 min",
    ),
    Entry(
        "explosion",
        "(Yang et al. 2019)",
        "gradients at initialisation, from layer to layer, by norm and depth, beside theory",
        "--quick 5 s; 8 s a seed",
    ),
    Entry(
        "scale_invariance",
        "(Wan et al. 2021)",
        "what weight decay does before a norm: norms, angles a step and effective rates by layer",
        "--quick 80 s; 10,000 steps a run, about 7 min",
    ),
    Entry(
        "only_bn",
        "(Frankle et al. 2021)",
        "gamma and beta alone are trained; as many random weights; the output layer alone",
        "--quick below 2 min; a step costs less than one of the whole network",
    ),
    Entry(
        "skip_init",
        "(De & Smith 2020)",
        "residual networks without a norm, with BatchNorm, with SkipInit; their start and training",
        "--quick below 2 min; what is measured at the start takes a minute a seed",
    ),
)

TOOLS = (
    Entry("reproduce", "", "runs all experiments in order, and skips what is done", ""),
    Entry(
        "claims",
        "",
        "the paper's claims, one by one, with a verdict each from finished studies",
        "",
    ),
    Entry("plot", "", "figures and tables of studies, made again from their files", ""),
    Entry("compare", "", "two studies of the same runs: where their curves part", ""),
    Entry("precision", "", "what tf32 and bf16 cost: errors of products, trainings compared", ""),
    Entry("predict", "", "test accuracy by class of a trained run", ""),
    Entry("benchmark", "", "a training step against PyTorch, on the CPU or a GPU", ""),
    Entry("gpu_check", "", "what needs a GPU, in nine minutes: losses, times, trainings, laws", ""),
)
