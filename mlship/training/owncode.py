"""What a model is made of beyond the exact list: the project's own code, and what it vouches for.

A class or function of the project's own modules is trusted because the bundle carries the very
file, whose digest stands in the manifest. All else is refused, with what to do.
"""

import importlib
import os
import shlex
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from mlship.adapters.checkout import code
from mlship.config import distributions
from mlship.errors import ProjectError
from mlship.runtime import trust
from mlship.runtime.archive import Part

_OWN_HINT = "put a class or function of your own into the project, which travels with the model; "
_OWN_HINT += "or name what you trust in model.trust"


@dataclass(frozen=True)
class Admitted:
    """Full names beyond the exact list: `types` of the project's own, and `trusted` ones."""

    types: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trust:
    """What a project adds to the exact list.

    Attributes:
        root: the project's folder; modules below it are its own.
        names: `model.trust`.
    """

    root: Path
    names: tuple[str, ...] = ()

    def admit(self, parts: Sequence[Part], *, live: bool) -> "Admitted":
        """Return what a skops file names beyond the exact list, if all of it is trusted.

        Args:
            parts: of a skops file.
            live: the file was written just now, in this process: identities are addresses.

        Raises:
            ProjectError: a part is neither listed, nor of the project, nor vouched for; or it
                cannot be found again by its name.
        """
        unlisted = trust.untrusted(parts, ())
        own = [part for part in unlisted if self._file_of(part.module)]
        names = {part.full for part in own}
        foreign = trust.untrusted(unlisted, names | set(self.names))
        if foreign:
            raise self._refusal(foreign)
        for part in unlisted:
            # A name in `model.trust` says that the code is harmless, and brings it nowhere.
            if part.full not in names and self._left_behind(part.module):
                raise self._refusal([part])
        if not live:
            self._check_in_use(own)
        # The project's modules are imported only when all else is trusted.
        for part in own:
            self._check_named(part, live=live)
        vouched = {part.full for part in unlisted} - names
        return Admitted(types=tuple(sorted(names)), trusted=tuple(sorted(vouched)))

    def _file_of(self, module: str) -> Path | None:
        """Return the file of a module of the project's own."""
        return code.source_of(self.root, module)

    def _check_in_use(self, own: Sequence[Part]) -> None:
        """Refuse a file that names a module which the training has not imported: it would run."""
        for part in own:
            if part.module not in sys.modules and part.full not in self.names:
                message = f"the model file names {part.full}, and the training has not imported "
                message += f"{part.module}, a module of the project"
                hint = f"import {part.module} in the training code if the model needs it, or name "
                raise ProjectError(message, hint=f"{hint}{part.full} in model.trust")

    def _check_named(self, part: Part, *, live: bool) -> None:
        """Refuse a function or class that its module does not have under its own name."""
        module = _imported(part.module)
        origin, file = getattr(module, "__file__", None), self._file_of(part.module)
        if origin is None or file is None or Path(origin).resolve() != file.resolve():
            raise self._refusal([part])
        found = getattr(module, part.name, None)
        if found is not None and getattr(found, "__module__", None) != part.module:
            # What a module has imported from elsewhere is not the project's own.
            raise self._refusal([part])
        is_found = getattr(found, "__qualname__", None) == part.name
        if is_found and live and part.use == "FunctionNode" and isinstance(found, FunctionType):
            is_found = id(found) == part.identity
        if is_found:
            return
        inside = f"{part.name}, defined inside a function or class"
        what = "a lambda" if part.name == "<lambda>" else inside
        message = f"the model holds {what}, of {part.module} (at {part.where}), "
        message += "which no file can name"
        raise ProjectError(message, hint=f"define it with a name at the top of {part.module}")

    def _refusal(self, foreign: Sequence[Part]) -> ProjectError:
        said = trust.described(foreign)
        message = f"the model holds types or functions that are not trusted: {said}"
        for part in foreign:
            if part.module == "__main__":
                hint = f"{part.name} was defined in the script that ran: move it into a module of "
                hint += "the project, and import it there"
                return ProjectError(message, hint=hint)
            if part.module.startswith("scipy.stats."):
                hint = "return `search.best_estimator_` instead of the search: a distribution of "
                hint += "scipy runs a text of its file when it is loaded"
                return ProjectError(message, hint=hint)
            if place := self._left_behind(part.module):
                message = f"the model needs {part.full} when it answers, and {place} is outside of "
                message += "the project: a bundle takes no code from there"
                link = f"ln -s {shlex.quote(os.path.relpath(place, self.root))}"
                hint = f"move it into the project, or link it there: `{link} {place.name}`"
                return ProjectError(message, hint=hint)
        return ProjectError(message, hint=_OWN_HINT)

    def _left_behind(self, module: str) -> Path | None:
        """Return where a module came from, if neither the project nor an installed package has it.

        It is the folder of the module's outermost package, or the file of a module without one.
        """
        origin = getattr(sys.modules.get(module), "__file__", None)
        if origin is None:
            return None
        installed = (*sysconfig.get_paths().values(), sys.base_prefix)
        file, known = Path(origin).resolve(), [Path(path).resolve() for path in installed]
        if any(file.is_relative_to(place) for place in (*known, self.root.resolve())):
            return None
        if module.partition(".")[0] in distributions.installed():
            return None
        levels = module.count(".") + (file.name == "__init__.py")
        return file.parents[levels - 1] if levels else file


def _imported(module: str) -> Any:
    if module in sys.modules:
        return sys.modules[module]
    try:
        return importlib.import_module(module)
    except Exception as error:  # importing runs the user's code
        message = f"the model needs the project's module {module}, which cannot be imported: "
        message += f"{type(error).__name__}: {error}"
        raise ProjectError(message, hint="correct the code there") from error
