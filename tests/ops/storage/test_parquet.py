"""Where predictions cannot go is said before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabricate import make_run

from ops.errors import SettingsError
from ops.storage.parquet import check_file
from ops.storage.run_dir import scratch
from workflows import compare


@pytest.mark.parametrize(
    ("out", "told"), [("gs://b/x.parquet", "give a file or s3://BUCKET/KEY"), (".", "is a folder")]
)
def test_a_place_that_is_no_file_is_refused(out: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"^--out {out}: {told}"):
        check_file(out)


def test_files_and_objects_are_taken(tmp_path: Path) -> None:
    check_file(str(tmp_path / "new" / "x.parquet"))
    check_file("s3://bucket/x.parquet")


def test_a_comparison_is_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"^--out s3://b/compare.html: give a file$"):
        compare.main(["run", "--out", "s3://b/compare.html"])
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_goes_into_a_folder_too(tmp_path: Path) -> None:
    run, folder = make_run(tmp_path / "run"), tmp_path / "pages"
    folder.mkdir()
    compare.main([str(run), "--out", str(folder)])
    assert [path.name for path in folder.iterdir()] == ["compare.html"]


def test_a_relative_scratch_folder_is_this_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert scratch("scr") == tmp_path / "scr"
