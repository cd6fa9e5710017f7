"""LD-5's experiment on scikit-learn's digits: what one update on a 4 does to the 4 of other images.

The recipe and the expected outcomes below were settled on the development seeds 0–4, then evaluated
on 100–104. That was done twice: the first intervals were over seeds and updates, and with those,
permuted labels passed for an order in one row, for all updates share the few observed images. They
are over seeds and observed images now (twelve sets of seeds with permuted labels: no row passes).

That 9s come before 0s is expected not to be reproduced. On the development seeds 9s gained less
probability than 0s under most recipes tried (multilayer perceptron and convolutional net, 3–12
epochs): at 8×8 pixels the nets give 0s more of the 4's probability than 9s, and a gain in
probability is that in log-probability times the probability there was. ‖K‖ leans to the 9s, by
less than its interval.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from squeeze.claims.decomposition import RANKS, DigitInfluence
from squeeze.theory.decomposition import UpdateTerm, logp_residual, measured_change
from squeeze.theory.entk import jacobian, module_logits, trainable_parameters
from tests.theory.systems import convolutional, digits

DEVELOPMENT_SEEDS = (0, 1, 2, 3, 4)
EVALUATION_SEEDS = (100, 101, 102, 103, 104)

CLASSES = (4, 9, 0)
UPDATED_CLASS = 4
N_TRAINING = 1200
N_UPDATES = 20
N_OBSERVED = 40  # a class, none of them trained on
EPOCHS = 5
BATCH = 32
ADAM_LEARNING_RATE = 5e-3
UPDATE_LEARNING_RATE = 1e-3

EXPECTED = {
    "probability: 4s above 9s": "supported",
    "probability: 9s above 0s": "inconclusive",
    "‖K‖: 4s above 9s": "supported",
    "‖K‖: 9s above 0s": "inconclusive",
    RANKS: "supported",
}


def trained(images: Tensor, labels: Tensor) -> nn.Module:
    """A small convolutional net after a few epochs; torch's seed is the caller's."""
    model = convolutional()
    optimizer = torch.optim.Adam(model.parameters(), lr=ADAM_LEARNING_RATE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


def measure(
    seeds: tuple[int, ...], *, permute_labels: bool = False, permute_kernel: bool = False
) -> DigitInfluence:
    """Train a net a seed and update it once on each of 20 training 4s, from the same weights.

    Every seed sees the same split, updates and observed images. With `permute_labels` the images'
    labels are shuffled beforehand, for training, updates and classes alike; with `permute_kernel`
    each observed image gets the ‖K‖ of another.
    """
    runs = [_measure_seed(seed, permute_labels, permute_kernel) for seed in seeds]
    changes, logp_changes, norms = (np.stack(part) for part in zip(*runs, strict=True))
    correlation = np.array(
        [
            [stats.spearmanr(n, c).statistic for n, c in zip(*run, strict=True)]
            for run in zip(norms, changes, strict=True)
        ]
    )

    def by_class(values: np.ndarray) -> dict[int, np.ndarray]:
        parts = np.split(values, len(CLASSES), axis=2)
        return {label: part.mean(axis=1) for label, part in zip(CLASSES, parts, strict=True)}

    return DigitInfluence(
        seeds, by_class(changes), by_class(logp_changes), by_class(norms), correlation
    )


def _measure_seed(
    seed: int, permute_labels: bool, permute_kernel: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return change of π(4), change of log π(4) and ‖K‖, each [updates, observed images]."""
    images, labels = digits()
    images = images.float()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    training, held_out = order.split([N_TRAINING, len(order) - N_TRAINING])
    torch.manual_seed(seed)
    if permute_labels:
        labels = labels[torch.randperm(len(labels))]
    model = trained(images[training], labels[training])
    weights = trainable_parameters(model)
    updates = training[labels[training] == UPDATED_CLASS][:N_UPDATES]
    seen = torch.cat([held_out[labels[held_out] == c][:N_OBSERVED] for c in CLASSES])
    observed = module_logits(model, images[seen])

    def jacobians(which: Tensor) -> Tensor:
        return torch.func.vmap(lambda x: jacobian(module_logits(model, x[None]), weights)[0])(
            images[which]
        )

    blocks = torch.einsum("map,lbp->lmab", jacobians(seen), jacobians(updates))
    norms = torch.linalg.matrix_norm(blocks)
    if permute_kernel:
        norms = norms[:, torch.randperm(len(seen))]
    raise_four = logp_residual(torch.tensor([UPDATED_CLASS]), weight=-1.0)
    logp_change = torch.stack(
        [
            measured_change(
                observed,
                [UpdateTerm(module_logits(model, images[u][None]), raise_four)],
                weights,
                UPDATE_LEARNING_RATE,
            )[:, UPDATED_CLASS]
            for u in updates
        ]
    )
    before = torch.softmax(observed(weights), dim=-1)[:, UPDATED_CLASS].detach()
    change = before * torch.expm1(logp_change)
    return change.double().numpy(), logp_change.double().numpy(), norms.double().numpy()
