"""What you read is what runs: an edited or a replaced definition runs in its kernel's place."""

import ast
import json
import shutil
import textwrap
from unittest.mock import patch

import numpy as np
import pytest
from support.copies import NOT_COPIED, ROOT, copy_of_minibn, run_python

import minibn
from minibn import Tensor, nn, ops
from minibn.fast import verified
from minibn.fast.__main__ import definitions, edited_definitions
from minibn.ops.conv import Conv2d as Conv2dOp
from minibn.ops.elementwise import Relu
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.optim import SGD

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((4, 8, 8, 3)).astype(np.float32)

STEP = """
import json, warnings
import numpy as np
import minibn
from minibn import nn, ops

warnings.simplefilter("always")
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm(4), nn.ReLU()).initialize(0)
x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)
with warnings.catch_warnings(record=True) as told, minibn.kernels("always"):
    for _ in range(2):
        for p in net.parameters():
            p.grad = None
        (net(x) ** 2).sum().backward()
print(json.dumps({
    "gamma": net[1].gamma.grad.numpy().tolist(),
    "weight": net[0].weight.grad.numpy().ravel().tolist(),
    "told": [[w.category.__name__, str(w.message)] for w in told],
}))
"""


def step_in(folder):
    done = run_python(folder, "-c", STEP)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_edited_gradient_of_batch_norm_is_what_trains_and_one_warning_says_so(tmp_path):
    folder = copy_of_minibn(tmp_path)
    before, _ = step_in(folder)
    assert before["told"] == []
    edit(
        folder / "minibn/ops/batch_normalization.py",
        "        return g_x, g_gamma, g_beta\n",
        "        return g_x * 2, g_gamma * 2, g_beta * 2\n",
    )
    after, _ = step_in(folder)
    for name in ("gamma", "weight"):
        expected = 2 * np.array(before[name])
        np.testing.assert_allclose(after[name], expected, rtol=0, atol=2e-5 * abs(expected).max())
    assert {category for category, _ in after["told"]} == {"EditedDefinition"}
    messages = [text for _, text in after["told"]]
    assert len(messages) == len(set(messages)), "each is told once"
    for text in messages:
        assert text.startswith("BatchNorm (") and "ops/batch_normalization.py)" in text
        assert "python -m minibn.fast verify" in text


def test_a_print_in_a_layer_is_seen(tmp_path):
    folder = copy_of_minibn(tmp_path)
    edit(
        folder / "minibn/nn/layers.py",
        "        return ops.relu(x)\n",
        '        print("here I am")\n        return ops.relu(x)\n',
    )
    assert step_in(folder)[1].count("here I am") == 2


def test_comments_and_docstrings_are_no_edits(tmp_path):
    folder = copy_of_minibn(tmp_path)
    edit(
        folder / "minibn/ops/batch_normalization.py",
        "        return g_x, g_gamma, g_beta\n",
        "        # the three gradients\n        return g_x, g_gamma, g_beta\n",
    )
    edit(folder / "minibn/nn/layers.py", '"""max(x, 0)."""', '"""The larger of x and 0."""')
    assert step_in(folder)[0]["told"] == []


def test_an_edit_below_a_definition_counts_too(tmp_path):
    """What BatchNorm calls is a part of it."""
    folder = copy_of_minibn(tmp_path)
    edit(folder / "minibn/ops/reduce.py", "shifted - rest\n", "shifted - rest + 1.0\n")
    assert step_in(folder)[0]["told"] != []


def test_nothing_was_edited_since_the_kernels_were_verified():
    assert edited_definitions() == [], f"run: {verified.COMMAND}"
    assert set(verified.entries()) == set(definitions())


def test_a_text_is_the_same_in_every_version_of_python():
    source = textwrap.dedent(
        '''
        def f(x, *, y=f"a{1}b"):
            """Not counted."""
            return [(i, y) for i in x if i > 0]
        '''
    )
    (function,) = ast.parse(source).body
    assert verified._tree_text(function) == (
        "FunctionDef(args=arguments(args=[arg(arg='x')],kw_defaults=[JoinedStr(values=[Constant("
        "value='a'),FormattedValue(conversion=-1,value=Constant(value=1)),Constant(value='b')])],"
        "kwonlyargs=[arg(arg='y')]),body=[Return(value=ListComp(elt=Tuple(ctx=Load(),elts=[Name("
        "ctx=Load(),id='i'),Name(ctx=Load(),id='y')]),generators=[comprehension(ifs=[Compare("
        "comparators=[Constant(value=0)],left=Name(ctx=Load(),id='i'),ops=[Gt()])],is_async=0,"
        "iter=Name(ctx=Load(),id='x'),target=Name(ctx=Store(),id='i'))]))],name='f')"
    )


# -- the command

DERIVATIVE = "        return (softmax(x) - hot) * (g * (1 / N))\n"


def verify(folder, *arguments):
    return run_python(folder, "-m", "minibn.fast", "verify", *arguments)


@pytest.fixture
def checkout(tmp_path):
    """A copy of the library and of the tests' registry of ops."""
    copy_of_minibn(tmp_path)
    for part in ("suite", "support"):
        shutil.copytree(ROOT / "tests" / part, tmp_path / "tests" / part, ignore=NOT_COPIED)
    return tmp_path


def test_verify_refuses_a_definition_with_which_its_kernel_does_not_agree(checkout):
    listed = (checkout / "minibn/fast/verified.json").read_text()
    edit(checkout / "minibn/ops/loss.py", DERIVATIVE, DERIVATIVE.replace("1 / N", "2 / N"))
    done = verify(checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SoftmaxCrossEntropy ... REFUSED: its kernel does not agree with it." in done.stdout
    assert "0 verified, 1 refused" in done.stdout
    after = json.loads((checkout / "minibn/fast/verified.json").read_text())
    assert after["definitions"] == json.loads(listed)["definitions"]
    assert verify(checkout, "--check").returncode == 1


def test_verify_takes_a_definition_that_says_the_same_in_other_words(checkout):
    other = "        scale = g * (1 / N)\n        return scale * (softmax(x) - hot)\n"
    edit(checkout / "minibn/ops/loss.py", DERIVATIVE, other)
    done = verify(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 verified, 0 refused" in done.stdout
    assert verify(checkout, "--check").stdout == "Nothing was edited.\n"
    assert "0 verified" in verify(checkout).stdout


def test_verify_without_a_checkout_names_the_remedy(tmp_path):
    copy_of_minibn(tmp_path)
    edit(tmp_path / "minibn/ops/loss.py", DERIVATIVE, DERIVATIVE.replace("1 / N", "2 / N"))
    done = verify(tmp_path)
    assert done.returncode == 1 and "Clone the repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_names_the_nearest_definition(checkout):
    done = verify(checkout, "minibn.ops.conv.Conv2")
    assert "has no kernel. Did you mean" in done.stderr and "minibn.ops.conv.Conv2d'" in done.stderr


# -- replaced at run time


def block():
    net = nn.Sequential(conv=nn.Conv2d(3, 4, 3, bias=False), norm=nn.BatchNorm(4), relu=nn.ReLU())
    return net.initialize(0)


def names(net, x=IMAGES):
    """The ops that ran, with their kernels."""
    with minibn.profile() as p, minibn.kernels("always"):
        net(x)
    return {row.name for row in p.rows}


FUSED = {"FusedConvBlock (FusedConvBlockKernel)"}


def test_layers_run_as_one_block_to_begin_with():
    assert names(block()) == FUSED


@pytest.mark.parametrize("layer", ["conv", "norm", "relu"])
def test_a_forward_that_is_an_attribute_of_a_layer_runs(layer):
    net, calls = block(), []
    original = getattr(net, layer).forward

    def forward(x):
        calls.append(layer)
        return original(x)

    getattr(net, layer).forward = forward
    assert names(net) != FUSED and calls == [layer]
    del getattr(net, layer).forward
    assert names(net) == FUSED and calls == [layer]


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.BatchNorm, nn.ReLU])
def test_a_patched_forward_of_a_layer_runs(kind):
    net = block()
    assert names(net) == FUSED
    with patch.object(kind, "forward", autospec=True, side_effect=kind.forward) as forward:
        assert names(net) != FUSED
    assert forward.call_count == 1
    assert names(net) == FUSED


def test_a_patched_op_below_a_block_runs():
    net = block()
    with patch.object(Relu, "forward", lambda self, x: 0 * x), minibn.kernels("always"):
        assert not net(IMAGES).numpy().any()
    assert net(IMAGES).numpy().any()


@pytest.mark.parametrize("place", ["minibn.ops.relu", "minibn.ops.elementwise.relu"])
def test_a_patched_function_below_a_block_runs(place):
    net = block()
    assert names(net) == FUSED
    with patch(place, lambda x: 0 * x):
        assert names(net) != FUSED
    assert names(net) == FUSED


def test_without_a_list_of_what_was_verified_the_definitions_run(tmp_path):
    folder = copy_of_minibn(tmp_path)
    for damage in (b"{", None):
        listed = folder / "minibn/fast/verified.json"
        listed.unlink() if damage is None else listed.write_bytes(damage)
        found = step_in(folder)[0]["told"]
        assert all("was never compared with its kernels" in text for _, text in found) and found


def test_a_patched_op_runs_in_its_kernels_place():
    x = Tensor(IMAGES, requires_grad=True)
    w = np.ones((3, 3, 3, 2), np.float32)
    with minibn.kernels("always"), patch.object(Conv2dOp, "forward", lambda self, x, w: 0 * x):
        assert not ops.conv2d(x, w).numpy().any()
    with minibn.kernels("always"):
        assert ops.conv2d(x, w).numpy().any()


def test_a_patched_vjp_runs_in_its_kernels_place():
    x = Tensor(np.ones((4, 3), np.float32), requires_grad=True)
    sevens = patch.object(SoftmaxCrossEntropy, "vjp", lambda self, g, out, x: 0 * x + 7)
    with minibn.kernels("always"), sevens:
        ops.softmax_cross_entropy(x, [0, 1, 2, 0]).backward()
    assert (x.grad.numpy() == 7).all()


def test_an_optimizer_with_an_update_of_its_own_runs_it():
    p = Tensor(np.ones(3), requires_grad=True)
    p.grad = Tensor(np.ones(3))
    optimizer = SGD([p], lr=0.1)
    optimizer.update = lambda group, w, g: w.fill(5)
    optimizer.step()
    assert p.data.tolist() == [5, 5, 5]


def test_a_class_of_ones_own_that_inherits_has_no_kernel():
    class Mine(SGD):
        def update(self, group, w, g, v=None):
            w.fill(6)

    p = Tensor(np.ones(3), requires_grad=True)
    p.grad = Tensor(np.ones(3))
    Mine([p], lr=0.1).step()
    assert p.data.tolist() == [6, 6, 6]
