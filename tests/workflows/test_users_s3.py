"""Users whose graph, parts, results and embeddings are in a bucket of a real S3 server."""

import io

import pyarrow.parquet as pq
import pytest
from s3_world import BUCKET


@pytest.mark.slow
def test_parts_and_embeddings_of_users_are_in_the_bucket(nursery, s3, tmp_path):
    def run(program, *words):
        cache = {"TESSERA_CACHE": str(tmp_path / "cache")}
        ended = nursery.run([*words], program=program, folder=tmp_path, variables=cache)
        assert ended.code == 0, ended.err

    out = ["--out", f"s3://{BUCKET}/out", "--scratch", str(tmp_path / "scratch"), "--threads", "1", "--epochs", "2"]
    run("generate_graph", "--users", "400", "--notes", "200", "--clusters", "4", "--out", str(tmp_path / "g"))
    run("partition_graph", "--graph", str(tmp_path / "g"), "--parts", "2", "--out", f"s3://{BUCKET}/parts")
    run("train", "hgt", "--dataset", f"s3://{BUCKET}/parts", "--n-clusters", "4", "--name", "parts", *out)
    run("train", "twhin", "--dataset", "planted:users=300,clusters=4", "--name", "planted", *out)
    of_parts = [f"parts/embeddings/part-0000{part}.parquet" for part in (0, 1)]
    for names, users in ((of_parts, 400), (["planted/embeddings.parquet"], 300)):
        tables = [pq.read_table(io.BytesIO(s3.get(f"out/{name}"))) for name in names]
        assert sum(table.num_rows for table in tables) == users
        assert tables[0].column_names == ["id", "vector", "cluster", "confidence"]
