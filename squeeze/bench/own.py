"""Kernel of the user's own: loaded from a file, and checked against float64 before it is timed."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from squeeze.bench.accuracy import error_bounds, make_logits, make_targets
from squeeze.bench.cases import LOGITS, TRAINING, Case, CaseInputs
from squeeze.errors import InputError
from squeeze.kernels.inputs import check_inputs
from squeeze.kernels.reference import reference_statistics
from squeeze.user_code import users_code

STATISTICS = ("target_logp", "argmax_logp", "logsumexp", "entropy", "peakiness")
_OPTIONS = ("softcap", "bias", "temperature", "logit_scale")


@dataclass(frozen=True)
class Check:
    """One hostile input and what came of it: `failure` is None where every bound was kept."""

    name: str
    failure: str | None


@dataclass(frozen=True)
class OwnKernel:
    """A function `f(targets, logits)` or `f(targets, hidden, head)`, with options it may take.

    It returns the targets' log-probs [T], or an object or dict with statistics by the names of
    `TokenStatistics`.
    """

    name: str
    function: Callable[..., Any]
    parameters: tuple[str, ...]

    @property
    def gives(self) -> str:
        """What the table says of it."""
        return "your kernel"

    @property
    def takes_logits(self) -> bool:
        """Whether it starts from logits, not from hidden states and a head."""
        return "logits" in self.parameters

    def takes(self, case: Case) -> bool:
        """Whether it can do this task; training where its result carries a gradient."""
        if case.task == LOGITS:
            return self.takes_logits
        if self.takes_logits:
            return False
        return case.task != TRAINING or self._is_differentiable()

    def call(self, inputs: CaseInputs) -> Tensor:
        """Return the log-probs of a case's targets."""
        if self.takes_logits:
            return _logps(self.function(inputs.targets, logits=inputs.logits))
        return _logps(self.function(inputs.targets, hidden=inputs.hidden, head=inputs.head))

    def _is_differentiable(self) -> bool:
        hidden, head = torch.ones(2, 8, requires_grad=True), torch.ones(5, 8)
        with torch.enable_grad():
            try:
                found = self.function(torch.tensor([0, 1]), hidden=hidden, head=head)
            except Exception:  # noqa: BLE001 - a kernel for a GPU only is checked there
                return False
        return _logps(found).requires_grad


def load_kernel(place: str) -> OwnKernel:
    """Import the function that "my_kernel.py:name" names. Raises InputError where it cannot be."""
    path, _, name = place.rpartition(":")
    if not path or not name:
        raise InputError(f"--kernel {place} must be FILE.py:FUNCTION, as in my_kernel.py:my_logps.")
    if not Path(path).is_file():
        raise InputError(f"--kernel {place}: there is no file {path}.")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"--kernel {place}: {path} is no Python file (its name must end in .py).")
    module = importlib.util.module_from_spec(spec)
    with users_code(f"--kernel {place}"):
        spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"--kernel {place}: {path} has no function {name}.")
    parameters = tuple(inspect.signature(function).parameters)
    if "logits" not in parameters and not {"hidden", "head"} <= set(parameters):
        raise InputError(
            f"--kernel {place} takes ({', '.join(parameters)}); it must take (targets, logits) or "
            "(targets, hidden, head), and may take bias, softcap, temperature and logit_scale."
        )
    return OwnKernel(f"{Path(path).stem}:{name}", function, parameters)


def check_kernel(kernel: OwnKernel, device: torch.device) -> list[Check]:
    """Run the kernel on hostile inputs and hold every statistic it gives to its error bound."""
    return [
        Check(name, _failure(kernel, targets.to(device), _moved(arguments, device)))
        for name, targets, arguments in _hostile(kernel)
    ]


def _hostile(kernel: OwnKernel) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
    """Name, targets and arguments of inputs on which kernels fail."""
    float32, halves = torch.float32, (torch.bfloat16, torch.float16)
    forms: list[tuple[str, str, int, int, torch.dtype, dict[str, Any]]] = [
        ("V = 4999, a multiple of nothing", "random", 7, 4999, float32, {}),
        ("T = 1", "random", 1, 1031, float32, {}),
        ("V = 1", "random", 3, 1, float32, {}),
        ("half of the logits −inf", "masked", 3, 3001, float32, {}),
        ("ties for the maximum", "tied", 3, 3001, float32, {}),
        ("logits of ±1e4", "huge", 3, 3001, float32, {}),
        *((f"{str(one)[6:]} inputs", "random", 5, 3001, one, {}) for one in halves),
        ("soft-cap", "random", 3, 3001, float32, {"softcap": 5.0}),
        ("temperature", "random", 3, 3001, float32, {"temperature": 0.7}),
        ("logit scale", "random", 3, 3001, float32, {"logit_scale": 0.0625}),
        ("bias", "random", 3, 3001, float32, {"bias": torch.linspace(-3, 3, 3001)}),
    ]
    for name, kind, n_tokens, vocab, dtype, options in forms:
        if not set(options) <= set(kernel.parameters):
            continue
        targets = make_targets(n_tokens, vocab)
        if kind == "masked":
            targets = targets.clamp(min=vocab // 2)
        logits = make_logits(kind, n_tokens, vocab, dtype)
        if kernel.takes_logits:
            if "bias" not in options:  # belongs to a head
                yield name, targets, {"logits": logits, **options}
        elif kind == "random":
            yield name, targets, {**_hidden(n_tokens, vocab, 40, dtype), **options}
        elif "bias" in kernel.parameters and dtype == float32:
            # Equal rows of a head, with the hostile logits as its bias.
            held = {"hidden": torch.ones(n_tokens, 8), "head": torch.zeros(vocab, 8)}
            yield name, targets, {**held, "bias": logits[0]}


def _hidden(n_tokens: int, vocab: int, width: int, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    shapes = {"hidden": n_tokens, "head": vocab}
    return {
        name: torch.randn(n, width, generator=generator).to(dtype) for name, n in shapes.items()
    }


def _failure(kernel: OwnKernel, targets: Tensor, arguments: dict[str, Any]) -> str | None:
    """What is wrong with the kernel's statistics, in words, or None."""
    try:
        with torch.no_grad():
            found = kernel.function(targets, **arguments)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return f"raises {error!r}"[:200]
    inputs = check_inputs(targets, **arguments)
    expected = reference_statistics(inputs)
    bounds = _bounds(inputs, targets)
    for name in STATISTICS:
        value = _statistic(found, name)
        if value is None:
            continue
        if value.shape != targets.shape:
            return f"{name} has shape {list(value.shape)}, not [{targets.shape[0]}]"
        truth = getattr(expected, name)
        wrong = ~((value == truth) | ((value.double() - truth).abs() <= bounds[name]))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            return (
                f"{name}[{row}] is {float(value[row]):.9g}, not {float(truth[row]):.9g} "
                f"± {float(bounds[name][row]):.1g}"
            )
    return None


def _bounds(inputs: Any, targets: Tensor) -> dict[str, Tensor]:
    """`error_bounds`, and room for what an honest kernel may do besides.

    A log-prob as the difference of two float32 numbers of the logits' size is off by an ulp of
    it; the matmul of H products by 6 √H u Σ|h||w|; a 16-bit head's logits are rounded to 16 bits.
    A GPU's exponential is off by twice a CPU's.
    """
    unit = 2.0**-24 * (2 if targets.is_cuda else 1)
    if inputs.logits is not None:
        raw, delta = inputs.logits.double(), 0.0
    else:
        raw = inputs.hidden.double() @ inputs.head.double().T
        products = (inputs.hidden.double().abs() @ inputs.head.double().abs().T).amax(-1)
        delta = 6 * inputs.hidden.shape[1] ** 0.5 * unit * products
        if inputs.bias is not None:
            raw = raw + inputs.bias.double()
        if inputs.hidden.dtype != torch.float32:
            delta = delta + torch.finfo(inputs.hidden.dtype).eps / 2 * raw.abs().amax(-1)
    z = inputs.transform.apply_(raw.clone())
    size = z.masked_fill(z.isinf(), 0.0).abs().amax(-1)
    return error_bounds(z, targets, unit, delta + 4 * unit * size)


def _statistic(found: Any, name: str) -> Tensor | None:
    if isinstance(found, Tensor):
        return found if name == "target_logp" else None
    value = found.get(name) if isinstance(found, dict) else getattr(found, name, None)
    return value if isinstance(value, Tensor) else None


def _logps(found: Any) -> Tensor:
    value = _statistic(found, "target_logp")
    if value is None:
        raise InputError(
            "the kernel returned no log-probs: return a tensor [T], or statistics with target_logp."
        )
    return value


def _moved(arguments: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in arguments.items()}
