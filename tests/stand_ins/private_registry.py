"""A real registry of one's own on a loopback port, which asks who comes."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.harness.services import require

# bcrypt of `secret`, as `htpasswd -Bbn ada secret` writes it.
HTPASSWD = "ada:$2b$04$Gf7WyaoJ2OIJBJylNRnUhuCKFuaWYkK719ofAp6GywjOpUDQ4abs.\n"


@contextmanager
def private_registry(folder: Path) -> Iterator[str]:
    """Run a registry that lets ada in, and nobody else."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    require("a registry's program", bool(program), "install docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "config.yml").write_text(
        f"""
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""
    )
    process = subprocess.Popen(
        [str(program), "serve", str(folder / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/v2/", timeout=2)
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)
