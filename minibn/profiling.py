"""`profile`: where the time goes, by op and kernel, in the forward and in the backward pass.

    with minibn.profile() as p:
        loss = ops.softmax_cross_entropy(model(images), labels)
        loss.backward()
    print(p)

Ops nest: a definition's vjp is written with ops, so a convolution's backward pass runs products and
paddings inside. A row's `ms` is its own time, without the ops inside it: every moment is counted
once, and the rows add up to the time in ops. `inclusive_ms` has the ops inside too.

A device computes on after a call has returned, so the clock waits for it before and after each op.
That makes the parts right and the whole slower than without a profile; on NumPy an op costs some
4 µs more. Where no profile is active, an op costs one look at a thread's variable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minibn.backend import Backend, backend_of, get_backend

if TYPE_CHECKING:
    from minibn.backend.kernels import Kernel
    from minibn.tape import Op

OUTSIDE = "(outside of ops)"  # Python, the tape, the optimizer, draws, data


@dataclass(frozen=True)
class Row:
    """What a profile says of one op in one pass.

    name          the op's class, with the kernel that ran in its place: "Conv2d (WinogradConv)"
    phase         "forward"; or "backward", which is a vjp and all that ran inside one; "" for a
                  `part`
    ms            its own milliseconds
    inclusive_ms  with the ops that ran inside it
    share         `ms` as a share of the profile's elapsed time
    bytes         the size of its results, those of a view included
    """

    name: str
    phase: str
    calls: int
    ms: float
    inclusive_ms: float
    share: float
    bytes: int


@dataclass
class _Sum:
    """What has been counted for one row: calls, seconds, bytes."""

    calls: int = 0
    own: float = 0.0
    inclusive: float = 0.0
    bytes: int = 0


class _Frame:
    """An op that is running, or a part."""

    __slots__ = ("bytes", "inside", "key")

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key  # (name, phase)
        self.inside = 0.0  # seconds of the frames directly inside it
        self.bytes = 0


class _State(threading.local):
    def __init__(self) -> None:
        self.profiles: list[Profile] = []  # the active ones, outermost first
        self.frames: list[_Frame] = []  # what is running, outermost first


_state = _State()


class Profile:
    """What `profile` measured: `rows`, `ops_ms`, `elapsed_ms`, and a table as its `str`."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], _Sum] = {}
        self._began = time.perf_counter()
        self._ended: float | None = None

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds from the start of the `with` block to its end, or until now."""
        ended = time.perf_counter() if self._ended is None else self._ended
        return 1000 * (ended - self._began)

    @property
    def ops_ms(self) -> float:
        """Milliseconds in ops and parts: the sum of the rows' `ms`."""
        return 1000 * sum(found.own for found in self._sums.values())

    @property
    def rows(self) -> list[Row]:
        """One row per op, kernel and pass; the dearest first."""
        elapsed = self.elapsed_ms
        rows = [
            Row(
                name,
                phase,
                found.calls,
                1000 * found.own,
                1000 * found.inclusive,
                1000 * found.own / elapsed,
                found.bytes,
            )
            for (name, phase), found in self._sums.items()
        ]
        return sorted(rows, key=lambda row: -row.ms)

    def __str__(self) -> str:
        rows, elapsed = self.rows, self.elapsed_ms
        outside = elapsed - sum(row.ms for row in rows)
        width = max(len(OUTSIDE), *(len(row.name) for row in rows), 0)
        lines = [
            f"{'op':<{width}}  {'pass':<8}  {'calls':>6}  {'ms':>9}  {'with inner':>10}  "
            f"{'share':>6}  {'MB':>8}"
        ]
        lines += [
            f"{row.name:<{width}}  {row.phase:<8}  {row.calls:6}  {row.ms:9.2f}  "
            f"{row.inclusive_ms:10.2f}  {row.share:6.1%}  {row.bytes / 1e6:8.1f}"
            for row in rows
        ]
        rest = f"{'':<8}  {'':>6}  {outside:9.2f}  {'':>10}  {outside / elapsed:6.1%}"
        total = f"{'':<8}  {sum(row.calls for row in rows):6}  {elapsed:9.2f}"
        return "\n".join([*lines, f"{OUTSIDE:<{width}}  {rest}", f"{'elapsed':<{width}}  {total}"])

    def _count(self, frame: _Frame, seconds: float, nested: bool) -> None:
        found = self._sums.setdefault(frame.key, _Sum())
        found.calls += 1
        found.own += seconds - frame.inside
        found.inclusive += 0.0 if nested else seconds
        found.bytes += frame.bytes


def active() -> bool:
    """Whether a profile is being taken in this thread."""
    return bool(_state.profiles)


@contextmanager
def profile() -> Iterator[Profile]:
    """Inside, every op that this thread runs is timed; the profile can be read during and after.

    Profiles may nest: each counts all ops inside it. What a kernel does on other threads belongs to
    the op that waits for it; ops of threads that you start yourself are not seen.

    >>> import minibn
    >>> x = minibn.Tensor([[3.0, 4.0]], requires_grad=True)
    >>> with profile() as p:
    ...     (x @ x.T).sum().backward()
    >>> sorted((row.phase, row.calls) for row in p.rows if row.name == "MatMul")
    [('backward', 1), ('forward', 1)]
    """
    found = Profile()
    _state.profiles.append(found)
    try:
        yield found
    finally:
        found._ended = time.perf_counter()
        _state.profiles.remove(found)


@contextmanager
def _frame(name: str, phase: str, backend: Backend) -> Iterator[_Frame]:
    frames = _state.frames
    if frames and frames[-1].key[1] == "backward":
        phase = "backward"  # an op inside a vjp
    frame = _Frame((name, phase))
    backend.synchronize()
    frames.append(frame)
    began = time.perf_counter()
    try:
        yield frame
    finally:
        backend.synchronize()
        seconds = time.perf_counter() - began
        frames.pop()
        if frames:
            frames[-1].inside += seconds
        nested = any(outer.key == frame.key for outer in frames)
        for found in _state.profiles:
            found._count(frame, seconds, nested)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Inside, time that belongs to no op is counted in a row of this name: an optimizer's step,
    say. Without an active profile it does nothing."""
    if not active():
        yield
        return
    with _frame(name, "", get_backend()):
        yield


def timed(op: Op, run: Op | Kernel, phase: str) -> Callable[..., Any]:
    """`run.forward`, or `run.vjp` in the phase "backward", timed. `run` is the op or its kernel."""
    function = run.forward if phase == "forward" else run.vjp
    name = type(op).__name__ + ("" if run is op else f" ({type(run).__name__})")

    def call(*args: Any) -> Any:
        # A vjp's first argument is the cotangent; those behind it may be `Absent`.
        backend = backend_of(*(args if phase == "forward" else args[:1]))
        with _frame(name, phase, backend) as frame:
            result = function(*args)
            frame.bytes = sum(map(_bytes, result if isinstance(result, tuple) else (result,)))
        return result

    return call


def _bytes(x: Any) -> int:
    return getattr(x.data if hasattr(x, "__minibn_tensor__") else x, "nbytes", 0)
