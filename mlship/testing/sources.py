"""A pytest plugin: the project's modules are imported from their sources, never from cached files.

`mlship test` loads it. pytest's own cache of rewritten test files is left as it is.
"""

from pathlib import Path

from mlship.runtime.sources import compile_anew

compile_anew(Path.cwd(), is_project=True)
