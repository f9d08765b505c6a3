"""Optimizers, gradient clipping, and schedules.

An optimizer updates parameters in place from their `.grad`. Its learning rate is the attribute
`lr` (or `param_groups[i]["lr"]`, of one group); a schedule is a pure function of the step:

    for step in range(steps):
        ...
        optimizer.lr = schedule(step)
        optimizer.step()

Weight decay of SGD and Adam adds λw to the gradient (an l2 penalty of λ/2 ‖w‖²); AdamW shrinks the
weights directly (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

import functools
import math
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minibn.autograd.dispatch import find_kernel
from minibn.autograd.tensor import Tensor
from minibn.backend import array_module, backend_of, to_numpy
from minibn.errors import (
    check_flag,
    check_integer,
    check_real,
    did_you_mean,
    missing_attribute,
    with_own_keywords,
)
from minibn.nn.module import Module

Schedule = Callable[[int], float]


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


class SGD(Optimizer):
    """w ← w - lr · v,  v = g without momentum, else v ← momentum · v + g.

    Nesterov: w ← w - lr · (g + momentum · v). As PyTorch: no dampening, the first velocity is the
    gradient itself.
    """

    slots = ("velocity",)

    @with_own_keywords
    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay, momentum=momentum, nesterov=nesterov)
        if any(group["nesterov"] and group["momentum"] == 0 for group in self.groups):
            raise ValueError("SGD: nesterov=True needs a momentum above 0.")

    def state_arrays(self, w: Any, state: dict[str, Any], group: Group) -> list[Any]:
        """The velocity; nothing without momentum."""
        return super().state_arrays(w, state, group) if group["momentum"] else []

    def update(self, group: Group, w: Any, g: Any, v: Any = None) -> None:
        if group["weight_decay"]:
            g = g + group["weight_decay"] * w
        if v is not None:
            v *= group["momentum"]
            v += g
            g = g + group["momentum"] * v if group["nesterov"] else v
        w -= self.lr * group["lr_scale"] * g


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) with bias-corrected first and second moments.

    With `decoupled=True` (`AdamW`), decay shrinks the weights instead of joining the gradient.
    """

    slots = ("first", "second")

    @with_own_keywords
    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        settings = {"betas": betas, "eps": eps, "decoupled": decoupled}
        super().__init__(params, lr, weight_decay, **settings)
        self.updates = [0] * len(self.params)  # for the bias corrections

    def state_dtype(self, dtype: Any) -> Any:
        """At least float32: squares of gradients are 0 or infinite in float16."""
        return np.promote_types(dtype, np.float32)

    def settings_of(self, i: int, group: Group) -> Group:
        """The group's, and `step`: which update of this parameter it is."""
        self.updates[i] += 1
        return Group({**group.data, "step": self.updates[i]}, group.shared)

    def state_dict(self) -> dict[str, np.ndarray]:
        """As Optimizer's, with the number of updates of each parameter."""
        return super().state_dict() | {"updates": np.array(self.updates)}  # host: for a checkpoint

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """As Optimizer's."""
        given = np.asarray(state.get("updates", ()))  # host: from a checkpoint
        if given.shape != (len(self.params),):
            raise KeyError(f"Adam: updates has shape {given.shape}, not {(len(self.params),)}.")
        updates = [self._count(n, "updates") for n in given]
        super().load_state_dict({key: v for key, v in state.items() if key != "updates"})
        self.updates = updates

    def update(self, group: Group, w: Any, g: Any, first: Any, second: Any) -> None:
        lr, decay = self.lr * group["lr_scale"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        g = g.astype(first.dtype, copy=False)
        if decay and group["decoupled"]:
            w *= 1 - lr * decay
        elif decay:
            g = g + decay * w
        first += (1 - beta1) * (g - first)
        second += (1 - beta2) * (g * g - second)
        mean = first / (1 - beta1 ** group["step"])
        scale = array_module(w).sqrt(second / (1 - beta2 ** group["step"])) + group["eps"]
        w -= lr * mean / scale


def AdamW(
    params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 1e-2, **settings: Any
) -> Adam:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return Adam(params, lr, weight_decay=weight_decay, decoupled=True, **settings)


@np.errstate(under="ignore")  # host: as in an optimizer's step
def clip_grad_norm(params: Sequence[Tensor], max_norm: float) -> Any:
    """Scale all gradients so that their joint l2 norm is at most `max_norm`.

    Returns the norm before clipping, a 0-d array of the backend (no transfer).
    """
    max_norm = check_real(max_norm, "clip_grad_norm: max_norm")
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: max_norm={max_norm} must not be negative.")
    params = [params] if isinstance(params, Tensor) else params
    tensors = [] if isinstance(params, Module) else list(params)
    if not tensors or not all(isinstance(p, Tensor) for p in tensors):
        raise TypeError("clip_grad_norm: params must be Tensors, as of model.parameters().")
    # Each once: of a parameter that is given twice the gradient counts once.
    grads = [p.grad for p in {id(p): p for p in tensors}.values() if p.grad is not None]
    if not grads:
        raise ValueError("clip_grad_norm: no parameter has a gradient. Call backward() first.")
    xp = array_module(grads[0].data)
    sizes = [xp.abs(g.data).astype(_at_least_float32(g)) for g in grads if g.size]
    top = functools.reduce(xp.maximum, [size.max() for size in sizes])
    top = xp.where((top > 0) & xp.isfinite(top), top, 1)  # so that no square overflows
    norm = xp.sqrt(sum(((size / top) ** 2).sum() for size in sizes)) * top
    factor = xp.minimum(max_norm / (norm + 1e-6), 1)
    for g in grads:
        g.data = g.data * factor.astype(g.dtype)
    return norm


def _at_least_float32(g: Tensor) -> np.dtype:
    """The dtype in which the norm of this gradient is computed."""
    return np.promote_types(g.data.real.dtype, np.float32)


# -- schedules: pure functions of the step, counted from 0


def constant(lr: float) -> Schedule:
    """Always lr."""
    check_real(lr, "constant: lr")
    return lambda step: lr


def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """lr · factor^(step // every)."""
    if not check_real(factor, "step_decay: factor") >= 0:
        raise ValueError(f"step_decay: factor={factor} must not be negative.")
    check_real(lr, "step_decay: lr")
    check_integer(every, "step_decay: every", least=1)
    return lambda step: lr * factor ** (step // every)


def cosine(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """From lr to `end` along half a cosine over `steps` (Loshchilov & Hutter 2017), then `end`."""
    check_real(lr, "cosine: lr"), check_real(end, "cosine: end")
    check_integer(steps, "cosine: steps", least=0)
    return lambda step: (
        end + (lr - end) * (1 + math.cos(math.pi * min(step / max(steps, 1), 1))) / 2
    )


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """`schedule`, scaled up linearly over the first `steps`: (step + 1) / steps."""
    if not callable(schedule):
        raise TypeError(f"warm_up: schedule={schedule!r} is no function. Use constant(lr).")
    check_integer(steps, "warm_up: steps", least=0)
    return lambda step: schedule(step) * min((step + 1) / max(steps, 1), 1)


# What to use in the place of names of PyTorch's.
__getattr__ = missing_attribute(
    __name__,
    ("SGD", "Adam", "AdamW", "clip_grad_norm", "constant", "step_decay", "cosine", "warm_up",
     "decay_groups"),
    {
        "clip_grad_norm_": "optim.clip_grad_norm",
        "lr_scheduler": "a schedule, such as optim.cosine(lr, steps), and optimizer.lr = "
        "schedule(step)",
    },
)  # fmt: skip
