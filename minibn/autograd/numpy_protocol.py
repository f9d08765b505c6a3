"""Tensors among NumPy's functions: what is silent there, and what raises.

| call                            | a constant               | a Tensor that requires a gradient |
|---------------------------------|--------------------------|-----------------------------------|
| `array + t`, `np.add(array, t)` | an op, as `t + array`    | an op                             |
| `array -= t`                    | writes into the array    | TypeError: its graph would be lost |
| `np.exp(t)` and other ufuncs    | TypeError: use `ops.exp` | TypeError                         |
| `np.asarray(t)`, `np.save`      | its values               | TypeError: use `.numpy()`         |
| `np.sum(t)`, `np.stack([t, t])` | of its values, an array  | TypeError: use `ops.sum`          |

A Tensor on a device is never copied to the host in silence: TypeError.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# NumPy's functions behind Python's operators, and these operators' names.
OPERATORS = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "truediv", "power": "pow",
    "matmul": "matmul", "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le",
    "greater": "gt", "greater_equal": "ge",
}  # fmt: skip
REFLECTED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
OF_SHAPES = ("shape", "ndim", "size", "zeros_like", "ones_like", "empty_like", "full_like")


class _ArrayUfunc:
    """`Tensor.__array_ufunc__`. NumPy looks it up in the class: `_call_ufunc`. CuPy looks it up in
    the object: None, so that its operators leave array + Tensor to Tensor."""

    def __get__(self, tensor: Any, owner: type) -> Any:
        return _call_ufunc if tensor is None else None


class NumpyProtocol:
    """The part of Tensor that NumPy calls."""

    __slots__ = ()
    __minibn_tensor__ = True
    __array_ufunc__ = _ArrayUfunc()
    __array_priority__ = 1000

    data: Any
    requires_grad: bool

    @staticmethod
    def op_name(name: str) -> str:
        """The function of `minibn.ops` for one of NumPy's; "" if there is none."""
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values, of a Tensor on the host that requires no gradient. Raises TypeError for
        another."""
        if self.requires_grad:
            raise TypeError(
                "a Tensor that requires a gradient is not made an array of NumPy's silently. Use "
                ".numpy(), or functions of minibn.ops to differentiate through them."
            )
        if not isinstance(self.data, np.ndarray):
            raise TypeError(
                f"a Tensor of {type(self.data).__name__} is not copied to the host silently. Use "
                ".numpy()."
            )
        return np.array(self.data, dtype=dtype, copy=copy)  # host: NumPy asks for it

    def __array_function__(self, function: Any, types: Any, arguments: Any, keywords: Any) -> Any:
        """A function of NumPy's that is no ufunc, of the values of constants."""
        name = function.__name__
        try:
            convert = _data if name in OF_SHAPES else np.asarray  # host: NumPy's own function
            return function(*_convert(arguments, convert), **_convert(keywords, convert))
        except TypeError as error:
            if "Tensor" not in str(error):
                raise
            raise TypeError(f"np.{name}: {error}{_remedy(self, name)}") from None


def _data(tensor: Any) -> Any:
    return tensor.data


def _convert(x: Any, convert: Any) -> Any:
    """x with every Tensor in its lists, tuples and dicts converted."""
    if is_tensor(x):
        return convert(x)
    if type(x) in (list, tuple):
        return type(x)(_convert(y, convert) for y in x)
    return {k: _convert(y, convert) for k, y in x.items()} if type(x) is dict else x


def is_tensor(x: Any) -> bool:
    return getattr(x, "__minibn_tensor__", False)


def _remedy(tensor: Any, name: str) -> str:
    op = tensor.op_name(name)
    return f" Here: minibn.ops.{op}." if op else ""


def _call_ufunc(tensor: Any, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
    """A ufunc with a Tensor among its inputs, or as its `out`."""
    name = OPERATORS.get(ufunc.__name__)
    out = settings.pop("out", (None,))[0]
    if method != "__call__" or settings or name is None:
        op = tensor.op_name(ufunc.__name__)
        remedy = f"minibn.ops.{op}" if op else "a function of minibn.ops"
        raise TypeError(f"np.{ufunc.__name__} of a Tensor: use {remedy}, or tensor.numpy().")
    if out is not None:
        if any(is_tensor(x) and x.requires_grad for x in (*inputs, out)):
            raise TypeError(
                f"np.{ufunc.__name__}: a Tensor that requires a gradient can't be written into "
                "an array: its graph would be lost. Use .detach()."
            )
        ufunc(*_convert(inputs, _data), out=_convert(out, _data))
        return out
    left, right = inputs
    if is_tensor(left):
        return getattr(left, f"__{name}__")(right)
    return getattr(right, f"__{REFLECTED.get(name, f'r{name}')}__")(left)
