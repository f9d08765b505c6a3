"""Right solutions get all points in every style, wrong ones do not, and the feedback says why."""

import importlib.util
import re
from pathlib import Path

import course_mutants
import numpy as np
import pytest

from minibn.testing.grading import Grade, grade
from minibn.testing.grading.spec import SHIPPED, find_spec

SOLUTIONS = Path(__file__).parent / "solutions"
# Of a mutant that divides by N - 1 for a batch of one.
pytestmark = pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
README = Path(grade.__code__.co_filename).parent / "README.md"
NORMS = ("batch_norm", "layer_norm")
STYLES = {
    "cs231n": SHIPPED,
    "arrays": SHIPPED,
    "with_minibn": SHIPPED,
    "minitorch_style": ("batch_norm", "max_pool2d", "softmax_cross_entropy", "dropout"),
    "tinytorch": ("batch_norm", "conv2d", "softmax_cross_entropy", "dropout"),
    "torch_layers": SHIPPED,
}
RIGHT = [(file, spec) for file, specs in STYLES.items() for spec in specs]


def names_in(file: str) -> dict:
    """What a solution of the folder defines."""
    return course_mutants.names_of((SOLUTIONS / f"{file}.py").read_text(encoding="utf-8"))


def lost(result: Grade) -> dict[str, list[str]]:
    """The parts without points, with their feedback."""
    return {part.name: part.feedback for part in result.parts if not part.passed}


def wrong(spec: str, mistake: str) -> Grade:
    (right, text), = [m[1:] for m in course_mutants.MUTANTS[spec] if m[0] == mistake]  # fmt: skip
    return grade(spec, course_mutants.names_of(course_mutants.wrong_source(spec, right, text)))


@pytest.mark.parametrize("file, spec", RIGHT)
def test_a_right_solution_gets_all_points(file, spec):
    if file == "torch_layers":
        pytest.importorskip("torch")
    alone = file == "minitorch_style" or spec == "softmax_cross_entropy"  # in its own process
    result = grade(spec, SOLUTIONS / f"{file}.py" if alone else names_in(file))
    assert not result.error and lost(result) == {}
    assert result.exit_code == 0 and result.points == result.max_points >= 80
    assert str(result).count("digits agree") >= 3


@pytest.mark.parametrize("spec", SHIPPED)
def test_a_right_solution_gets_all_points_at_other_seeds(spec):
    names = names_in("cs231n")
    for seed in range(1, 4):
        assert lost(grade(spec, names, seed=seed)) == {}, seed


SPATIAL = """
def spatial_batchnorm_forward(x, gamma, beta, bn_param):
    N, C, H, W = x.shape
    out, cache = batchnorm_forward(x.transpose(0, 2, 3, 1).reshape(-1, C), gamma, beta, bn_param)
    return out.reshape(N, H, W, C).transpose(0, 3, 1, 2), cache


def spatial_batchnorm_backward(dout, cache):
    N, C, H, W = dout.shape
    dx, dgamma, dbeta = batchnorm_backward(dout.transpose(0, 2, 3, 1).reshape(-1, C), cache)
    return dx.reshape(N, H, W, C).transpose(0, 3, 1, 2), dgamma, dbeta
"""


def test_a_name_chooses_between_two_functions_that_the_spec_asks_for():
    name = "spatial_batchnorm_forward"
    right = course_mutants.names_of(course_mutants.right_source() + SPATIAL)
    assert lost(grade("batch_norm", right, style=name)) == {}
    # For vectors nothing is wrong with it.
    transposed = SPATIAL.replace("x.transpose(0, 2, 3, 1)", "x")
    names = course_mutants.names_of(course_mutants.right_source() + transposed)
    assert lost(grade("batch_norm", names)) == {}
    assert "values" in lost(grade("batch_norm", names, style=name))


@pytest.fixture(scope="module")
def caught() -> dict[str, dict[str, Grade]]:
    """spec -> mistake -> the grade."""
    return {
        spec: {
            mistake: grade(
                spec,
                course_mutants.names_of(course_mutants.wrong_source(spec, *texts)),
                explain=False,
            )
            for mistake, *texts in mutants
        }
        for spec, mutants in course_mutants.MUTANTS.items()
    }


def test_every_mutant_loses_points_and_no_part_is_left_unjudged(caught):
    assert set(caught) == set(SHIPPED)
    for spec, grades in caught.items():
        assert len(grades) >= 10
        for mistake, result in grades.items():
            assert result.points < 100, f"{spec}: {mistake}"
            assert result.exit_code == 1 and not result.error
            assert "could not be judged" not in str(result), f"{spec}: {mistake}\n{result}"
            assert "Traceback" not in str(result)


def test_the_readme_says_how_many_mutants_each_spec_catches(caught):
    rows = re.findall(r"^\| `(\w+)` \| (\d+) of (\d+) \|", README.read_text("utf-8"), re.M)
    found = {
        spec: (sum(g.points < g.max_points for g in grades.values()), len(grades))
        for spec, grades in caught.items()
    }
    assert {spec: (int(a), int(b)) for spec, a, b in rows} == found


@pytest.mark.parametrize(
    "spec, mistake, parts",
    [
        ("batch_norm", "x is centred in place", {"arguments unchanged"}),
        ("batch_norm", "momentum the wrong way round", {"running statistics"}),
        ("batch_norm", "evaluation by the batch's mean", {"evaluation"}),
        ("layer_norm", "dgamma without x_hat", {"gradient of gamma"}),
        ("conv2d", "db is averaged over images", {"gradient of b"}),
        ("max_pool2d", "all ties get the gradient", {"gradient of x, ties"}),
        ("max_pool2d", "the size is rounded up", {"values, a stride that leaves a remainder"}),
        ("softmax_cross_entropy", "x is shifted in place", {"arguments unchanged"}),
        ("dropout", "scaled in evaluation", {"evaluation"}),
        ("dropout", "always the same mask", {"another seed"}),
    ],
)
def test_a_mistake_costs_the_points_of_its_own_part_only(caught, spec, mistake, parts):
    assert set(lost(caught[spec][mistake])) == parts


@pytest.mark.parametrize(
    "spec, mistake, part, text",
    [
        ("batch_norm", "the variance term is missing", "gradient of x", "variance term is missing"),
        ("batch_norm", "the mean term is missing", "gradient of x", "mean term"),
        ("batch_norm", "dgamma is averaged", "gradient of gamma", "a mean where a sum belongs"),
        ("batch_norm", "running_var is never stored", "evaluation", "are not stored"),
        ("layer_norm", "statistics of columns", "rows are independent", "over the batch"),
        ("conv2d", "no bias", "values", "differ"),
        ("dropout", "not scaled", "values", r"multiplied by 1, and must be by 1 / \(1 - 0.5\) = 2"),
        ("dropout", "a mask for each row", "another seed", "whole rows"),
        (
            "softmax_cross_entropy",
            "dx is not divided by N",
            "gradient of x",
            "times|factor|1/|ratio",
        ),
        ("softmax_cross_entropy", "the loss is a sum", "values", "times what they should be"),
    ],
)
def test_the_feedback_names_the_mistake(spec, mistake, part, text):
    feedback = "\n".join(lost(wrong(spec, mistake))[part])
    assert re.search(text, feedback), feedback
    of_a_case = part.startswith(("values", "gradient"))
    assert ("for example" in feedback) == of_a_case


def test_a_gradient_of_a_wrong_forward_pass_is_said_to_be_its_own():
    names = names_in("arrays")
    names["batch_norm"] = lambda x, gamma, beta, eps: 2 * gamma * (x - x.mean(0)) / x.std(0) + beta
    right = names["batch_norm_vjp"]

    def twice(g, x, gamma, beta, eps):
        dx, dgamma, dbeta = right(g, x, gamma, beta, 0.0)
        return 2 * dx, 2 * dgamma, dbeta

    feedback = lost(grade("batch_norm", names | {"batch_norm_vjp": twice}))
    assert feedback["values"][0].startswith("48 of 48") or "outputs differ" in feedback["values"][0]
    assert "your own forward pass" in feedback["gradient of x"][0]


def test_no_feedback_shows_the_source_of_the_spec():
    for spec in SHIPPED:
        source = Path(find_spec(spec).forward.__code__.co_filename).read_text("utf-8")
        lines = {line.strip() for line in source.splitlines() if "=" in line or "return" in line}
        nothing = lambda *a, **k: (np.zeros(3), None)  # noqa: E731
        names = {name: nothing for name in names_in("cs231n") if "ward" in name or "loss" in name}
        for text in (str(grade(spec, names)), grade(spec, names).to_json()):
            assert not any(line in text for line in lines if len(line) > 12)
            assert "Traceback" not in text


# -- graphs that are cut

CUT = """
class BatchNorm2d:
    def __init__(self, num_features, eps=1e-5):
        self.eps, self.training = eps, True
        self.gamma = Tensor(np.ones(num_features), requires_grad=True)
        self.beta = Tensor(np.zeros(num_features), requires_grad=True)
        self.running_mean, self.running_var = np.zeros(num_features), np.ones(num_features)

    def forward(self, x):
        shape, data = (1, -1, 1, 1), x.data
        mean, var = data.mean((0, 2, 3)), data.var((0, 2, 3))
        if self.training:
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            self.running_var = 0.9 * self.running_var + 0.1 * var
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (data - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + self.eps)
        return Tensor(self.gamma.data.reshape(shape) * x_hat + self.beta.data.reshape(shape))
"""


def cut_solution(end: str = "") -> dict:
    source = (SOLUTIONS / "tinytorch.py").read_text(encoding="utf-8")
    return course_mutants.names_of(source + CUT.rstrip() + end + "\n")


def test_a_batch_norm_that_computes_on_data_has_its_values_and_cuts_the_graph():
    result = grade("batch_norm", cut_solution())
    assert set(lost(result)) == {
        "gradient of x", "gradient of x, a variance near eps", "gradient of gamma",
        "gradient of beta",
    }  # fmt: skip
    for feedback in lost(result).values():
        assert feedback[0].startswith("the graph is cut: no input gets a gradient")


@pytest.mark.parametrize("flag", [", requires_grad=True", ".data"])
def test_a_new_leaf_or_a_bare_array_cuts_the_graph_too(flag):
    names = cut_solution()
    source = CUT.rstrip()[:-1] + ", requires_grad=True)" if "True" in flag else CUT.rstrip() + flag
    exec(source, names)
    feedback = lost(grade("batch_norm", names))["gradient of x"]
    assert feedback[0].startswith("the graph is cut: no input gets a gradient")


def test_a_graph_that_is_cut_for_one_input_alone_names_it():
    names = names_in("tinytorch")
    layer, tensor = names["BatchNorm2d"], names["Tensor"]

    class BatchNorm2d(layer):
        def forward(self, x):
            return super().forward(tensor(x.data))

    result = grade("batch_norm", names | {"BatchNorm2d": BatchNorm2d})
    assert set(lost(result)) == {"gradient of x", "gradient of x, a variance near eps"}
    assert lost(result)["gradient of x"][0].startswith("the graph is cut: x gets no gradient")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
@pytest.mark.parametrize("how", ["torch.tensor(out.detach().numpy())", "out.detach()"])
def test_a_torch_layer_that_detaches_cuts_the_graph(how):
    names = names_in("torch_layers")
    source = f"""
class LayerNorm(nn.LayerNorm):
    def forward(self, x):
        out = super().forward(x)
        return {how}
"""
    exec(source, names)
    result = grade("layer_norm", names)
    assert len(lost(result)) == 4
    assert lost(result)["gradient of x"][0].startswith("the graph is cut")


def test_a_function_of_minibn_that_leaves_the_graph_is_named():
    names = names_in("with_minibn")
    right = names["conv2d"]
    names["conv2d"] = lambda x, w, b, **how: right(x, w.detach(), b, **how)
    feedback = lost(grade("conv2d", names))
    assert set(feedback) == {"gradient of w", "gradient of w, a stride of two"}
    assert feedback["gradient of w"][0].startswith("the graph is cut: w gets no gradient")
