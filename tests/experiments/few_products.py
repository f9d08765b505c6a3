"""The Hessian measured by few products, in this process (studies.py) and in one that is killed.

Twelve products and four samples are half of a tiny study's time. That these suffice is not what
tests of studies are about: see tests/analysis/test_curvature.py.
"""

from functools import partial

from experiments.training.probes import Curvature

few_products = partial(Curvature, iterations=3, samples=1)
