"""Print a requirement for each dependency of minibn and of its tests: the oldest that is allowed.

"numpy>=2" becomes "numpy==2.0.*", "matplotlib>=3.8.4" becomes "matplotlib==3.8.4.*".
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in (*project["dependencies"], *project["optional-dependencies"]["test"]):
    name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
    print(f"{name}=={version if '.' in version else version + '.0'}.*")
