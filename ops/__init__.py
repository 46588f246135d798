"""The operations that trainers and workflows are made of."""

import os

# Threads of OpenMP sleep while they wait: spinning ones take the cores of their neighbours. It is read once, when torch
# is imported; what a process starts in turn inherits it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
