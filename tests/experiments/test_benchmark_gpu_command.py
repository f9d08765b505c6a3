"""The benchmark on a GPU: its targets and its command line."""

import errno
import os
import re
from typing import Any

import pytest

from experiments import benchmark
from experiments.benchmarking import targets
from experiments.benchmarking.cases import Case
from minibn.errors import BackendUnavailable

PARTS = ("machine", "steps", "precision", "kernels", "profile", "compiled", "memory")


def main(*arguments: Any) -> int:
    return benchmark.main([str(a) for a in arguments])


# -- targets


def step(part: str, ratio: float, **case: Any) -> dict[str, Any]:
    return {
        part: [
            {
                "case": vars(Case("vgg16", precision="tf32", **case)),
                "ratio": {"rival": "PyTorch eager", "medians": ratio, "paired": ratio},
            }
        ]
    }


@pytest.mark.parametrize(
    ("part", "batch", "ratio", "verdict"),
    [
        ("steps", 128, 0.7, "reached, and the aim"),
        ("steps", 512, 0.9, "reached, not the aim"),
        ("steps", 128, 1.1, "missed by 10%"),
        ("compiled", 128, 1.3, "reached"),
        ("compiled", 512, 1.43, "missed by 10%"),
    ],
)
def test_a_step_on_a_gpu_is_judged_by_its_rival(part, batch, ratio, verdict) -> None:
    (found,) = targets.gpu_verdicts(step(part, ratio, batch=batch))
    assert str(found) == verdict and "over PyTorch eager" in found.what


def test_other_batches_widths_and_precisions_are_not_judged() -> None:
    record = step("steps", 0.5, batch=2048)
    assert not list(targets.gpu_verdicts(record))
    assert not list(targets.gpu_verdicts(step("steps", 0.5, batch=128, width=0.5)))
    record = step("steps", 0.5, batch=128)
    record["steps"][0]["case"]["precision"] = "fp32"
    assert not list(targets.gpu_verdicts(record))


def test_the_large_batch_must_train_in_its_memory() -> None:
    peaks = {"minibn eager": {"peak": 110e9}, "minibn lean": {"peak": 90e9}, "PyTorch eager": {}}
    record = {"memory": [{"case": vars(Case("vgg16", batch=8192)), "bytes": peaks}]}
    assert [str(v) for v in targets.gpu_verdicts(record)] == ["missed by 10%", "reached"]


# -- the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "cuda"], r"--backend 'cuda' is unknown"),
        (["--backend", "strict", "--parts", "layers"], r"--parts 'layers' is unknown"),
        (["--backend", "strict", "--precision", "fp16"], r"--precision 'fp16' is unknown"),
        (["--precision", "bf16"], r"--precision bf16 is for a GPU\. Add --backend cupy"),
        (["--backend", "strict", "--batch", "1"], r"--batch 1 must be at least 2"),
    ],
)
def test_an_option_that_can_not_work_ends_in_one_line(arguments, message, capsys) -> None:
    assert main(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)


def test_without_a_gpu_the_command_says_what_is_missing(monkeypatch, capsys) -> None:
    def missing(name: str) -> None:
        raise BackendUnavailable("backend 'cupy': no CUDA device. Make one visible")

    monkeypatch.setattr(benchmark, "use", missing)
    monkeypatch.setattr(benchmark, "pytorch_side", lambda backend: None)
    assert main("--backend", "cupy") == 2
    assert capsys.readouterr().err.endswith("no CUDA device. Make one visible\n")


def test_the_defaults_on_a_gpu_are_the_issues(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        benchmark, "measure", lambda options: seen.append(options) or {"left_out": []}
    )
    assert main("--backend", "cupy") == 0
    (options,) = seen
    assert options.batch == (128, 512, 2048) and options.precision == "tf32"
    assert options.parts == PARTS and set(options.models) == {"vgg16", "vgg11"}
    assert main() == 0
    assert seen[1] == benchmark.Options()


def test_a_json_that_can_not_be_written_is_one_line(tmp_path, monkeypatch, capsys) -> None:
    def full(path, record):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(benchmark, "write_json", full)
    given = ("--backend", "strict", "--quick", "--parts", "machine", "--threads", 1)
    assert main(*given, "--json", tmp_path / "found.json") == 2
    said = capsys.readouterr().err
    assert "found.json can't be written: No space left" in said and "name another file" in said
    assert said.count("\n") == 1
