"""Optimizer, the base class of all update rules, and its groups of parameters.

A subclass defines `slots` and `update`. A group shares settings, such as its weight decay.
"""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minibn.autograd.dispatch import find_kernel
from minibn.autograd.tensor import Tensor
from minibn.backend import array_module, backend_of, to_numpy
from minibn.errors import check_flag, check_real, did_you_mean
from minibn.nn.module import Module


def check_setting(name: str, setting: Any, who: str = "a group") -> Any:
    """A setting of a group as Python's numbers, which adopt the dtype of the arrays. Raises
    TypeError and ValueError for one that is out of range."""
    what = f"{who}: {name}"
    if name in ("nesterov", "decoupled"):
        return check_flag(setting, what)
    if name == "betas":
        if not isinstance(setting, (tuple, list, np.ndarray)) or len(setting) != 2:
            raise ValueError(f"{what}={setting!r} must be two numbers, as (0.9, 0.999).")
        betas = tuple(check_real(beta, what) for beta in setting)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{what}={betas} must lie in [0, 1).")
        return betas
    number = check_real(setting, what)
    if name == "momentum" and not 0 <= number < 1:
        raise ValueError(f"{what}={number} must lie in [0, 1).")
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{what}={number} must be finite and not negative.")
    return number


class Group(UserDict[str, Any]):
    """Parameters that share settings: {"params": ..., "lr_scale": ..., ...}. Its rate is the
    optimizer's `lr` times `lr_scale`; as in PyTorch it can be read and set as group["lr"].

    Setting "lr" of the only group sets the optimizer's; of one of several, this group's `lr_scale`.
    Raises KeyError for an unknown setting, or new params; ValueError for a rate that is negative or
    not finite, or that no `lr_scale` gives, since the optimizer's rate is 0.
    """

    def __init__(self, settings: Mapping[str, Any], shared: dict[str, Any]) -> None:
        self.data = dict(settings)
        self.shared = shared  # "lr", and how many "groups"

    def __getitem__(self, key: str) -> Any:
        return self.shared["lr"] * self.data["lr_scale"] if key == "lr" else self.data[key]

    def __setitem__(self, key: str, setting: Any) -> None:
        if key == "params":
            raise KeyError("a group's params can't be exchanged. Make another optimizer.")
        if key not in self.data and key != "lr":
            raise KeyError(f"a group has no {key!r}. {did_you_mean(key, ['lr', *self.data])}")
        setting = check_setting(key, setting)
        if key != "lr":
            self.data[key] = setting
            return
        if self.shared["groups"] == 1:
            self.shared["lr"], self.data["lr_scale"] = setting, 1.0
        elif self.shared["lr"] > 0:
            self.data["lr_scale"] = setting / self.shared["lr"]
        elif setting > 0:
            raise ValueError(
                "the optimizer's lr is 0: set optimizer.lr, and each group's lr_scale."
            )

    def __setattr__(self, name: str, setting: Any) -> None:
        if name not in ("data", "shared"):
            raise AttributeError(f"a group is a dictionary: set group[{name!r}] = ...")
        object.__setattr__(self, name, setting)

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"a group's {key!r} can't be removed. Set another value.")

    def __contains__(self, key: object) -> bool:
        return key == "lr" or key in self.data


Row = tuple[list[Any], Group]  # the arrays w, g and those of `slots`, with their group


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights with decay; gammas, betas and biases (one axis) without."""
    parameters = model.parameters()
    return [
        {"params": [p for p in parameters if len(p.shape) > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if len(p.shape) <= 1], "weight_decay": 0.0},
    ]


class Optimizer:
    """Base class: parameter groups, `zero_grad`, and the state for checkpoints.

    params: a list of Tensors, or of groups {"params": [...], "weight_decay": ..., "lr_scale": ...}
    that differ from the defaults. `lr_scale` multiplies `lr` within the group; in its place a group
    may have an `lr` of its own. See `Group`.
    """

    slots: tuple[str, ...] = ()  # names of the state arrays of each parameter

    def __init__(
        self, params: Iterable[Any], lr: float, weight_decay: float, **settings: Any
    ) -> None:
        who = type(self).__name__
        lr = check_setting("lr", lr, who)
        if isinstance(params, (Tensor, Mapping, Module)) or not isinstance(params, Iterable):
            raise TypeError(
                f"{who}: params is a {type(params).__name__}, not a list of Tensors or of groups. "
                "Use model.parameters(), or [w]."
            )
        given = list(params)
        groups = given if any(isinstance(g, Mapping) for g in given) else [{"params": given}]
        self._shared: dict[str, Any] = {"lr": lr, "groups": len(groups)}
        defaults = {"weight_decay": weight_decay, "lr_scale": 1.0, **settings}
        made: list[Group] = []
        for group in groups:
            if not isinstance(group, Mapping) or "params" not in group:
                raise TypeError(
                    f'{who}: each group is a dict {{"params": [...], ...}}, or none is.'
                )
            if unknown := set(group) - {"params", "lr", *defaults}:
                raise ValueError(
                    f"{type(self).__name__}: a group has {', '.join(sorted(unknown))}; known are "
                    f"params, lr, {', '.join(defaults)}."
                )
            if "lr" in group and "lr_scale" in group:
                raise ValueError(f"{type(self).__name__}: a group has lr and lr_scale. Give one.")
            own = {**defaults, **group}
            rate, tensors = own.pop("lr", None), own.pop("params")
            tensors = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
            own = {key: check_setting(key, setting, who) for key, setting in own.items()}
            made.append(Group({**own, "params": tensors}, self._shared))
            if rate is not None:
                made[-1]["lr"] = rate
        self.params: tuple[Tensor, ...] = tuple(p for group in made for p in group["params"])
        self.groups: tuple[Group, ...] = tuple(made)  # from now on, see __setattr__
        if not self.params or not all(isinstance(p, Tensor) and p.is_leaf for p in self.params):
            raise ValueError(f"{who}: params must be leaf Tensors, at least one.")
        if integers := [p for p in self.params if p.dtype.kind not in "fc"]:
            raise TypeError(f"{who}: a parameter of {integers[0].dtype} can't be trained.")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError(f"{type(self).__name__}: a parameter stands in two places.")
        self.steps = 0
        self.updates: list[int] = []  # of each parameter, where the rule counts them
        self.state: list[dict[str, Any]] = [{} for _ in self.params]

    @property
    def lr(self) -> float:
        """The learning rate, which each group's `lr_scale` multiplies."""
        return self._shared["lr"]

    @lr.setter
    def lr(self, rate: float) -> None:
        self._shared["lr"] = check_setting("lr", rate, type(self).__name__)

    def __setattr__(self, name: str, setting: Any) -> None:
        groups = vars(self).get("groups", ())
        if any(name in group for group in groups) and name != "lr" and name != "params":
            raise AttributeError(
                f"{type(self).__name__}.{name} = ... has no effect: set it in the groups, as "
                f"optimizer.param_groups[0][{name!r}] = ..."
            )
        if groups and name in ("groups", "params", "learning_rate"):
            remedy = "Set optimizer.lr." if name == "learning_rate" else "Make another optimizer."
            raise AttributeError(f"{type(self).__name__}.{name} can't be set. {remedy}")
        object.__setattr__(self, name, setting)

    @property
    def param_groups(self) -> tuple[Group, ...]:
        """The same as `groups`: PyTorch's name."""
        return self.groups

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    @np.errstate(under="ignore")  # host: the square of a small gradient is 0
    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        self.steps += 1
        groups = [group for group in self.groups for _ in group["params"]]
        rows, updated = [], []
        for i, (p, state, group) in enumerate(zip(self.params, self.state, groups, strict=True)):
            if p.grad is not None:
                self.check_writable(p)
                arrays = [p.data, p.grad.data, *self.state_arrays(p.data, state, group)]
                rows.append((arrays, self.settings_of(i, group)))
                updated.append(p)
        kernel = find_kernel(self, [x for arrays, _ in rows for x in arrays]) if rows else None
        (kernel or self).update_all(rows)
        for p in updated:
            p.bump_version()

    def check_writable(self, p: Tensor) -> None:
        """Raise ValueError for values in read-only memory, before any parameter is updated."""
        if isinstance(p.data, np.ndarray) and not p.data.flags.writeable:  # host: NumPy's flag
            raise ValueError(
                f"{type(self).__name__}: the values of a parameter of shape {p.shape} are in "
                "read-only memory. Make it of a copy: Tensor(array.copy(), requires_grad=True)."
            )

    def settings_of(self, i: int, group: Group) -> Group:
        """The settings for this update of parameter i, which is in this group."""
        return group

    def update_all(self, rows: list[Row]) -> None:
        """Update all parameters that have gradients."""
        for arrays, group in rows:
            self.update(group, *arrays)

    def update(self, group: Group, w: Any, g: Any, *state: Any) -> None:
        """Update one parameter in place, elementwise. w, g: its values and its gradient; state: its
        state arrays, in the order of `slots`."""
        raise NotImplementedError

    def state_arrays(self, w: Any, state: dict[str, Any], group: Group) -> list[Any]:
        """The state arrays of a parameter, in the order of `slots`: zeros at first."""
        if not state:
            dtype = self.state_dtype(w.dtype)
            state |= {slot: array_module(w).zeros_like(w, dtype=dtype) for slot in self.slots}
        return [state[slot] for slot in self.slots]

    def state_dtype(self, dtype: Any) -> Any:
        """The dtype of the state arrays of a parameter of this dtype."""
        return dtype

    def state_dict(self) -> dict[str, np.ndarray]:
        """The step count and the state arrays, by parameter number, as NumPy arrays."""
        arrays = {
            f"{i}.{key}": to_numpy(array).copy()
            for i, state in enumerate(self.state)
            for key, array in state.items()
        }
        return {"steps": np.array(self.steps), **arrays}  # host: what a checkpoint holds

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from `state_dict()`. Raises KeyError, and changes nothing, if it belongs to
        other parameters or lacks a part."""
        if not isinstance(state, Mapping):
            raise TypeError(f"{type(self).__name__}: the state is no dict, as of .state_dict().")
        if "steps" not in state:
            raise KeyError(f"{type(self).__name__}: steps is missing. Is it an optimizer's state?")
        fresh: list[dict[str, Any]] = [{} for _ in self.params]
        for name, array in state.items():
            if name == "steps":
                continue
            i, _, key = str(name).partition(".")
            if (
                not (i.isascii() and i.isdecimal())
                or int(i) >= len(self.params)
                or key not in self.slots
            ):
                raise KeyError(f"{type(self).__name__}: {name} belongs to another optimizer.")
            p = self.params[int(i)]
            array = to_numpy(np.asarray(array) if isinstance(array, (list, tuple)) else array)
            if array.shape != p.shape:
                raise KeyError(f"{type(self).__name__}: {name} is {array.shape}, not {p.shape}.")
            if not np.can_cast(array.dtype, p.dtype, "same_kind"):
                raise KeyError(f"{type(self).__name__}: {name} is {array.dtype}, not {p.dtype}.")
            dtype = self.state_dtype(p.dtype)
            fresh[int(i)][key] = backend_of(p.data).asarray(array.copy(), dtype=dtype)
        for number, arrays in enumerate(fresh):
            if arrays and (missing := set(self.slots) - set(arrays)):
                raise KeyError(f"{type(self).__name__}: {number}.{missing.pop()} is missing.")
        self.steps, self.state = self._count(state["steps"], "steps"), fresh

    def _count(self, number: Any, name: str) -> int:
        """A number of steps. Raises KeyError for what is none."""
        array = np.asarray(number)  # host: from a checkpoint
        if array.shape != () or array.dtype.kind not in "iu" or array < 0:
            raise KeyError(f"{type(self).__name__}: {name} is {array!r}, not a number of steps.")
        return int(array)
