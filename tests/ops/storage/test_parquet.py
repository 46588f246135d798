"""Where predictions cannot go is said before any work."""

import pytest

from ops.errors import SettingsError
from ops.storage.parquet import check_file, write_pieces
from ops.storage.run_dir import scratch
from workflows import compare


@pytest.mark.parametrize(
    ("out", "told"), [("gs://b/x.parquet", "give a file or s3://BUCKET/KEY"), (".", "is a folder")]
)
def test_a_place_that_is_no_file_is_refused(out, told):
    with pytest.raises(SettingsError, match=f"^--out {out}: {told}"):
        check_file(out)


def test_what_is_read_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "features.parquet").touch()
    (tmp_path / "linked").symlink_to("data")
    given = ("run", ["data", "new.npy", "digits"])
    for out in ("run/model/model.safetensors", str(tmp_path / "run" / "new.parquet"), "data/../run/x"):
        with pytest.raises(SettingsError, match=f"^--out {out}: is in the run run, whose files stay as they are"):
            check_file(out, *given)
    (tmp_path / "new.npy").touch()
    for out in ("data/features.parquet", "linked/features.parquet", "new.npy"):
        with pytest.raises(SettingsError, match=f"^--out {out}: is a file of the input "):
            check_file(out, *given)
    with pytest.raises(SettingsError, match=r"^--out /dev/null: is no regular file; give another one$"):
        check_file("/dev/null", *given)
    with pytest.raises(SettingsError, match="is in the run s3://bucket/runs/a"):
        check_file("s3://bucket/runs/a/model/settings.json", "s3://bucket/runs/a", [])
    for out in ("data/new.parquet", "run.parquet", "s3://bucket/run/x"):
        check_file(out, *given)
    check_file("s3://bucket/runs/ab", "s3://bucket/runs/a", [])


@pytest.mark.slow
def test_an_input_in_a_bucket_is_not_replaced(s3):
    s3.put("inputs/features.csv", b"a")
    check_file("s3://tessera/inputs/new.parquet", "", ["s3://tessera/inputs"])
    with pytest.raises(SettingsError, match="is a file of the input s3://tessera/inputs; give another file"):
        check_file("s3://tessera/inputs/features.csv", "", ["s3://tessera/inputs"])


def test_a_link_in_the_place_of_a_temporary_file_is_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / ".x.parquet.tmp").symlink_to("victim")
    write_pieces(str(tmp_path / "x.parquet"), [{"id": [1]}])
    assert (tmp_path / "victim").read_text() == "theirs"
    assert not (tmp_path / "x.parquet").is_symlink()


def test_a_comparison_is_no_object(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"^--out s3://b/compare.html: give a file$"):
        compare.main(["run", "--out", "s3://b/compare.html"])
    assert list(tmp_path.iterdir()) == []


def test_a_relative_scratch_folder_is_this_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert scratch("scr") == tmp_path / "scr"
