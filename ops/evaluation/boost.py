"""The search over all users with the notes of the own cluster boosted by a factor that validation pairs choose.

Evaluation: sees hidden pairs, so no trainer may import it. Axes: n users of this worker.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from ops.evaluation.neighbors import Similar
from ops.evaluation.recall import RecallRow, Task, list_metrics, lists_of, scored_lists, similar_row

BOOSTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


def boosted(
    task: Task, validation: Task, search: Callable[[Task], Similar], clusters: Int64[np.ndarray, "n"], name: str
) -> tuple[RecallRow, RecallRow]:
    """Rows of a search over all users without and with the notes of its cluster boosted: score x (1 + b).

    `search` gives the neighbours of a task's queries, e.g. `lambda t: near(t, z, None)`. b is the one of BOOSTS with
    the best recall@50 on the `validation` task, the smallest of equals; the test pairs have no say. A search inside
    the same clusters could not change: all of its notes were touched there.
    """
    neighbours, similar = search(validation), search(task)
    recalls = [list_metrics(lists_of(validation, neighbours, b, clusters), validation)["recall@50"] for b in BOOSTS]
    b = BOOSTS[int(np.argmax([np.mean(each) for each in recalls]))]
    lists, note = lists_of(task, similar, b, clusters), f"b = {b:g}, chosen on validation pairs"
    return similar_row(task, similar, name), scored_lists(task, lists, f"{name}, boosted", similar.scanned, note)
