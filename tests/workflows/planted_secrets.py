"""Commands run with secrets planted in their environment, watched while they run; where the secrets must not be."""

import ipaddress
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import open_ports
from processes import MARK, RAY, Ended, Nursery, marked

PLANTED = "Vt3rraten"  # a part of every planted secret
KEYS = {
    name: f"{PLANTED}-{name}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
                 "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
}  # fmt: skip
QUOTED = f"http://me:it's {PLANTED}@127.0.0.1:1"
PASSWD = f"mysql+pymysql://127.0.0.1:1/db?user=me&passwd={PLANTED}"
ODBC = f"mssql+pyodbc:///?odbc_connect=DRIVER={{ODBC Driver 18}};SERVER=127.0.0.1,1;UID=me;PWD=a {PLANTED}"
SIGNED = f"https://127.0.0.1:1/store?sv=2024&sig={PLANTED}%3D"


@contextmanager
def ray_sessions() -> Iterator[Path]:
    """A folder for Ray's sessions with their logs; a short path, for sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Runner:
    """Runs commands with planted secrets in their environment, and looks at what they start while they run."""

    def __init__(self, nursery: Nursery, folder: Path, ray_folder: Path) -> None:
        self.nursery, self.mark, self.ray_folder = nursery, nursery.mark, ray_folder
        self.folder = folder / "w"
        self.folder.mkdir()

    def __call__(self, program: str, *arguments: str, listeners: tuple[str, ...] = (), **variables: str) -> Ended:
        """`listeners`: processes whose open ports have to be seen, else the test would pass where nothing runs."""
        given = KEYS | {"RAY_TMPDIR": str(self.ray_folder), MARK: self.mark} | variables
        imports = RAY if listeners else ()
        self.nursery.start([*arguments], program=program, variables=given, folder=self.folder, imports=imports)
        ports, commands = set[tuple[str, str]](), set[str]()
        while not self.nursery.ended():
            started = marked(self.mark)
            ports |= open_ports(started)
            commands |= set(started.values())
            time.sleep(0.4)  # a look reads all of /proc
        ended = self.nursery.wait()
        (self.folder / "log").write_text(ended.out + ended.err)
        assert [each for each in commands if PLANTED in each] == []
        assert {(title, where) for title, where in ports if not ipaddress.ip_address(where).is_loopback} == set()
        assert all(any(word in title for title, _ in ports) for word in listeners), ports
        return ended


def contents(*folders: Path) -> dict[str, bytes]:
    """Every file below these folders."""
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def assert_nothing(written: dict[str, bytes], *more: str, least: int = 4) -> None:
    """No file (of which there are `least`), and no name of one, holds a planted secret, or one of `more`."""
    assert len(written) >= least, "the test has looked nowhere"
    for word in (PLANTED, *more):
        assert [name for name, content in written.items() if word in name or word.encode() in content] == []
