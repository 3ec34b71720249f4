"""A pytest plugin: the project's modules are imported from their sources, never from cached files.

`mlship test` loads it. pytest's own cache of rewritten test files is left as it is. Modules in
`src/` are found as in training, also where the project is not installed.
"""

import sys
from pathlib import Path

from mlship.config import packages
from mlship.runtime.sources import compile_anew

compile_anew(Path.cwd(), is_project=True)
sys.path.extend(str(folder) for folder in packages.folders(Path.cwd())[1:])
