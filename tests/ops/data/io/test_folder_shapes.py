"""Features of a folder that are no table are refused before anything else is read by their rows."""

from __future__ import annotations

import numpy as np
import pytest

from ops.data.load import load
from ops.errors import DataError


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
@pytest.mark.parametrize("beside", ["features.npz", "labels.csv"])
def test_features_that_are_no_table(tmp_path, shape, beside) -> None:
    x = np.ones(shape, np.float32)
    if beside == "features.npz":
        np.savez(tmp_path / beside, x=x, ids=np.arange(3))
    else:
        np.save(tmp_path / "features.npy", x)
        (tmp_path / "labels.csv").write_text("label\n1\n2\n3\n")
    with pytest.raises(DataError, match=r"features\.np."):
        load(str(tmp_path), knn=3)
