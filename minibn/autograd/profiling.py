"""`profile`: where the time goes, by op and kernel, in the forward and in the backward pass.

    with minibn.profile() as p:
        loss = ops.softmax_cross_entropy(model(images), labels)
        loss.backward()
    print(p)

Ops nest: a definition's vjp is written with ops, so a convolution's backward pass runs products and
paddings inside. A row's `ms` excludes the time of nested ops, so the rows add up to the time in
ops. `inclusive_ms` includes them.

GPU kernels run asynchronously, so the device is synchronized before and after each op. That makes
the parts right and the whole slower than without a profile; on NumPy an op costs some 4 µs more.
Without a profile an op costs one lookup of the current observers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minibn.autograd import observers
from minibn.autograd.observers import Call, Observer, observe_with, source_of
from minibn.backend import Backend, backend_of, get_backend
from minibn.setting import Setting

OUTSIDE = "(outside of ops)"  # Python, the tape, the optimizer, draws, data


@dataclass(frozen=True)
class Row:
    """The measurements of one op in one phase.

    name          the op's class, with the kernel that ran in its place: "Conv2d (WinogradConv)"
    phase         "forward"; "backward" for a vjp and the ops nested in it; "" for a `part`
    ms            milliseconds without nested ops
    inclusive_ms  milliseconds with them
    share         `ms` as a share of the profile's elapsed time
    bytes         the size of its results, also of views
    file          of the definition or the kernel that ran; "" for a `part`
    """

    name: str
    phase: str
    calls: int
    ms: float
    inclusive_ms: float
    share: float
    bytes: int
    file: str


@dataclass
class _Sum:
    """The running totals of one row: calls, seconds, bytes."""

    calls: int = 0
    own: float = 0.0
    inclusive: float = 0.0
    bytes: int = 0
    file: str = ""


class _Frame:
    """An op that is running, or a part."""

    __slots__ = ("bytes", "file", "inside", "key")

    def __init__(self, key: tuple[str, str], file: str) -> None:
        self.key = key  # (name, phase)
        self.file = file
        self.inside = 0.0  # seconds of the frames directly inside it
        self.bytes = 0


_frames: Setting[tuple[_Frame, ...]] = Setting("profile_frames", ())  # running, outermost first


class Profile(Observer):
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
        """One row per op, kernel and phase; the slowest first."""
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
                found.file,
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
            f"{'share':>6}  {'MB':>8}  file"
        ]
        lines += [
            f"{row.name:<{width}}  {row.phase:<8}  {row.calls:6}  {row.ms:9.2f}  "
            f"{row.inclusive_ms:10.2f}  {row.share:6.1%}  {row.bytes / 1e6:8.1f}  {row.file}"
            for row in rows
        ]
        rest = f"{'':<8}  {'':>6}  {outside:9.2f}  {'':>10}  {outside / elapsed:6.1%}"
        total = f"{'':<8}  {sum(row.calls for row in rows):6}  {elapsed:9.2f}"
        return "\n".join([*lines, f"{OUTSIDE:<{width}}  {rest}", f"{'elapsed':<{width}}  {total}"])

    def wrap(self, call: Call, op: Any, run: Any, node: Any) -> Call:
        """`call`, timed. The outermost profile measures for all nested ones."""
        if _profiles()[0] is not self:
            return call
        phase = "forward" if node is None else "backward"
        name = type(op).__name__ + ("" if run is op else f" ({type(run).__name__})")

        def timed(*args: Any) -> Any:
            # A vjp's first argument is the cotangent; those behind it may be `Absent`.
            backend = backend_of(*(args if node is None else args[:1]))
            with _frame(name, phase, backend, source_of(run)) as frame:
                result = call(*args)
                frame.bytes = sum(map(_bytes, result if isinstance(result, tuple) else (result,)))
            return result

        return timed

    def count(self, frame: _Frame, seconds: float, nested: bool) -> None:
        """Add what ran in this frame."""
        found = self._sums.setdefault(frame.key, _Sum(file=frame.file))
        found.calls += 1
        found.own += seconds - frame.inside
        found.inclusive += 0.0 if nested else seconds
        found.bytes += frame.bytes


def _profiles() -> list[Profile]:
    return [observer for observer in observers.current() if isinstance(observer, Profile)]


@contextmanager
def profile() -> Iterator[Profile]:
    """Context manager: time every op that this thread or task runs. Read it inside or afterwards.

    Profiles may nest: each counts all ops inside it. Work of a kernel on other threads counts for
    the op that waits for it; ops of threads that you start yourself are not counted.

    >>> import minibn
    >>> x = minibn.Tensor([[3.0, 4.0]], requires_grad=True)
    >>> with profile() as p:
    ...     (x @ x.T).sum().backward()
    >>> sorted((row.phase, row.calls) for row in p.rows if row.name == "MatMul")
    [('backward', 1), ('forward', 1)]
    """
    found = Profile()
    try:
        with observe_with(found):
            yield found
    finally:
        found._ended = time.perf_counter()


@contextmanager
def _frame(name: str, phase: str, backend: Backend, file: str = "") -> Iterator[_Frame]:
    frames = _frames.get()
    if frames and frames[-1].key[1] == "backward":
        phase = "backward"  # an op inside a vjp
    frame = _Frame((name, phase), file)
    backend.synchronize()
    began = time.perf_counter()
    try:
        with _frames.override((*frames, frame)):
            yield frame
    finally:
        backend.synchronize()
        seconds = time.perf_counter() - began
        if frames:
            frames[-1].inside += seconds
        nested = any(outer.key == frame.key for outer in frames)
        for found in _profiles():
            found.count(frame, seconds, nested)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Context manager: time outside of ops, such as an optimizer's step, is counted in a row of
    this name. Without an active profile it does nothing."""
    if not _profiles():
        yield
        return
    with _frame(name, "", get_backend()):
        yield


def _bytes(x: Any) -> int:
    return getattr(x.data if hasattr(x, "__minibn_tensor__") else x, "nbytes", 0)
