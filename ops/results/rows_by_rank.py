"""Arrays of a run whose rows lie with several ranks: each writes the parts that it owns.

`ops.results.arrays` reads them, without torch.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import Arrays, save_arrays
from ops.clustering.owners import Owners
from ops.distributed.process_group import ProcessGroup
from ops.results.arrays import PARTS_OF, part_path


def save_rows(
    path: Path,
    group: ProcessGroup,
    offsets: Callable[[str], NDArray[np.int64] | None],
    rows: Mapping[str, NDArray[np.generic]],
    axis: int = 0,
) -> None:
    """Write arrays whose rows along `axis` ranks own by parts, all ranks together: NAME/part-00000.npz ... each.

    `offsets(name)` are the first rows of an array's parts; where there is one part, or None, rank 0 has all of it and
    writes it to NAME.npz.
    """
    whole: Arrays = {}
    by_part: dict[int, Arrays] = {}
    for name, array in rows.items():
        first = offsets(name)
        if first is None or len(first) == 2:
            whole[name] = array
            continue
        whole[PARTS_OF] = np.array(len(first) - 1)
        for part, at in Owners(first, group).slices():
            by_part.setdefault(part, {})[name] = array[at] if axis == 0 else array[:, at]
    for part, each in by_part.items():
        save_arrays(part_path(path, part), **each)
    if group.rank == 0 and whole:
        save_arrays(path, **whole)
