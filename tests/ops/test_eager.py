"""Optimisers without torch's compiler: it is not loaded, and no bit of what they compute differs."""

import subprocess
import sys

import pytest

STEPS = """
import sys, torch
from ops import memory
if sys.argv[1] == "without":
    memory.preload()
for kind in (torch.optim.Adam, torch.optim.SGD):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    optimizer = kind(layer.parameters(), lr=0.1)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.2})
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    print(layer.weight.detach().numpy().tobytes().hex(), torch.is_grad_enabled(), layer.weight.requires_grad)
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
def test_optimisers_of_a_training_do_not_load_the_compiler_and_step_the_same():
    said = {}
    for how in ("with", "without"):
        done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
        *said[how], loaded = done.stdout.splitlines()
        assert loaded == str(how == "with")
    assert said["with"] == said["without"]
    assert len(said["with"]) == 2
