"""What every data set with a name needs: where its files are looked for, and a download in a process of its own.

The libraries that download read files by pickle and have no timeouts; neither happens in this process.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from ops.errors import DataError

log = logging.getLogger(__name__)

FIRST_BYTE_S = 45  # the start of Python and of the library included
_DOWNLOAD_S = 1800


def in_data_folder(name: str) -> Path | None:
    """The file or folder NAME in the folder TESSERA_DATA if that is set and has it; DataError where it is no folder."""
    home = os.environ.get("TESSERA_DATA", "")
    if not home or not name or "/" in name:
        return None
    if not os.path.isdir(os.path.expanduser(home)):
        raise DataError(f"TESSERA_DATA={home}: no such folder")
    path = Path(home).expanduser() / name
    return path if os.path.exists(path) else None  # not path.exists(): it raises for a name that is too long


def download(name: str, product: str, target: Path) -> str:
    """Run `python -m ops.data.catalog.fetch NAME FOLDER` and move FOLDER/PRODUCT, which it writes, to `target`.

    Returns "", or in one line why there is none. Raises DataError where `target` cannot be written.
    """
    log.info("downloading %s to %s", name, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as folder:
            reason = _run(name, Path(folder), product)
            if not reason:
                try:
                    os.replace(Path(folder) / product, target)
                except OSError:
                    if not target.is_dir():  # else another start was faster
                        raise
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror}); set TESSERA_CACHE to another folder"
        ) from error
    return reason


def _run(name: str, folder: Path, product: str) -> str:
    """Why there is no product; "" where there is one."""
    root = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))}
    # the module is ours and the name one of those it knows
    command = [sys.executable, "-W", "ignore", "-m", "ops.data.catalog.fetch", name, str(folder)]
    with (folder / "log").open("wb") as output:
        child = subprocess.Popen(  # noqa: S603
            command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=output,
        )  # fmt: skip
        try:
            late = _wait(child, folder)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with what it has started
            child.wait()
    if late or (child.returncode == 0 and (folder / product).exists()):
        return late
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"ended with code {child.returncode}"


def _wait(child: subprocess.Popen[bytes], folder: Path) -> str:
    """Wait for the end; the reason to stop where nothing has arrived by FIRST_BYTE_S, or it takes for ever."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(FIRST_BYTE_S)
        return ""
    if not any(p.stat().st_size for p in folder.glob("*/**/*") if p.is_file()):
        return f"nothing arrived in {FIRST_BYTE_S} s"
    with suppress(subprocess.TimeoutExpired):
        child.wait(_DOWNLOAD_S)
        return ""
    return f"not done after {_DOWNLOAD_S} s"
