"""The entry point of our pytest plugin, as an installation writes it, in the folder of a test."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def write_entry_point(folder: Path) -> None:
    """With the folder on the path, pytest finds the plugin, whether minibn is installed or not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"minibn-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Name: minibn\nVersion: {project['version']}\n")
    lines = [f"{name} = {module}" for name, module in project["entry-points"]["pytest11"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
