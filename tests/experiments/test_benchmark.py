"""The benchmark: what it times, how it compares, its targets and its command line."""

import dataclasses
import json
import math
import re
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarking import machine, memory, others, targets, timing
from experiments.benchmarking.cases import Case, Disagreement, Step, contend, stages
from experiments.benchmarking.timing import Contender, Ratio, Times, in_turn
from experiments.training.command_line import UsageError
from experiments.training.loop import cores
from minibn.backend import to_numpy

SMALL = Case("vgg11", batch=4, width=0.0625)


def main(*arguments: Any) -> int:
    return benchmark.main([str(a) for a in arguments])


# -- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """(the JSON, what was printed) of a quick run of all parts without PyTorch."""
    import contextlib
    import io

    path = tmp_path_factory.mktemp("benchmark") / "found.json"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(benchmark, "pytorch_side", lambda backend: None)
        patch.setattr(others, "find_libraries", dict)
        patch.setattr(timing, "PAUSE", 0.0)
        assert main("--quick", "--threads", 1, "--json", path) == 0
    return json.loads(path.read_text()), out.getvalue()


def test_a_run_without_pytorch_says_so_and_times_ours(run) -> None:
    record, text = run
    assert "PyTorch is not installed, so ours are timed alone." in text
    assert [step["case"]["variant"] for step in record["steps"]] == [
        "batchnorm", "standard", "noisy-batchnorm"
    ]  # fmt: skip
    for step in record["steps"]:
        assert list(step["times"]) == ["minibn"] and step["ratio"] is None
        assert len(step["times"]["minibn"]["rounds_ms"]) == 1


def test_every_part_is_in_the_json_and_in_the_text(run) -> None:
    record, text = run
    for name, (title, _) in benchmark.PARTS["numpy"].items():
        assert record[name] and f"## {title}" in text
    assert record["header"]["threads"] == 1 and record["header"]["commit"]
    assert record["targets"] == []  # tiny sizes show nothing


def test_every_layer_has_a_forward_and_a_backward_time(run) -> None:
    record, _ = run
    assert [layer["layer"].split()[0] for layer in record["layers"]] == [
        f"conv{i}" for i in range(1, 9)
    ]
    times = record["layers"][0]["times"]["minibn"]
    assert times["median_ms"] == pytest.approx(
        times["forward"]["median_ms"] + times["backward"]["median_ms"]
    )


def test_the_profile_is_that_of_a_whole_step(run) -> None:
    record, text = run
    rows = {(row["name"], row["phase"]): row for row in record["profile"]["rows"]}
    assert ("SGD.step", "") in rows
    assert any(phase == "backward" for _, phase in rows)
    assert sum(row["ms"] for row in rows.values()) <= record["profile"]["elapsed_ms"]
    assert "(outside of ops)" in text


def test_the_shares_follow_from_the_counts_and_the_measured_rates(run) -> None:
    record, _ = run
    step = record["steps"][0]
    flops = step["direct_flop"] / (step["times"]["minibn"]["median_ms"] / 1000)
    expected = flops / record["machine"]["product_flops"]["fp32"]
    assert step["share_of_product_rate"] == pytest.approx(expected)


# -- with PyTorch


def test_pytorchs_steps_start_from_our_loss_and_stay_near_it() -> None:
    pytorch = pytorch_side()
    for variant in ("batchnorm", "standard"):
        case = dataclasses.replace(SMALL, variant=variant)
        steps, _ = contend(case, pytorch)
        for _ in range(2):
            losses = [step() for step in steps.values()]
            assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_pytorchs_noise_is_drawn_from_the_distributions_of_ours() -> None:
    pytorch = pytorch_side()
    from minibn import nn

    ours = nn.Noise().initialize(0)
    x = np.full((64, 16, 16, 32), 2.0, np.float32)
    theirs = pytorch.Noise(ours)
    for layout in pytorch.LAYOUTS:
        y = theirs(pytorch.images(x, layout)).permute(0, 2, 3, 1).numpy()
        z = to_numpy(ours(x))
        # Within a channel: the spread of 2s + m, so (2 r_sigma)² + r_mu² / 3. Across channels: of
        # 2 sigma_j + mu_j, from two uniforms.
        for draws in (y, z):
            assert draws.var(axis=(0, 1, 2)).mean() == pytest.approx(0.04 + 0.01 / 3, rel=0.02)
            between = draws.mean(axis=(0, 1, 2))
            assert between.min() > 1.49 and between.max() < 3.01 and between.std() > 0.15
        assert not np.array_equal(y, theirs(pytorch.images(x, layout)).permute(0, 2, 3, 1).numpy())


def pytorch_side() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    torch.set_num_threads(1)
    return benchmark.pytorch_side()


def test_a_rival_with_another_loss_is_not_timed() -> None:
    class Other:
        def __init__(self, case: Case, layout: str, network: Any) -> None:
            self.loss = Step(case, network=network).quiet_loss()

        def quiet_loss(self) -> float:
            return self.loss * 1.001

    pytorch = types.SimpleNamespace(LAYOUTS=["nchw"], Step=Other)
    with pytest.raises(Disagreement, match=r"vgg11 batchnorm, batch 4.*losses differ"):
        contend(SMALL, pytorch)


def test_a_rival_whose_loss_is_not_a_number_is_not_timed() -> None:
    class Broken:
        def __init__(self, *_: Any) -> None: ...

        def quiet_loss(self) -> float:
            return math.nan

    with pytest.raises(Disagreement):
        contend(SMALL, types.SimpleNamespace(LAYOUTS=["nchw"], Step=Broken))


# -- what is timed


def test_the_stages_are_the_networks_modules_up_to_the_flattening() -> None:
    network = SMALL.network()
    parts = [part for _, stage in stages(network) for part in stage.children()]
    assert parts == list(network.children())[: len(parts)]
    assert [name for name, _ in network.children()][len(parts)] == "flatten"


def test_the_direct_count_is_that_of_the_convolutions() -> None:
    assert machine.cost(Case("vgg16")).flop == pytest.approx(241e9, rel=0.01)
    assert machine.cost(Case("vgg11")).flop == pytest.approx(117e9, rel=0.01)
    # One set of VGG-16's convolution outputs is 142 MB.
    assert machine.cost(Case("vgg16")).bytes == pytest.approx(12 * 142e6, rel=0.01)


def test_noise_is_off_where_losses_are_compared_and_on_again_behind_it() -> None:
    step = Step(dataclasses.replace(SMALL, variant="noisy-batchnorm"))
    assert step.quiet_loss() == step.quiet_loss()
    assert step.quiet_loss() != step()


def test_the_peak_of_a_larger_batch_is_higher() -> None:
    low, high = (
        memory.peak(dataclasses.replace(SMALL, batch=n), "fast", 1)["step"] for n in (8, 128)
    )
    outputs = machine.cost(dataclasses.replace(SMALL, batch=128)).bytes / 12
    assert high > max(low, outputs)


def test_a_measuring_process_that_fails_is_told_in_its_last_line() -> None:
    with pytest.raises(memory.ChildFailed, match=r"process failed: ZeroDivisionError"):
        memory.child("-c", "1 / 0")


# -- how it is timed


def test_contenders_take_turns_and_the_warm_up_is_not_counted(monkeypatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    order = []

    def contender(name: str) -> Contender:
        def run() -> dict[str, float]:
            order.append(name)
            return {"forward": float(len(order)), "backward": 1.0}

        return Contender(name, run)

    found = in_turn([contender("a"), contender("b")], rounds=2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found["a"]["forward"].seconds == (4.0, 5.0)
    assert found["b"]["total"].seconds == (4.0, 7.0)


def test_the_ratio_is_to_the_better_rival() -> None:
    ours, slow, fast = Times((1.0, 3.0, 2.0)), Times((9.0, 9.0, 9.0)), Times((2.0, 3.0, 8.0))
    ratio = Ratio.to_best(ours, {"slow": slow, "fast": fast})
    assert ratio == Ratio("fast", medians=2 / 3, paired=0.5)
    assert Ratio.to_best(ours, {}) is None


def test_times_tell_their_median_and_quartiles() -> None:
    assert str(Times((0.2, 0.4, 0.3, 0.1, 0.5))) == "300 (200-400)"
    assert Times((0.2,)).quartiles == (0.2, 0.2)


def test_other_processes_that_take_the_cores_are_noticed() -> None:
    watch = machine.Bystanders()
    if watch.share() is None:
        pytest.skip("the system does not tell (no /proc/stat)")
    spin = "import time\nend = time.time() + 0.5\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as other:
        time.sleep(0.4)
        taken = watch.share()
    assert other.returncode == 0 and 0.5 * 0.3 / cores() < taken <= 1


def test_this_process_is_no_bystander(monkeypatch) -> None:
    seconds = iter([(0.0, 0.0, 0.0), (10.0, 8.0, 7.5)])
    monkeypatch.setattr(machine, "_cpu_seconds", lambda: next(seconds))
    assert machine.Bystanders().share() == pytest.approx(0.05)


# -- targets


def step(model: str, variant: str, batch: int, ratio: float) -> dict[str, Any]:
    return {
        "case": vars(Case(model, variant, batch)),
        "ratio": {"rival": "PyTorch nchw", "medians": ratio, "paired": ratio},
    }


@pytest.mark.parametrize(
    ("model", "variant", "batch", "ratio", "verdict"),
    [
        ("vgg16", "batchnorm", 128, 0.5, "reached, and the aim"),
        ("vgg16", "standard", 128, 0.6, "reached, not the aim"),
        ("vgg16", "batchnorm", 128, 0.715, "missed by 10%"),
        ("vgg11", "batchnorm", 128, 0.7, "reached, not the aim"),
        ("vgg16", "noisy-batchnorm", 128, 0.8, "reached"),
        ("vgg16", "batchnorm", 16, 0.81, "reached, not the aim"),
    ],
)
def test_a_step_is_judged_by_its_own_target(model, variant, batch, ratio, verdict) -> None:
    (found,) = targets.verdicts({"steps": [step(model, variant, batch, ratio)]})
    assert str(found) == verdict


def test_memory_start_up_and_the_time_per_image_are_judged() -> None:
    peaks = {"minibn fast": 110, "minibn lean": 90, "PyTorch nchw": 100, "PyTorch x": 80}
    record = {
        "memory": [
            {"case": vars(Case("vgg16")), "bytes": {k: {"step": v} for k, v in peaks.items()}}
        ],
        "scaling": {
            "batch": [
                {"case": {"batch": n}, "times": {"minibn": {"median_ms": n * per_image}}}
                for n, per_image in ((16, 9.0), (32, 2.0), (64, 2.5), (128, 1.0))
            ]
        },
        "startup": {"import minibn": {"median_ms": 100.0}},
    }
    found = {v.what: (v.found, str(v)) for v in targets.verdicts(record)}
    assert [value for value, _ in found.values()] == [110 / 80, 90 / 80, 1.25, 0.1]
    assert [text for _, text in found.values()] == [
        "missed by 15%", "reached", "missed by 9%", "reached"
    ]  # fmt: skip


# -- the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "step"], r"--parts 'step' is unknown\. Did you mean 'steps'\?"),
        (["--models", "vgg12"], r"--models 'vgg12' is unknown"),
        (["--variants", "bachnorm"], r"--variants 'bachnorm' is unknown"),
        (["--rounds", "0"], r"--rounds 0 must be at least 1"),
        (["--batch", "1"], r"--batch 1 must be at least 2"),
        (["--threads", "0"], r"--threads 0 must be at least 1"),
        (["--width", "0.001"], r"width=0\.001 leaves 64·0\.001 < 1 channels"),
        (["--json", "no/such/folder/found.json"], r"--json .* a folder that exists"),
        (["--round", "3"], r"unknown argument '--round'\. Did you mean '--rounds'\?"),
    ],
)
def test_an_option_that_can_not_work_ends_in_one_line(arguments, message, capsys) -> None:
    assert main(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_the_defaults_are_the_issues() -> None:
    options = benchmark.Options()
    assert options.rounds >= 7 and options.batch == (128, 16) and options.width == 1
    assert set(options.models) == {"vgg16", "vgg11"}
    assert set(options.variants) == {"batchnorm", "standard", "noisy-batchnorm"}
    benchmark.check(options)
    with pytest.raises(UsageError):
        benchmark.check(dataclasses.replace(options, json=str(Path.cwd())))
