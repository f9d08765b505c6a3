"""The paper's curves as numbers, digitised from the vector figures of arXiv:1805.11604v3.

The paper's text has none of these numbers. Accuracy: about ±0.5 % of an axis. VGG: "VGG-like",
full width, 15,000 steps at batch 128, a point per 100 steps (test accuracy per 1,000). Deep linear
network: 25 layers of 10, full batch, 10,000 steps, a point per 50 steps.
"""

from reference_models.vgg import VGG

# VGG: Figs. 1, 2, 5a. Accuracy in per cent; training: of one mini-batch

RATE = 0.1  # "unless otherwise specified"; Figs. 4, 5a, 11a and 12
STEPS = (100, 500, 1000, 2000, 5000, 10000, 15000)

# (variant, learning rate) -> accuracy at STEPS; None where nothing was read. Late values of
# noisy-batchnorm and of the l_p norms ("98 to 99") are one mean.
TRAIN = {
    ("standard", 0.1): (11, 45, 49, 76, 96, 99, 98.5),
    ("batchnorm", 0.1): (45, 72, 83, 93, 99, 99, 98.5),
    ("noisy-batchnorm", 0.1): (36, 69, 77, 87.5, 97.6, 97.9, 97.9),
    ("standard", 0.5): (15, 8, 10, 10, 10, 10, 10),
    ("batchnorm", 0.5): (27, 52, 66, 85, 96, 95, 95.5),
    ("l1", 0.1): (None, None, 87, None, None, 98.5, 98.5),
    ("l2", 0.1): (None, None, 85, None, None, 98.5, 98.5),
    ("linf", 0.1): (None, None, 83, None, None, 98.5, 98.5),
}
TEST = {
    ("standard", 0.1): (None, None, 51, 67.5, 77, 80.3, 80.0),
    ("batchnorm", 0.1): (None, None, 76, 79, 81, 82.5, 82.9),
    ("standard", 0.5): (None, None, 9.9, 9.9, 9.9, 9.9, 9.9),
    ("batchnorm", 0.5): (None, None, 52, 69, 78, 77, 80.2),
}

# Fig. 8a: (variant, layer) -> median over training of the change of one unit's mean (DRIFT) and
# variance between successive steps, at the activation. BatchNorm's at layer 13 are upper bounds.

DRIFT = {
    ("standard", 2): 0.033, ("standard", 9): 0.066, ("standard", 13): 0.015,
    ("batchnorm", 2): 0.0021, ("batchnorm", 9): 0.0005, ("batchnorm", 13): 0.0011,
    ("noisy-batchnorm", 2): 0.28, ("noisy-batchnorm", 9): 0.28, ("noisy-batchnorm", 13): 0.35,
}  # fmt: skip
VARIANCE_DRIFT = {
    ("standard", 2): 0.015, ("standard", 9): 0.026, ("standard", 13): 0.007,
    ("batchnorm", 2): 0.0036, ("batchnorm", 9): 0.0011, ("batchnorm", 13): 0.0014,
    ("noisy-batchnorm", 2): 0.18, ("noisy-batchnorm", 9): 0.19, ("noisy-batchnorm", 13): 0.21,
}  # fmt: skip

# Fig. 3: internal covariate shift by Definition 2.1

# (variant, learning rate, layer) -> ||G - G'||, the median over training, and the cosine of G and
# G', the mean over its second half (batchnorm at 1e-7, layer 9: the median). None: no numbers on
# the axis.
SHIFT = {
    ("standard", 0.1, 5): (0.70, 0.53), ("batchnorm", 0.1, 5): (0.83, 0.43),
    ("standard", 0.1, 10): (None, 0.11), ("batchnorm", 0.1, 10): (None, 0.06),
    ("standard", 0.01, 5): (0.84, 0.88), ("batchnorm", 0.01, 5): (0.014, 0.99),
    ("standard", 0.01, 10): (None, 0.57), ("batchnorm", 0.01, 10): (None, 0.94),
}  # fmt: skip
# (variant, learning rate, layer) -> ||G - G'|| in VGG at the start; at 0.01 about (5 to 14).
SHIFT_AT_START = {
    ("standard", 0.1, 5): 0.04, ("batchnorm", 0.1, 5): 14.5, ("batchnorm", 0.01, 5): 9.0,
}  # fmt: skip
# variant -> the cosine of G and G' at layer 10 of VGG, lr 0.1, at step 100.
SHIFT_COSINE_AT_100 = {"standard": 0.83, "batchnorm": 0.48}
DEEP_LINEAR_SHIFT = {
    ("standard", 1e-6, 9): (6.3e2, 0.78), ("batchnorm", 1e-6, 9): (8.6e2, 0.90),
    ("standard", 1e-6, 17): (None, -0.88), ("batchnorm", 1e-6, 17): (None, -0.86),
    ("standard", 1e-7, 9): (1.6, 0.997), ("batchnorm", 1e-7, 9): (5.1e3, 0.19),
    ("standard", 1e-7, 17): (None, 0.997), ("batchnorm", 1e-7, 17): (None, 0.16),
}  # fmt: skip
SHIFT_LAYERS = (5, 10)
DEEP_LINEAR_SHIFT_LAYERS = (9, 17)

# Figs. 4, 11, 12: the landscape of VGG along the gradient, lr 0.1

LANDSCAPE_STEPS = (0, 100, 500, 1000, 2000, 5000, 10000, 15000)

# variant -> (least, largest) at LANDSCAPE_STEPS: the loss, and the l2 change of the gradient, over
# the step sizes of the probe. The plotted loss holds a penalty of about 2 at the start (inferred).
LOSS_RANGE = {
    "standard": ((4.27, 4.29), (4.05, 4.12), (3.3, 4.2), (2.7, 8.1),
                 (2.1, 6.4), (1.39, 1.87), (0.98, 1.60), (0.68, 4.15)),
    "batchnorm": ((4.19, 5.20), (2.95, 4.57), (2.2, 2.9), (1.9, 2.2),
                  (1.72, 1.98), (1.36, 1.52), (0.91, 0.92), (0.628, 0.628)),
}  # fmt: skip
CHANGE_RANGE = {
    "standard": ((1.2, 2.5), (1.1, 10.7), (10, 29), (17, 173),
                 (13, 139), (9, 39), (10, 38), (18, 99)),
    "batchnorm": ((125, 145), (21, 38), (14, 27), (13.5, 22),
                  (13, 23), (14, 26), (10, 11), (1.1, 1.4)),
}  # fmt: skip
EFFECTIVE_BETA = {
    "standard": (11, 9.0, 23, 28, 27, 19.5, 20, 20.4),
    "batchnorm": (25, 20, 17, 18, 19.5, 20, 20, 18.6),
}

# variant -> median over training of the width of those bands (Figs. 4a, 12b; 4b, 12c), largest
# effective beta over training (12d), change of the gradient at step 0 (12c).
LOSS_BAND = {"standard": 0.94, "batchnorm": 0.20, "l1": 0.18, "l2": 0.14, "linf": 0.08}
CHANGE_BAND = {"standard": 36, "batchnorm": 9.4, "l1": 9.8, "l2": 8.8, "linf": 6.2}
LARGEST_BETA = {"standard": 44.9, "batchnorm": 25, "l1": 25, "l2": 25, "linf": 28}
CHANGE_AT_START = {"standard": 2, "batchnorm": 135, "l1": 77, "l2": 99, "linf": 24}
# Largest change of the gradient from step 100 on (Fig. 11a; before, CHANGE_RANGE has more), and the
# late median of the effective beta: 1/0.05, the inverse of the smallest step size, because the
# change has saturated there.
LARGEST_CHANGE = {"standard": 255, "batchnorm": 38}
LATE_BETA = {"standard": 20.0, "batchnorm": 20.0, "l1": 19.9, "l2": 19.9, "linf": 20.0}

# Fig. 11a: median over 50 steps of training of the gradient's change, at each step size.
STEP_SIZES = (0.05, 0.1, 0.2, 0.4)
MULTIPLES = (0.5, 1.0, 2.0, 4.0)  # of the rate: "[1/2, 4] × step size"
CHANGE_BY_STEP_SIZE = {"standard": (10.9, 13, 19, 49), "batchnorm": (11.6, 11.7, 14.2, 22)}

# The deep linear network: Figs. 3b, 5b, 10, 11b, 13

DEEP_LINEAR_RATE = 1e-6  # of Figs. 5b, 10, 11b and 13
DEEP_LINEAR_STEPS = (1000, 2000, 5000, 10000)

# (variant, learning rate) -> training loss, the sum over 1,000 samples, at DEEP_LINEAR_STEPS
DEEP_LINEAR_LOSS = {
    ("standard", 1e-6): (4.2e3, 3.0e3, 2.9e3, 1.67e3),
    ("batchnorm", 1e-6): (1.4e3, 1.2e3, 536, 482),
    ("l1", 1e-6): (1.2e3, None, None, 97),
    ("l2", 1e-6): (1.2e3, None, None, 480),
    ("linf", 1e-6): (3.2e3, None, None, 984),
    ("standard", 1e-7): (6.0e3, 5.5e3, 4.9e3, 4.0e3),
    ("batchnorm", 1e-7): (3.9e3, 2.7e3, 1.4e3, 709),
}
# variant -> median width of the loss band in decades (Fig. 10a), largest loss of a probe at
# (100, 500, 1000) steps, median and largest effective beta (Figs. 10c, 13d).
DEEP_LINEAR_LOSS_BAND = {"standard": 0.87, "batchnorm": 1.46}
DEEP_LINEAR_WALK_STEPS = (100, 500, 1000)
DEEP_LINEAR_LARGEST_LOSS = {"standard": (6e14, 7e9, 2e5)}
DEEP_LINEAR_BETA = {
    "standard": 3.7e6, "batchnorm": 2.0e6, "l1": 2.0e6, "l2": 2.0e6, "linf": 2.2e6
}  # fmt: skip
DEEP_LINEAR_LARGEST_BETA = {"standard": 6e14, "batchnorm": 8e6, "linf": 1.9e7}
# Fig. 11b, as above; the last step size is about 30 times the rate.
DEEP_LINEAR_STEP_SIZES = (1e-8, 1e-7, 1e-6, 1e-5, 3.2e-5)
DEEP_LINEAR_CHANGE_BY_STEP_SIZE = {
    "standard": (7.2e2, 7.2e3, 7.3e4, 8.2e5, 6.8e6),
    "batchnorm": (8.4e2, 8.4e3, 8.4e4, 7.1e5, 1.6e6),
}

# Layers

# Layers whose distributions the paper shows (Figs. 1c, 2, 8), of a network with 13 convolutions.
LAYERS = (2, 3, 9, 11, 13)
CONVOLUTIONS = 13
DEEP_LINEAR_LAYERS = 25


def same_depth(layer: int, of: int, depth: int) -> int:
    """The layer of a network of `depth` layers that lies as deep as `layer` of `of` layers.

    >>> same_depth(9, of=13, depth=8)
    6
    """
    return max(1, round(layer * depth / of))


def shown_layers(model: str) -> dict[int, int]:
    """Layer of `model` -> the paper's layer that it stands for: the same relative depth.

    >>> shown_layers("vgg16")
    {2: 2, 3: 3, 9: 9, 11: 11, 13: 13}
    >>> shown_layers("vgg11")
    {1: 2, 2: 3, 6: 9, 7: 11, 8: 13}
    """
    convolutions = sum(entry != "M" for entry in VGG[model])
    layers: dict[int, int] = {}
    for k in LAYERS:
        layer = same_depth(k, CONVOLUTIONS, convolutions)
        layers[layer + (layer in layers)] = k  # where two would be one, the later is the next
    return layers


def layer_of(model: str, layer: int) -> int:
    """The layer of `model` that stands for the paper's `layer`.

    >>> [layer_of("vgg16", 10), layer_of("vgg11", 3), layer_of("vgg13", 3)]
    [10, 2, 3]
    """
    for ours, of_paper in shown_layers(model).items():
        if of_paper == layer:
            return ours
    return same_depth(layer, CONVOLUTIONS, sum(entry != "M" for entry in VGG[model]))
