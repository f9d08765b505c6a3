"""`python -m minibn.testing kill` on few problems: it kills every mutant and blames no right op."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, "tests")
from suite.mutants import MUTANTS
from suite.registry import CASES

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "kill.json")
    command = [sys.executable, "-m", "minibn.testing", "kill", "--no-peers", "--examples", "20"]
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-1500:]}{done.stderr}"
    data = json.loads(file.read_text())


def found(results: dict) -> bool:
    """Whether any check, on any set of problems, raised."""
    return any(said for checks in results.values() for said in checks.values())


killed = sum(found(mutant["said"]) for mutant in data["mutants"].values())
blamed = sum(map(found, data["correct"].values()))
assert killed == len(data["mutants"]) == len(MUTANTS), f"{killed} of {len(MUTANTS)} are killed"
assert len(data["correct"]) == len(CASES) and not blamed, f"{blamed} of {len(CASES)} are blamed"
print(f"kill: {killed} of {len(MUTANTS)} wrong gradients, {blamed} of {len(CASES)} right ops")
