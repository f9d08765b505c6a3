"""Which tile is fastest for each product of a training step: what `products.plan` only estimates.

Each convolution and matrix product of a step is three products (M, K) · (K, N), and each of them is
computed by a plan: a tile, and the parts that K is split into. Here all plans that the estimate
chooses between are timed, and the best is printed beside the one chosen, as a line for
`products.TUNED_PLANS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

import minibn
from experiments.benchmarking.device import Device
from experiments.gpu.choices import Call, calls_of, candidates, time_call
from experiments.output import say, say_table
from experiments.vgg.settings import Settings
from minibn.fast.cuda import products
from minibn.fast.cuda.products import Plan, Sizes
from minibn.fast.precision import MANTISSA
from minibn.ops.conv import Conv2d
from minibn.ops.linalg import MatMul


def sizes_of(device: Device, call: Call, way: Any) -> list[Sizes]:
    """The sizes for which a call requests a plan: forward, then in the vjp."""
    asked: list[Sizes] = []
    plan = products.plan

    def spy(*sizes: Any) -> Plan:
        asked.append(sizes)
        return plan(*sizes)

    products.problem.cache_clear()
    with patch.object(products, "plan", spy):
        time_call(device, call, way, repeats=1)
    return list(dict.fromkeys(asked))


def compare_plans(device: Device, settings: Settings, batch: int) -> Iterator[dict[str, Any]]:
    """Yields the growing record after each call. Prints a table at the end."""
    record: dict[str, Any] = {"batch": batch, "products": []}
    yield record  # without CUDA kernels there are no products
    rows, lines, seen = [], [], set()
    calls = [c for c in calls_of(settings, batch) if isinstance(c.op, (Conv2d, MatMul))]
    for call in calls:
        for digits in MANTISSA:
            with minibn.precision(digits), minibn.no_grad():
                ways = dict(candidates(device, call))
                way = ways.get("TiledConv2d", ways.get("TiledMatMul"))
                if way is None:
                    continue
                for sizes in sizes_of(device, call, way):
                    if sizes in seen:
                        continue
                    seen.add(sizes)
                    chosen, ms = products.plan(*sizes), {}
                    for plan in products.plans(*sizes):
                        with products.use_plans({sizes[:4]: plan}):
                            took = time_call(device, call, way)
                        if isinstance(took, dict):
                            ms[plan] = sum(took.values())
                    if chosen not in ms:
                        continue
                    best = min(ms, key=lambda plan: ms[plan])
                    record["products"].append(
                        {"sizes": sizes[:4], "chosen": asdict(chosen), "best": asdict(best),
                         "ms": [{**asdict(plan), "ms": t} for plan, t in ms.items()]}
                    )  # fmt: skip
                    rows.append([*sizes[:4], f"{ms[chosen]:.3f}", f"{ms[best]:.3f}"])
                    if ms[best] < 0.97 * ms[chosen]:
                        lines.append(f"    {sizes[:4]}: {best},")
            device.tidy()
            yield record
    if rows:
        head = ["M", "N", "K", "", "call, ms: chosen", "with the best"]
        say_table(head, rows)
        say("\nFor products.TUNED_PLANS:\n" + "\n".join(lines))
