"""The paper's networks; one function builds each variant."""

from reference_models.deep_linear import deep_linear
from reference_models.vgg import VGG, vgg

__all__ = ["VGG", "deep_linear", "vgg"]
