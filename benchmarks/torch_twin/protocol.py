"""How benchmarks/methods.py talks with a twin: one JSON line of settings, then a command a line on standard input."""

import json
import sys
import time

import torch


def serve(make_twin, make_batch):
    """Answers `parameters` with counts by network, `step` with the seconds of one train step; end of input ends it.

    `make_twin(config)` has `networks` (name → module) and `step(*batch)`; `make_batch(config)` gives its arguments.
    """
    config = json.loads(sys.stdin.readline())
    torch.set_num_threads(config["threads"])
    torch.manual_seed(0)
    batch, twin = make_batch(config), make_twin(config)
    for line in sys.stdin:
        if line.strip() == "parameters":
            counts = {name: sum(p.numel() for p in part.parameters()) for name, part in twin.networks.items() if part}
            print(json.dumps(counts), flush=True)
            continue
        start = time.perf_counter()
        twin.step(*batch)
        print(time.perf_counter() - start, flush=True)


class Average:
    """Exponential moving average of parameters."""

    def __init__(self, parameters, decay):
        self.parameters, self.decay = list(parameters), decay
        self.values = [p.detach().clone() for p in self.parameters]

    def update(self):
        if self.decay:
            with torch.no_grad():
                torch._foreach_lerp_(self.values, self.parameters, 1 - self.decay)
