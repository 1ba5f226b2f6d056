"""Time and memory of one training step of `emoe-paper` at the published size, on the CPU.

    python benchmarks/emoe_paper_step.py [--steps 2]

MOSI's sizes, word-aligned: 16 utterances of 50 word pieces, 50 x 20 vision and 50 x 5 audio; BERT of the published size
with random weights, all of it trained with Adam. Peak memory is that of the process, as the system counted it.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import pairwise

import torch

from emopipe.models.data.dataset import Batch
from emopipe.models.networks.model import FusionModel, Shape
from emopipe.models.registry import build

DIMS = {"text": 768, "face": 20, "voice": 5}
UTTERANCES, STEPS = 16, 50


def batch() -> Batch:
    """Random utterances of full length."""
    features = {name: torch.randn(UTTERANCES, STEPS, dim) for name, dim in DIMS.items()}
    lengths = torch.full((UTTERANCES, len(DIMS)), STEPS)
    quality = torch.ones(UTTERANCES, len(DIMS))
    tokens = torch.randint(1000, 30000, (UTTERANCES, STEPS))
    return Batch(tuple(DIMS), features, lengths, lengths > 0, quality, 6 * torch.rand(UTTERANCES) - 3, tokens=tokens)


def step(model: FusionModel, optimiser: torch.optim.Optimizer, data: Batch) -> list[float]:
    """Seconds of forward, backward and update."""
    times = [time.perf_counter()]
    optimiser.zero_grad(set_to_none=True)
    loss = model.loss(model(data), data)["total"]
    times.append(time.perf_counter())
    loss.backward()  # type: ignore[no-untyped-call]
    times.append(time.perf_counter())
    optimiser.step()
    times.append(time.perf_counter())
    return [after - before for before, after in pairwise(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="how many; the first one also allocates Adam's moments")
    count = parser.parse_args().steps
    torch.manual_seed(0)
    model = build("emoe-paper", Shape(DIMS, 1, "regression")).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {torch.get_num_threads()} threads")
    for number in range(1, count + 1):
        forward, backward, update = step(model, optimiser, batch())
        total = forward + backward + update
        print(f"step {number}: {total:.1f} s (forward {forward:.1f}, backward {backward:.1f}, update {update:.1f})")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
