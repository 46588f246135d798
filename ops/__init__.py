"""The operations that trainers and workflows are made of."""

import os

# Read once, when torch is imported; what a process starts in turn inherits it. The user's own values stay.
FOR_TORCH = {
    # Threads of OpenMP sleep while they wait: spinning ones take the cores of their neighbours.
    "OMP_WAIT_POLICY": "passive",
    # Arrays of 2 MiB and more lie in pages of 2 MiB where Linux gives these to who asks: steps that make new arrays
    # again and again (attention, dense layers) then do not wait for hundreds of pages of 4 KiB each.
    "THP_MEM_ALLOC_ENABLE": "1",
}
for _name, _value in FOR_TORCH.items():
    os.environ.setdefault(_name, _value)
