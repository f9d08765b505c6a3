"""The errors that minibn raises. A message names the argument, its value, the rule, the remedy."""


class ShapeError(ValueError):
    """Arrays whose shapes do not fit the operation."""


class GraphError(RuntimeError):
    """The recorded graph can't be walked: released, changed since, or not there at all."""


class AnomalyError(ArithmeticError):
    """`detect_anomaly` saw the first NaN or infinity, or a saved array that was overwritten."""


class BackendMismatch(TypeError):
    """Arrays of two backends met in one operation."""


class BackendUnavailable(RuntimeError):
    """The backend that was asked for can't run here."""


class DataError(ValueError):
    """A data set or a checkpoint that is missing, damaged or not what it claims to be."""
