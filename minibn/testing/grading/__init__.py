"""A grader for courses: points, digits and an explanation for a hand-written layer.

    >>> from minibn.testing.grading import grade
    >>> def relu(x, gamma, beta, eps): ...
    >>> print(str(grade("batch_norm", {"batch_norm": relu})).splitlines()[1].strip())
    [0/10] values

`python -m minibn.testing grade SPEC SOLUTION.py` is the same as a command. README.md of this folder
has the styles, how to write a spec, and what is safe.
"""

from minibn.testing.grading.grading import grade
from minibn.testing.grading.result import Grade, PointsLost
from minibn.testing.grading.spec import (
    Case,
    Check,
    Gradient,
    KeepsFloat32,
    Spec,
    SpecError,
    Unmodified,
    Values,
)
from minibn.testing.grading.styles import (
    Layout,
    RowsAsImages,
    Style,
    cs231n,
    minibn_function,
    minitorch_class,
    on_arrays,
    tinytorch_function,
    tinytorch_layer,
    torch_function,
    torch_layer,
)

__all__ = [
    "Case", "Check", "Grade", "Gradient", "KeepsFloat32", "Layout", "PointsLost", "RowsAsImages",
    "Spec", "SpecError", "Style", "Unmodified", "Values", "cs231n", "grade", "minibn_function",
    "minitorch_class", "on_arrays", "tinytorch_function", "tinytorch_layer", "torch_function",
    "torch_layer",
]  # fmt: skip
