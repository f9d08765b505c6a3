"""What `import minibn` does not do."""

import subprocess
import sys
from pathlib import Path

HEAVY = {"cupy", "matplotlib", "tqdm", "hypothesis", "pytest", "PIL", "scipy", "torch"}


def test_importing_minibn_imports_numpy_alone_writes_nothing_and_warns_of_nothing(tmp_path):
    program = (
        "import sys, minibn; "
        f"print(sorted(set(sys.modules) & {HEAVY!r})); print(minibn.ops.__name__)"
    )
    command = [sys.executable, "-B", "-W", "error", "-c", program]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.split() == ["[]", "minibn.ops"]
    assert list(Path(tmp_path).iterdir()) == []
