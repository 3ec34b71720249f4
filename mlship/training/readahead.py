"""Data files that are read while the libraries of training are still being imported.

pandas is imported first. Then a fork reads the files, while this process imports scikit-learn,
which takes longer than to read most files. The rows go to the job through a pipe. Only plain files
are read so: what else may go wrong, and whatever is not read in this way, is the job's own affair.
"""

import os
import pickle
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import pandas as pd

from mlship.adapters.checkout import datafiles
from mlship.adapters.checkout.children import TrainRequest, request_of
from mlship.config.data import DataConfig, ReadConfig
from mlship.training import data
from mlship.training.server import Request

_SMALLEST: Final = 1 << 20
_LARGEST: Final = 1 << 28
"""Bytes of files: small ones are read at once, and of large ones there shall not be two copies."""


class ReadAhead:
    """Data files that a fork reads from now on."""

    def __init__(self, first: Request | None) -> None:
        """Start to read what the first job will need, if it is a training of some size."""
        self._texts: tuple[str, ...] = ()
        self._pipe: int | None = None
        if first is None or first.arguments[0] != "train":
            return
        request = request_of(Path(first.arguments[1]).read_bytes(), TrainRequest)
        self._root, self._texts = request.root, _plain(request.root, request.config.data)
        if self._texts:
            self._pipe = self._forked(request.config.data.read, first.output)

    def take(self) -> Mapping[str, pd.DataFrame]:
        """Return the rows by the names of their files in mlship.yaml; ask once, in the job.

        Empty if they were not read: the job reads them then, and finds out why. It opens each file
        here, as if it read it, so that its audit knows of it.
        """
        frames: dict[str, pd.DataFrame] = {}
        if self._pipe is None:
            return frames
        for text in self._texts:
            with datafiles.opened(self._root, text):
                pass
        pipe, self._pipe = self._pipe, None
        with os.fdopen(pipe, "rb") as file, suppress(EOFError, pickle.UnpicklingError):
            # The bytes come from our own fork, not from a file.
            frames = pickle.load(file)  # noqa: S301
        return frames

    def close(self) -> None:
        """Let go of the fork, which ends when nobody reads what it writes."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _forked(self, options: ReadConfig, output: int) -> int:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            for stream in (1, 2):
                os.dup2(output, stream)
            self._read(options, writer)
        os.close(writer)
        return reader

    def _read(self, options: ReadConfig, writer: int) -> NoReturn:
        try:
            frames = {text: data.load(self._root, text, options) for text in self._texts}
            sys.stderr.flush()
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(frames, pipe, protocol=pickle.HIGHEST_PROTOCOL)
        finally:
            # Without a word: the job reads what is not there, and tells what is wrong with it.
            os._exit(0)


def _plain(root: Path, config: DataConfig) -> tuple[str, ...]:
    """Return the names of the data if all are CSV files, together of some size."""
    texts = (config.train, config.test) if config.test else (config.train,)
    if any("://" in text or not text.endswith(".csv") for text in texts):
        return ()
    with suppress(OSError):
        size = sum((root / text).stat().st_size for text in texts)
        return texts if _SMALLEST <= size <= _LARGEST else ()
    return ()
