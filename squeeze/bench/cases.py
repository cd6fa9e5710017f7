"""Cases of the log-prob benchmark: shapes of real models, and the inputs of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.errors import InputError
from squeeze.kernels.inputs import check_inputs
from squeeze.kernels.reference import reference_statistics

# name: (hidden width H, vocabulary V)
SHAPES = {"smollm2": (576, 49_152), "gemma-270m": (640, 262_144), "qwen3-4b": (2560, 151_936)}
LOGITS, HIDDEN, TRAINING = "logits", "hidden", "training"
# Rows on which errors are measured: the float64 reference keeps [rows, V] several times over.
CHECKED_ROWS = 16
# Twice the largest cache that is likely: 50 MB on an H100, 32 to 96 MB shared by cores of a CPU.
_ROTATED_BYTES = 192 * 2**20
_MOST_SETS = 32


@dataclass(frozen=True)
class Case:
    """One shape of one task: a probe from logits, one from hidden states, or a training step."""

    task: str
    shape: str
    n_tokens: int
    dtype: torch.dtype = torch.float32
    compiles: bool = False  # torch.compile takes half a minute for each function

    @property
    def title(self) -> str:
        """Task, shape and dtype in one line."""
        width, vocab = SHAPES[self.shape]
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.task} {self.shape} T={self.n_tokens} H={width} V={vocab} {dtype}"

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest array that any candidate makes: float32 [T, V]."""
        return self.n_tokens * SHAPES[self.shape][1] * 4

    @property
    def n_bytes(self) -> int:
        """Bytes that any kernel must read once: the logits, or hidden states and head."""
        width, vocab = SHAPES[self.shape]
        elements = self.n_tokens * vocab
        if self.task != LOGITS:
            elements = (self.n_tokens + vocab) * width * (1 if self.task == HIDDEN else 3)
        return elements * self.dtype.itemsize

    @property
    def n_operations(self) -> int:
        """Additions and multiplications of any kernel: the matmuls', or of a fold's 12 a logit."""
        width, vocab = SHAPES[self.shape]
        each = {LOGITS: 12, HIDDEN: 2 * width, TRAINING: 6 * width}[self.task]
        return self.n_tokens * vocab * each

    @property
    def weight(self) -> float:
        """About how long the case takes beside others: its calls, set-up, and compiling."""
        width, vocab = SHAPES[self.shape]
        matmuls = {LOGITS: 0, HIDDEN: 1, TRAINING: 3}[self.task]
        # One call: about 1 ns a logit, and 2 operations a multiply-add at 100 GFLOP/s.
        call = self.n_tokens * vocab * (1e-9 + matmuls * 2 * width / 1e11)
        return 5 + 30 * call + (40 if self.compiles else 0)


@dataclass(frozen=True)
class CaseInputs:
    """The tensors that all candidates of a case share; `logits` only where the task gives them."""

    targets: Int[Tensor, " tokens"]
    logits: Float[Tensor, "tokens vocab"] | None
    hidden: Float[Tensor, "tokens width"]
    head: Float[Tensor, "vocab width"]

    def any_logits(self) -> Float[Tensor, "tokens vocab"]:
        """The logits, or their matmul."""
        return self.logits if self.logits is not None else self.hidden @ self.head.T

    @property
    def n_bytes(self) -> int:
        """Bytes that a kernel has to read."""
        held = (self.hidden, self.head) if self.logits is None else (self.logits,)
        return sum(one.nbytes for one in held)


def rotated_inputs(case: Case, device: torch.device) -> list[CaseInputs]:
    """Return inputs that together exceed any cache, so that one in turn is read from memory.

    One alone where it does so by itself.
    """
    first = make_inputs(case, device)
    n_sets = min(_MOST_SETS, max(1, -(-_ROTATED_BYTES // first.n_bytes)))
    return [first, *(make_inputs(case, device, seed) for seed in range(1, n_sets))]


def make_inputs(case: Case, device: torch.device, seed: int = 0) -> CaseInputs:
    """Return random inputs with the spread of a language model's logits (standard deviation 3)."""
    width, vocab = SHAPES[case.shape]
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        made = torch.empty(shape, dtype=case.dtype, device=device)
        return made.normal_(generator=generator)

    targets = torch.randint(0, vocab, (case.n_tokens,), generator=generator, device=device)
    if case.task == LOGITS:
        logits = normal(case.n_tokens, vocab).mul_(3)
        return CaseInputs(targets, logits, normal(case.n_tokens, 0), normal(vocab, 0))
    hidden, head = normal(case.n_tokens, width), normal(vocab, width).mul_(3 / width**0.5)
    return CaseInputs(targets, None, hidden, head)


def expected_output(case: Case, inputs: CaseInputs) -> Float[Tensor, "rows ..."]:
    """Return the float64 truth on the first rows: log-probs, or for training ∂Σlogp/∂hidden."""
    rows = slice(0, CHECKED_ROWS)
    targets = inputs.targets[rows]
    if case.task == LOGITS:
        assert inputs.logits is not None
        checked = check_inputs(targets, logits=inputs.logits[rows])
        return reference_statistics(checked).target_logp
    hidden, head = inputs.hidden[rows], inputs.head
    if case.task == HIDDEN:
        return reference_statistics(check_inputs(targets, hidden=hidden, head=head)).target_logp
    probs = torch.softmax(hidden.double() @ head.double().T, -1)
    return head[targets].double() - probs @ head.double()


def select_cases(
    device: torch.device, *, quick: bool, shapes: list[str] | None = None
) -> list[Case]:
    """Return the cases for a device; `shapes` narrows them. Raises InputError on unknown shapes."""
    unknown = [shape for shape in shapes or [] if shape not in SHAPES]
    if unknown:
        raise InputError(f"--shapes {unknown[0]} is not known; choose from {', '.join(SHAPES)}.")
    cases = _gpu_cases(quick) if device.type == "cuda" else _cpu_cases(quick)
    return [case for case in cases if shapes is None or case.shape in shapes]


def _cpu_cases(quick: bool) -> list[Case]:
    bf16 = torch.bfloat16
    if quick:
        return [
            Case(LOGITS, "smollm2", 64),
            Case(LOGITS, "smollm2", 512),
            Case(LOGITS, "smollm2", 512, bf16),
            Case(HIDDEN, "smollm2", 128),
            Case(HIDDEN, "smollm2", 64, bf16),
            Case(TRAINING, "smollm2", 64),
        ]
    return [
        Case(LOGITS, "smollm2", 64),
        Case(LOGITS, "smollm2", 512, compiles=True),
        Case(LOGITS, "smollm2", 512, bf16),
        Case(LOGITS, "smollm2", 4096),
        Case(LOGITS, "smollm2", 16_384),
        Case(LOGITS, "gemma-270m", 64),
        Case(LOGITS, "gemma-270m", 1024),
        Case(LOGITS, "qwen3-4b", 64),
        Case(LOGITS, "qwen3-4b", 1024),
        Case(HIDDEN, "smollm2", 64),
        Case(HIDDEN, "smollm2", 512, compiles=True),
        Case(HIDDEN, "smollm2", 512, bf16),
        Case(HIDDEN, "smollm2", 2048),
        Case(HIDDEN, "gemma-270m", 64),
        Case(HIDDEN, "gemma-270m", 256),
        Case(HIDDEN, "qwen3-4b", 64),
        Case(HIDDEN, "qwen3-4b", 64, bf16),
        Case(TRAINING, "smollm2", 64),
        Case(TRAINING, "smollm2", 512, compiles=True),
        Case(TRAINING, "gemma-270m", 64),
        Case(TRAINING, "qwen3-4b", 64),
    ]


def _gpu_cases(quick: bool) -> list[Case]:
    # A run that is stopped has some lengths of every task, not some tasks.
    lengths = (512,) if quick else (512, 64, 2048, 8192, 16_384)
    return [
        Case(task, shape, n_tokens, torch.bfloat16, compiles=n_tokens == 512)
        for n_tokens in lengths
        for task in (LOGITS, HIDDEN, TRAINING)
        for shape in SHAPES
    ]
