"""What strangers bring to check_vjp: containers, several outputs, scalars, complex numbers."""

import collections
import dataclasses
import functools
import itertools
import runpy

import numpy as np
import pytest

from minibn.testing import GradientError, Vacuous, check_vjp
from minibn.testing.containers import Mismatch, align, paths, rebuild
from minibn.testing.report import digits

rng = np.random.default_rng(0)
W, B, X = (rng.standard_normal(shape) for shape in ((3, 2), 2, (4, 3)))
Z = rng.standard_normal(3) + 1j * rng.standard_normal(3)
Linear = collections.namedtuple("Linear", "w b")


@dataclasses.dataclass(frozen=True)
class Layer:
    w: np.ndarray
    b: np.ndarray
    units: int = 2


MAKERS = {
    "dict": lambda w, b: {"w": w, "b": b, "units": 2, "mask": None},
    "ordered": lambda w, b: collections.OrderedDict(b=b, w=w),
    "named tuple": Linear,
    "dataclass": Layer,
}


def parts(p):
    return (p["w"], p["b"]) if isinstance(p, dict) else (p.w, p.b)


def affine(p, x):
    w, b = parts(p)
    return np.tanh(x @ w + b)


def affine_vjp(make, factor=1.0):
    def vjp(g, p, x):
        w, b = parts(p)
        d = g * (1 - np.tanh(x @ w + b) ** 2)
        return make(x.T @ d, factor * d.sum(0)), d @ w.T

    return vjp


# -- containers among the inputs


@pytest.mark.parametrize("kind", MAKERS)
def test_parameters_may_be_in_a_container_of_any_kind(kind):
    make = MAKERS[kind]
    report = check_vjp(affine, affine_vjp(make), make(W, B), X)
    assert report.passed and len(report.inputs) == 3
    with pytest.raises(GradientError, match="WRONG") as caught:
        check_vjp(affine, affine_vjp(make, 2.0), make(W, B), X)
    wrong = [entry.label for entry in caught.value.report.inputs if not entry.passed]
    assert wrong == ["input 0['b']" if isinstance(make(W, B), dict) else "input 0.b"]


def test_a_dataclass_may_get_its_gradient_as_a_dict_and_in_any_order():
    assert check_vjp(affine, affine_vjp(lambda w, b: {"b": b, "w": w}), Layer(W, B), X).passed


def test_lists_in_lists_are_named_by_their_path():
    def f(layers):
        y = X
        for layer in layers:
            y = np.tanh(y @ layer[0] + layer[1])
        return y

    def vjp(g, layers):
        (w1, b1), (w2, b2) = layers
        y = np.tanh(X @ w1 + b1)
        d2 = g * (1 - np.tanh(y @ w2 + b2) ** 2)
        d1 = d2 @ w2.T * (1 - y**2)
        return [(X.T @ d1, d1.sum(0)), [y.T @ d2, 3 * d2.sum(0)]]

    report = check_vjp(f, vjp, [[W, B], (W[:2], B + 1)], raises=False)
    assert [entry.label for entry in report.inputs] == [
        "input 0[0][0]", "input 0[0][1]", "input 0[1][0]", "input 0[1][1]"
    ]  # fmt: skip
    assert [entry.passed for entry in report.inputs] == [True, True, True, False]
    assert "gradient of input 0[1][1]" in report.screen
    assert report.line_of("input 0[1][1]").startswith("input 0[1][1]  (2,) float64: WRONG")


def test_the_function_gets_the_containers_and_settings_it_was_written_for():
    seen = []

    def f(p, labels, mask):
        seen.append((type(p), p["name"], p["units"], type(p["scale"]), labels, mask))
        return p["w"] * p["scale"]

    def vjp(g, p, labels, mask):
        return {"w": g * p["scale"], "scale": (g * p["w"]).sum()}, None, None

    p = collections.OrderedDict(w=W, name="layer", units=3, scale=2.5)
    labels = [1, 2, 3]
    assert check_vjp(f, vjp, p, labels, None, wrt=[0]).passed
    for kind, name, units, scale, given, mask in seen:
        assert kind is collections.OrderedDict and (name, units, mask) == ("layer", 3, None)
        assert scale in (float, complex) and given is labels


@pytest.mark.parametrize(
    "wrt", [[1], "x", "input 1", ["p['w']", "x"], ["w"], "p.w", "input 0['w']", [0, "x"]], ids=str
)
def test_what_is_differentiated_is_chosen_by_position_name_or_path(wrt):
    def f(p, x):
        return p["w"] * x

    def vjp(g, p, x):
        return {"w": g * x}, g * p["w"]

    names = {entry.label for entry in check_vjp(f, vjp, {"w": W}, W + 1, wrt=wrt).inputs}
    chosen = wrt if isinstance(wrt, list) else [wrt]
    expected = {"input 1" if c in (1, "x", "input 1") else "input 0['w']" for c in chosen}
    assert names == expected


def test_a_name_that_names_nothing_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'weigth' is no input. Did you mean 'weight'"):
        check_vjp(lambda p: p["weight"], lambda g, p: {"weight": g}, {"weight": W}, wrt="weigth")
    with pytest.raises(ValueError, match="named twice"):
        check_vjp(lambda p: p["w"], lambda g, p: {"w": g}, {"w": W}, wrt=["w", 0])


def test_a_gradient_may_be_declared_zero_by_its_name():
    def f(p):
        return (p["w"] + p["b"]) - (p["w"] + p["b"]).mean(0) + p["v"]

    def vjp(g, p):
        d = g - g.mean(0)
        return {"w": d, "b": d.sum(0), "v": 1 * g}

    p = {"w": X, "b": X[0], "v": X + 1}
    assert check_vjp(f, vjp, p, zero_gradient=["b"]).line_of("input 0['b']").count("zero, as decl")
    with pytest.raises(Vacuous):
        check_vjp(f, vjp, p)


def test_arrays_are_named_by_the_parameters_of_the_function_too():
    def f(x, shift):
        return x * 2 + 0 * shift

    def vjp(g, x, shift):
        return 2 * g, 0 * g

    assert check_vjp(f, vjp, W, W + 1, wrt="x").inputs[0].label == "input 0"
    assert check_vjp(f, vjp, W, W + 1, zero_gradient="shift").passed


STRUCTURES = {
    r"input 0\['b'\]: the vjp returns no gradient for it": lambda w, b: {"w": w},
    r"input 0: the gradient has \['c'\], which the dict lacks": lambda w, b: {"w": w, "c": b},
    "input 0 is a dict, its gradient a ndarray": lambda w, b: w,
    "input 0 is a dict, its gradient a list": lambda w, b: [w, b],
    r"input 0\['b'\]: a gradient of shape \(2, 1\) for \(2,\)": lambda w, b: {
        "w": w, "b": b[:, None],
    },
}  # fmt: skip


@pytest.mark.parametrize("message", STRUCTURES)
def test_a_gradient_of_another_structure_is_named_by_its_place(message):
    with pytest.raises(GradientError, match=message):
        check_vjp(affine, affine_vjp(STRUCTURES[message]), {"w": W, "b": B}, X)


def test_too_few_gradients_are_counted():
    with pytest.raises(GradientError, match="returns 1 gradient for 2 inputs"):
        check_vjp(affine, lambda g, p, x: g, {"w": W, "b": B}, X)


def test_a_missing_gradient_of_a_part_is_a_claim_that_it_is_zero():
    with pytest.raises(GradientError, match=r"input 0\['w'\].*WRONG"):
        check_vjp(
            affine,
            lambda g, p, x: (None, affine_vjp(MAKERS["dict"])(g, p, x)[1]),
            {"w": W, "b": B},
            X,
        )


def test_a_container_that_contains_itself_is_refused():
    p = {"w": W}
    p["self"] = p
    with pytest.raises(ValueError, match="contains itself"):
        check_vjp(lambda p: p["w"], lambda g, p: g, p)


def test_an_array_that_stands_at_two_places_has_a_gradient_at_each():
    def vjp(g, p, x):
        return {"a": g * p["b"] * x, "b": g * p["a"] * x}, g * p["a"] * p["b"]

    report = check_vjp(lambda p, x: p["a"] * p["b"] * x, vjp, {"a": W, "b": W}, W)
    assert report.passed and len(report.inputs) == 3


def test_nan_and_nothing_to_differentiate_are_refused_by_name():
    with pytest.raises(ValueError, match=r"input 0\['w'\] holds NaN"):
        check_vjp(lambda p: p["w"], lambda g, p: {"w": g}, {"w": W * np.nan})
    with pytest.raises(TypeError, match="input 0 is a dict without an array of floats"):
        check_vjp(lambda p, x: x, lambda g, p, x: (None, g), {"n": 3}, X)
    with pytest.raises(TypeError, match=r"dtype longdouble|dtype float128"):
        check_vjp(lambda p: p["w"], lambda g, p: {"w": g}, {"w": W.astype(np.longdouble)})


def test_arrays_in_containers_are_watched_for_changes_in_place():
    def f(p, x):
        p["n"] += 1
        return p["w"] * x

    with pytest.raises(GradientError, match=r"f modifies its input 0\['n'\] in place"):
        check_vjp(f, lambda g, p, x: ({"w": g * x}, g * p["w"]), {"n": np.arange(3), "w": W}, W)


def test_a_float32_parameter_is_judged_in_float32():
    p = MAKERS["dict"](W.astype(np.float32), B.astype(np.float32))
    report = check_vjp(affine, affine_vjp(MAKERS["dict"]), p, X.astype(np.float32))
    assert 5 < report.digits < 9


def test_the_script_of_a_container_repeats_the_check(tmp_path):
    def f(p):
        return p["w"] ** 3

    report = check_vjp(f, lambda g, p: {"w": g * p["w"] ** 2}, {"w": W, "n": 2}, raises=False)
    (tmp_path / "failure.py").write_text(report.script)
    with pytest.raises(GradientError, match=r"input 0\['w'\]  \(3, 2\) float64: WRONG"):
        runpy.run_path(str(tmp_path / "failure.py"))


def test_keyword_arguments_come_by_partial():
    def f(x, *, power):
        return x**power

    vjp = functools.partial(lambda g, x, *, power: (g * power * x ** (power - 1),), power=3)
    report = check_vjp(functools.partial(f, power=3), vjp, X)
    assert report.passed and report.name.endswith("f")


# -- several outputs


def several(x):
    return {"y": x**2, "loss": x.sum(), "best": x.argmax(), "nothing": None}


def test_the_cotangent_has_the_structure_of_the_outputs():
    seen = []

    def vjp(g, x):
        seen.append((list(g), g["y"].shape, g["loss"].shape, g["best"], g["nothing"]))
        return 2 * g["y"] * x + g["loss"]

    assert check_vjp(several, vjp, X).passed
    assert set(map(str, seen)) == {str((["y", "loss", "best", "nothing"], (4, 3), (), None, None))}


def test_the_output_whose_gradient_is_wrong_is_named():
    for wrong, vjp in (
        ("loss", lambda g, x: 2 * g["y"] * x),
        ("y", lambda g, x: g["y"] * x + g["loss"]),
    ):
        with pytest.raises(GradientError, match=rf"is wrong for output\['{wrong}'\] alone"):
            check_vjp(several, vjp, X)


@pytest.mark.parametrize(
    "kind", [tuple, list, lambda xs: Linear(*xs)], ids=["tuple", "list", "named"]
)
def test_outputs_may_be_a_tuple_a_list_or_a_named_tuple(kind):
    def f(x, w):
        return kind([x @ w, x * 2])

    def vjp(g, x, w):
        a, b = g
        return a @ w.T + 2 * b, x.T @ a

    assert check_vjp(f, vjp, X, W).passed
    with pytest.raises(GradientError):
        check_vjp(f, lambda g, x, w: (vjp(g, x, w)[0], -vjp(g, x, w)[1]), X, W)


def test_outputs_of_two_precisions_are_judged_in_the_lower():
    def f(x):
        return x**2, (x**3).astype(np.float32) if x.dtype == np.float64 else x**3

    def vjp(g, x):
        assert g[0].dtype == np.float64 and g[1].dtype == np.float32
        return 2 * g[0] * x + 3 * g[1] * x**2

    assert check_vjp(f, vjp, X).passed


def test_a_vjp_that_writes_into_one_of_its_cotangents_is_found():
    def vjp(g, x):
        g[1][...] *= 2
        return 2 * g[0] * x + g[1] / 2

    with pytest.raises(GradientError, match="modifies its cotangent in place"):
        check_vjp(lambda x: (x**2, x), vjp, X)


def test_outputs_without_floats_are_refused():
    with pytest.raises(TypeError, match="f gives int64, str, not floats"):
        check_vjp(lambda x: (x.argmax(), "text"), lambda g, x: x, X)


def test_the_number_of_outputs_must_not_change():
    sizes = itertools.chain([1, 1], itertools.repeat(2))
    with pytest.raises(ValueError, match="another structure than before"):
        check_vjp(lambda x: (x,) * next(sizes), lambda g, x: g[0], X)


# -- scalars


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x**2).sum(),
        lambda x: np.asarray((x**2).sum()),
        lambda x: float((np.real(x) ** 2).sum()),
        lambda x: {"loss": (x**2).sum()},
    ],
)
def test_the_cotangent_of_a_scalar_is_an_array_without_axes_in_every_call(f):
    def vjp(g, x):
        g = g["loss"] if isinstance(g, dict) else g
        assert type(g) is np.ndarray and g.shape == ()
        return 2 * g * x

    assert check_vjp(f, vjp, X).passed


def test_a_number_is_an_input():
    assert check_vjp(lambda x: x**2, lambda g, x: 2 * g * x, 0.5).passed
    assert check_vjp(lambda x: x**2, lambda g, x: 2 * g * x, [0.5, -1.0]).passed
    assert check_vjp(np.sin, lambda g, x: g * np.cos(x), np.float64(0.5)).passed


# -- complex numbers


def test_complex_gradients_are_in_the_convention_that_is_stated():
    report = check_vjp(lambda z: z**2, lambda g, z: g * np.conj(2 * z), Z)
    assert report.passed and "dL/da + i dL/db (PyTorch's convention)" in str(report)
    report = check_vjp(lambda z: z**2, lambda g, z: g * 2 * z, Z, complex_convention="jax")
    assert report.passed and "dL/da - i dL/db" in str(report)


@pytest.mark.parametrize("convention", ["pytorch", "jax"])
def test_a_gradient_of_the_other_convention_is_recognised(convention):
    def vjp(g, z):
        return g * 2 * z if convention == "pytorch" else g * np.conj(2 * z)

    with pytest.raises(GradientError, match=r"right in the other convention.*complex_convention="):
        check_vjp(lambda z: z**2, vjp, Z, complex_convention=convention)


def test_one_conjugation_too_many_is_recognised():
    with pytest.raises(GradientError, match="right if it were conjugated"):
        check_vjp(lambda z: z**2, lambda g, z: np.conj(g) * 2 * z, Z)
    with pytest.raises(GradientError, match="right if its cotangent were conjugated"):
        check_vjp(lambda z: z**2, lambda g, z: np.conj(g) * np.conj(2 * z), Z)


def test_complex_and_real_inputs_and_outputs_mix():
    def f(z, x):
        return {"power": np.abs(z) ** 2 * x, "phase": z * x}

    def vjp(g, z, x):
        dz = 2 * g["power"] * z * x + g["phase"] * x
        dx = g["power"] * np.abs(z) ** 2 + (g["phase"] * np.conj(z)).real
        return dz, dx

    report = check_vjp(f, vjp, Z, rng.standard_normal(3))
    assert [entry.dtype for entry in report.inputs] == ["complex128", "float64"]
    assert report.inputs[0].shape == (3,)
    with pytest.raises(GradientError, match="input 1 is real, its gradient complex"):
        check_vjp(f, lambda g, z, x: (vjp(g, z, x)[0], g["phase"] * np.conj(z)), Z, W[:, 0])
    with pytest.raises(GradientError, match="input 0 is complex, its gradient float64"):
        check_vjp(f, lambda g, z, x: (vjp(g, z, x)[0].real, vjp(g, z, x)[1]), Z, W[:, 0])


def test_complex64_is_judged_in_float32():
    report = check_vjp(lambda z: z**2, lambda g, z: g * np.conj(2 * z), Z.astype(np.complex64))
    assert report.passed and 5 < report.digits < 9


def test_a_convention_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"complex_convention='torch'.*Did you mean 'pytorch'"):
        check_vjp(lambda z: z**2, lambda g, z: g, Z, complex_convention="torch")


# -- containers themselves


def test_a_rebuilt_container_is_equal_and_keeps_its_type_and_order():
    default = collections.defaultdict(list, b=[1, (2, 3)], a={"x": 4})
    for tree in (default, Linear(1, [2]), [Layer(1, 2)], (), {"k": ()}):
        again = rebuild(tree, iter([leaf for _, leaf in paths(tree)]))
        assert again == tree and type(again) is type(tree)
        assert paths(again) == paths(tree)
    assert rebuild(default, iter([1, 2, 3, 4])).default_factory is list


def test_align_names_the_place_that_differs():
    with pytest.raises(Mismatch, match=r"x\['a'\]\[1\]: the gradient has 3 parts, the tuple has 2"):
        align({"a": [1, (2, 3)]}, {"a": [1, (2, 3, 4)]}, "x")


def test_an_inherited_class_method_is_named_after_its_own_class():
    class Function:
        @classmethod
        def apply(cls, x):
            return x

    class Cube(Function):
        pass

    report = check_vjp(Cube.apply, lambda g, x: 1.0 * g, np.ones(2))
    assert report.name.endswith("Cube.apply")


def test_digits_of_a_ratio_that_underflows_are_all_of_them():
    assert digits(5e-324, 1e300) == digits(0.0, 1.0)
