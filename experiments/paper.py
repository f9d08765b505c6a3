"""The paper's curves as numbers, digitised from the vector figures of arXiv:1805.11604v3.

Percentages; about ±0.5. Training: accuracy of one mini-batch, a point per 100 steps (late values
of noisy-batchnorm are one mean). Test: a point per 1,000 steps. The
paper's network is "VGG-like", at full width, for 15,000 steps at batch 128.
"""

from reference_models.vgg import VGG

STEPS = (100, 500, 1000, 2000, 5000, 10000, 15000)

# (variant, learning rate) -> accuracy at STEPS; None where the figure shows no point
TRAIN = {
    ("standard", 0.1): (11, 45, 49, 76, 96, 99, 98.5),
    ("batchnorm", 0.1): (45, 72, 83, 93, 99, 99, 98.5),
    ("noisy-batchnorm", 0.1): (36, 69, 77, 87.5, 97.6, 97.9, 97.9),
    ("standard", 0.5): (15, 8, 10, 10, 10, 10, 10),
    ("batchnorm", 0.5): (27, 52, 66, 85, 96, 95, 95.5),
}
TEST = {
    ("standard", 0.1): (None, None, 51, 67.5, 77, 80.3, 80.0),
    ("batchnorm", 0.1): (None, None, 76, 79, 81, 82.5, 82.9),
    ("standard", 0.5): (None, None, 9.9, 9.9, 9.9, 9.9, 9.9),
    ("batchnorm", 0.5): (None, None, 52, 69, 78, 77, 80.2),
}

# Fig. 8a, digitised: (variant, layer) -> median over training of |change of the mean| of one unit's
# activation between successive steps. BatchNorm's at layer 13 is an upper bound.
DRIFT = {
    ("standard", 2): 0.033, ("standard", 9): 0.066, ("standard", 13): 0.015,
    ("batchnorm", 2): 0.0021, ("batchnorm", 9): 0.0005, ("batchnorm", 13): 0.0011,
    ("noisy-batchnorm", 2): 0.28, ("noisy-batchnorm", 9): 0.28, ("noisy-batchnorm", 13): 0.35,
}  # fmt: skip

# Layers whose distributions the paper shows (Figs. 1c, 2, 8), of a network with 13 convolutions.
LAYERS = (2, 3, 9, 11, 13)
CONVOLUTIONS = 13


def shown_layers(model: str) -> dict[int, int]:
    """Layer of `model` -> the paper's layer that it stands for: the same relative depth.

    >>> shown_layers("vgg16")
    {2: 2, 3: 3, 9: 9, 11: 11, 13: 13}
    >>> shown_layers("vgg11")
    {1: 2, 2: 3, 6: 9, 7: 11, 8: 13}
    """
    convolutions = sum(entry != "M" for entry in VGG[model])
    shown: dict[int, int] = {}
    for k in LAYERS:
        layer = max(1, round(k * convolutions / CONVOLUTIONS))
        shown[layer + (layer in shown)] = k  # where two would be one, the later is the next
    return shown
