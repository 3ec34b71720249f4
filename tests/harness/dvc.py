"""The real program dvc, and storages of it on this machine."""

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from mlship.domain.storage import DVC
from tests.harness.services import require

PASSWORD = "reads-only"


def program() -> str:
    """Return the program; the test is skipped where there is none.

    It is looked for on PATH, where `uv tool install` puts it, and where MLSHIP_TEST_DVC says.
    """
    places = [os.environ.get("PATH", ""), str(Path.home() / ".local/bin")]
    found = os.environ.get("MLSHIP_TEST_DVC") or shutil.which("dvc", path=os.pathsep.join(places))
    require("dvc", found is not None, f"uv tool install dvc=={DVC}")
    assert found
    return found


def run(folder: Path, *arguments: str, home: Path) -> str:
    """Run the program in a folder, and return what it says on both streams."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "DVC_NO_ANALYTICS": "true"}
    environment |= {"DVC_SITE_CACHE_DIR": str(home / "site")}
    done = subprocess.run(
        [program(), *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


class Server:
    """A storage by HTTP, or one who wants to be taken for it.

    Attributes:
        url: its address.
        asked: the password of each request; empty if it had none.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder on loopback to who has the password."""
    server: Server

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def send_head(self) -> Any:
            given = self.headers.get("Authorization", "").partition(" ")[2]
            password = base64.b64decode(given).decode().partition(":")[2]
            server.asked.append(password)
            if password == PASSWORD:
                return super().send_head()
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="data"')
            self.end_headers()
            return None

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server = Server(f"http://127.0.0.1:{listening.server_port}")
        thread = Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield server
        listening.shutdown()
        thread.join()
