"""Metrics of claims with an entry a layer: moments, quantiles, covariate shift."""

from pathlib import Path

import numpy as np
import pytest
from claim_studies import add_run, judge, named, study, trace

from experiments.claiming import layers, rules
from experiments.claiming.evidence import Missing


def moments(place: str, unit: int, means: dict[int, float], var: float = 4.0) -> list[dict]:
    return [
        {"step": t, "layer": 1, "unit": unit, "place": place, "mean": m, "var": var}
        for t, m in means.items()
    ]


def test_drift_is_the_median_over_units_and_successive_steps(tmp_path: Path) -> None:
    records = [
        *moments("activation", 0, {0: 0.0, 1: 1.0, 5: 7.0, 6: 4.0}),
        *moments("activation", 3, {0: 0.0, 1: -2.0}),
        *moments("norm_input", 0, {0: 0.0, 1: 10.0}),
    ]
    bn = trace(tmp_path / "bn", norm="batch", distributions=records)
    std = trace(tmp_path / "std", "standard", distributions=records)
    # layer 2 of 13 lies as deep as the first of 8
    assert layers.drift("mean", "activation", 0, 10, [2]).of(bn) == pytest.approx([2.0])
    assert layers.drift("mean", "activation", 0, 2, [2]).of(bn) == pytest.approx([1.5])
    assert layers.drift("mean", "norm_input", 0, 10, [2]).of(bn) == pytest.approx([10.0])
    assert layers.drift("mean", "norm_input", 0, 10, [2]).of(std) == pytest.approx([2.0])
    relative = layers.drift("mean", "activation", 0, 10, [2], relative=True)
    assert relative.of(bn) == pytest.approx([1.0])
    with pytest.raises(Missing, match="no two successive steps"):
        layers.drift("mean", "activation", 5, 6, [2]).of(bn)


def test_noisy_batchnorm_is_less_stable_than_batchnorm_in_its_own_sd_and_in_variance(
    tmp_path: Path,
) -> None:
    made = study(tmp_path / "s", steps=2000)
    for variant, sd in (("batchnorm", 1.0), ("noisy-batchnorm", 10.0)):
        records = []
        for layer in (1, 6, 8):  # of 8, as deep as 2, 9 and 13 of 13
            for step, mean, var in ((600, 0.0, sd**2), (601, sd, 2 * sd**2)):
                at = {"step": step, "layer": layer, "unit": 0, "place": "activation"}
                records.append({**at, "mean": mean, "var": var})
        add_run(made, variant, norm="batch", steps=2000, distributions=records)
    for what, quotient_of_drifts in (("", 10), ("-relative", 1), ("-variance", 100)):
        values = judge(named(f"noisy-bn-less-stable-than-bn{what}"), made).values
        assert values == pytest.approx({0: quotient_of_drifts})


def test_quantiles_are_compared_a_hundred_steps_apart_in_standard_deviations(
    tmp_path: Path,
) -> None:
    records = moments("activation", 0, {0: 0.0, 1: 0.0, 50: 0.0, 100: 0.0})
    for record, q in zip(records, (0.0, 50.0, 60.0, 6.0), strict=True):
        record["quantiles"] = [q] * 7
    run = trace(tmp_path / "s", steps=200, distributions=records)
    assert layers.quantile_change(0, 200, [2]).of(run) == pytest.approx([3.0])
    assert layers.moment("sd", 0, 200, [2]).of(run) == pytest.approx([2.0])


def test_quantiles_of_the_norms_input_are_not_those_of_the_activation(tmp_path: Path) -> None:
    records = []
    for place, by in (("activation", 2.0), ("norm_input", 4.0)):
        for record in moments(place, 0, {0: 0.0, 100: 0.0}):
            records.append({**record, "quantiles": [by * (record["step"] == 100)] * 7})
    bn = trace(tmp_path / "bn", norm="batch", steps=200, distributions=records)
    assert layers.quantile_change(0, 200, [2]).of(bn) == pytest.approx([1])
    assert layers.quantile_change(0, 200, [2], "norm_input").of(bn) == pytest.approx([2])
    std = trace(tmp_path / "std", "standard", steps=200, distributions=records)
    assert layers.quantile_change(0, 200, [2], "norm_input").of(std) == pytest.approx([1])


def test_on_its_own_scale_a_distribution_that_is_moved_and_stretched_has_not_changed(
    tmp_path: Path,
) -> None:
    first, second = moments("activation", 0, {0: 0.0, 100: 10.0})
    normal = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    first["quantiles"] = (2 * normal).tolist()
    same = {**second, "var": 100.0, "quantiles": (10 + 10 * normal).tolist()}
    bent = {**second, "quantiles": (10 + 2 * normal + 2).tolist()}
    change = layers.quantile_change(0, 200, [2], own_scale=True)
    for name, then, changed in (("same", same, 0), ("bent", bent, 1)):
        run = trace(tmp_path / name, steps=200, distributions=[first, then])
        assert change.of(run) == pytest.approx([changed])
        assert layers.quantile_change(0, 200, [2]).of(run)[0] > 4


def test_shift_is_read_at_the_layer_that_lies_as_deep(tmp_path: Path) -> None:
    shifts = [
        {"step": 0, "layer": k, "l2": float(k), "relative": 0.1, "cosine": c, "std": 2.0,
         "wasserstein": 1.0}
        for k, c in ((3, 0.5), (6, None))
    ]  # fmt: skip
    run = trace(tmp_path / "s", shift=shifts)
    assert layers.shift("l2", 0, 1, (5, 10)).of(run) == pytest.approx([3, 6])
    assert layers.shift("wasserstein", 0, 1, (5,)).of(run) == pytest.approx([0.5])
    assert layers.shift("cosine", 0, 1, (5, 10)).of(run)[0] == 0.5
    assert np.isnan(layers.shift("cosine", 0, 1, (5, 10)).of(run)[1])


@pytest.mark.parametrize(
    ("cosines", "parallel", "uncorrelated"),
    [
        ((0.9, -0.9), "contradicted", "contradicted"),
        ((-0.95, -0.95), "contradicted", "contradicted"),
        ((0.2, -0.1), "contradicted", "reproduced"),
        ((0.99, 0.97), "reproduced", "contradicted"),
        ((0.99, 0.7), "undecided", "contradicted"),
    ],
)
def test_layers_of_opposite_signs_are_neither_parallel_nor_uncorrelated(
    cosines: tuple[float, float], parallel: str, uncorrelated: str
) -> None:
    for id, word in (("dln-std-without-ics", parallel), ("dln-bn-uncorrelated", uncorrelated)):
        what = named(id)
        x = float(what.metric.fold(np.array(cosines)))
        assert rules.judge(what.rule, {0: x, 1: x}, {}).word == word
