"""The wheel `sys.argv[1]`, installed outside of the checkout: it holds minibn and its pytest plugin
alone, and works."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

with zipfile.ZipFile(sys.argv[1]) as wheel:
    top = {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()}
assert top == {"minibn", "_minibn_pytestplugin.py"}, f"the wheel installs {sorted(top)}"
for package in ("experiments", "reference_models", "tests", "suite"):
    assert importlib.util.find_spec(package) is None, f"{package} is installed"

import numpy as np  # noqa: E402

import minibn  # noqa: E402
from minibn import nn, ops, optim  # noqa: E402
from minibn.data import load  # noqa: E402

assert "site-packages" in Path(minibn.__file__).parts, minibn.__file__
data = load("shapes", train_size=32, test_size=8)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm(8), nn.ReLU(), nn.GlobalAvgPool2d())
model = nn.Sequential(model, nn.Linear(8, 10)).initialize(seed=0)
optimizer = optim.SGD(model.parameters(), lr=0.1)
losses = []
for _ in range(5):
    x = data.train_images.astype(np.float32) / 255
    loss = ops.softmax_cross_entropy(model(x), data.train_labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
for command in (["minibn.fast", "verify", "--check"], ["minibn.testing", "laws"]):
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
print(f"the wheel of minibn {minibn.__version__} works in {Path(sys.prefix).name}")
