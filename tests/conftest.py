"""Shape and type checks at run time: every annotation of ops and trainers is verified while the tests run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# an int is welcome where a float is asked for, as everywhere in Python
install_import_hook(["ops", "trainers"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
