"""Arms: sequences of phases from one pretrained model, trained through TRL and probed as they go.

Phases that several arms begin with are trained once. All of it lives in one work directory, so that
a killed process goes on at its last probe and a finished one only reads. What a run shows, judges
and reports is `replicate`'s business.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import torch
from filelock import FileLock
from pydantic import TypeAdapter

from squeeze import interrupt
from squeeze.cache import damaged, seal, unseal
from squeeze.data.encoding import EncodedItem
from squeeze.data.examples import PreferenceExample
from squeeze.distributed import is_main, main_only, on_main
from squeeze.files import having, read_as, write_json
from squeeze.scoring import ScoredResponse
from squeeze.training.arms import Arm, Phase
from squeeze.training.config import RunConfig
from squeeze.training.phase_place import PhasePlace
from squeeze.training.probe_callback import ProbeCallback, Prober, StepCallback
from squeeze.training.samples import chosen_tokens
from squeeze.training.trainers import make_trainer, merge_adapter, train_phase
from squeeze.trajectory import ProbePoint, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Phases = tuple[Phase, ...]
_Token = Annotated[dict[str, str | float], having("text", "logp", "argmax", "argmax_logp")]
_TOKENS: TypeAdapter[dict[str, list[dict[str, Any]]]] = TypeAdapter(dict[str, list[_Token]])
_SEALED = ("trajectory.parquet", "tokens.json", "log.json", "pairs.json")


def not_default(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults: what names it lastingly.

    A field added later leaves the names of everything without it as they were.
    """
    defaults = {
        f.name: f.default_factory() if f.default_factory is not MISSING else f.default
        for f in fields(value)
    }
    return {key: v for key, v in asdict(value).items() if v != defaults[key]}


def phases_key(phases: Phases) -> str:
    """The name of a sequence of phases: the same for every arm that begins with it."""
    if not phases:
        return "base"
    text = json.dumps([not_default(phase) for phase in phases], sort_keys=True)
    kinds = "-".join(phase.kind for phase in phases)
    return f"{kinds}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class ArmTrainer:
    """Trains arms on `train`, scoring `items` before, between and during their phases.

    `load` gives the pretrained model and is called only if something is left to do. `examples`,
    if given, tells what a sequence of phases trains its last phase on instead of `train`.
    `probed(phases, probe)` is called after each new probe, `stepped(phase)` after each optimizer
    step, `started(phases, trainer)` before a phase trains, `say(sentence)` where a damaged
    checkpoint makes it go further back. `seconds` is the time it took to load, probe and train.
    Where a signal asks for it, a phase stops at its next step with `Interrupted`. `locks` keep
    another run from a phase that this one is at.
    """

    def __init__(
        self,
        load: Callable[[], PreTrainedModel],
        tokenizer: PreTrainedTokenizerBase,
        train: Sequence[PreferenceExample],
        items: Sequence[EncodedItem],
        config: RunConfig,
        work: Path,
        dtype: torch.dtype = torch.float32,
        examples: Callable[[Phases], Sequence[PreferenceExample]] | None = None,
        locks: bool = True,
    ) -> None:
        self._load, self._locks = load, locks
        self._base: PreTrainedModel | None = None
        self.tokenizer = tokenizer
        self.items = items
        self.config = config
        self.work = work
        self.dtype = dtype
        self.examples = examples or (lambda phases: train)
        self.started: Callable[[Phases, Any], None] = lambda phases, trainer: None
        self.probed: Callable[[Phases, int], None] = lambda phases, probe: None
        self.stepped: Callable[[Phase], None] = lambda phase: None
        self.say: Callable[[str], object] = lambda text: None
        self._prober = Prober(items, dtype)
        self._written: dict[str, Trajectory] = {}  # what this process has put on disk, by phases
        self.seconds: dict[str, float] = defaultdict(float)

    # --- what is there --------------------------------------------------------------------------

    def place(self, phases: Phases) -> PhasePlace:
        """Where the last of these phases keeps its files."""
        return PhasePlace(self.work / phases_key(phases))

    def rows(self, phases: Phases) -> Trajectory:
        """The probes of the last of these phases; of the untrained model if there are none."""
        path, written = self._rows_file(phases), self._written.get(phases_key(phases))
        if written is not None:
            return written
        return Trajectory.read(path) if path.exists() else Trajectory.empty()

    def _rows_file(self, phases: Phases) -> Path:
        return self.place(phases).directory / "trajectory.parquet"

    def trajectory(
        self, arm: Arm, rows_of: Callable[[Phases], Trajectory] | None = None
    ) -> Trajectory:
        """The arm's probes so far, numbered through; steps and epochs count within a kind.

        `rows_of` gives a sequence of phases' probes where they are not this trainer's.
        """
        frames: list[pd.DataFrame] = []
        probes, done = 0, {"base": (0, 0.0), "sft": (0, 0.0), "dpo": (0, 0.0)}
        for length in range(len(arm.phases) + 1):
            phases = arm.phases[:length]
            rows = (rows_of or self.rows)(phases).frame
            if rows.empty:
                break
            kind = phases[-1].kind if phases else "base"
            step, epoch = done[kind]
            frames.append(
                rows.assign(
                    arm=arm.name,
                    step=rows["step"] + step,
                    epoch=rows["epoch"] + epoch,
                    probe=rows["probe"] + probes,
                )
            )
            probes += int(rows["probe"].max()) + 1
            done[kind] = (step + int(rows["step"].max()), epoch + float(rows["epoch"].max()))
        return Trajectory(pd.concat(frames, ignore_index=True)) if frames else Trajectory.empty()

    def tokens(self, phases: Phases) -> dict[str, list[dict[str, Any]]]:
        """The chosen answers' tokens at the end of these phases, as `samples.chosen_tokens`."""
        way_out = "delete the directory that it is in, and resume: the phase is trained again"
        return read_as(self._tokens_file(phases), _TOKENS, way_out)

    def _tokens_file(self, phases: Phases) -> Path:
        return self.place(phases).directory / "tokens.json"

    # --- models ---------------------------------------------------------------------------------

    @property
    def base(self) -> PreTrainedModel:
        """The pretrained model, loaded on first use; not to be trained."""
        if self._base is None:
            start = time.perf_counter()
            self._base = self._load()
            self.seconds["load"] += time.perf_counter() - start
        return self._base

    def model(self, phases: Phases) -> PreTrainedModel:
        """A copy of the pretrained model with the adapters of these finished phases merged."""
        model = copy.deepcopy(self.base)
        for length in range(1, len(phases) + 1):
            model = merge_adapter(model, self.place(phases[:length]))
        return model

    # --- work -----------------------------------------------------------------------------------

    def probe_base(self) -> None:
        """Score the untrained model, where every arm starts."""
        with self._locked(()):
            self._mend(())
            if on_main(self._rows_file(()).exists):
                return
            self._record((), 0, 0.0, self._probed_base())

    def _probed_base(self) -> list[ScoredResponse]:
        base, before = self.base, self._prober.seconds
        responses = self._prober(base)
        self.seconds["probe"] += self._prober.seconds - before
        return responses

    def train(self, arm: Arm, wait: bool = True) -> None:
        """Train what is missing of an arm.

        Another run may be at a phase of it: with `wait` this one waits and reads, without it raises
        `filelock.Timeout`.
        """
        self.probe_base()
        for length in range(1, len(arm.phases) + 1):
            phases = arm.phases[:length]
            interrupt.stop_if_requested()
            with self._locked(phases, wait):
                self._mend(phases)
                adapter = self.place(phases).adapter
                if not on_main(adapter.exists):
                    self._train_last(phases)
                    self._seal(phases)
            interrupt.stop_if_requested()

    @main_only
    def _seal(self, phases: Phases) -> None:
        """Note the checksums of what these phases have written so far, checkpoints apart."""
        place = self.place(phases)
        adapter = [path.relative_to(place.directory) for path in place.adapter.glob("*")]
        seal(place.directory, [*_SEALED, *map(str, adapter)])

    @main_only
    def _mend(self, phases: Phases) -> None:
        """Start the last of these phases over where a file of it is not as it was written."""
        place = self.place(phases)
        if (name := damaged(place.directory)) is None:
            return
        what = phases[-1].kind if phases else "the untrained model"
        self.say(f"{what}: {place.directory / name} is damaged; it is made again")
        place.empty()
        self._written.pop(phases_key(phases), None)

    def _locked(self, phases: Phases, wait: bool = True) -> AbstractContextManager[object]:
        """Two runs that need the same phase: one works, the other waits and reads.

        Of a run in several processes the main one asks; the others wait for what it then says.
        """
        if not (self._locks and is_main()):
            return nullcontext()
        directory = self.place(phases).directory
        directory.mkdir(parents=True, exist_ok=True)
        return FileLock(directory / "lock", blocking=wait)

    def _train_last(self, phases: Phases) -> None:
        phase, place = phases[-1], self.place(phases)
        step = self._resume_step(phases)
        start, before = time.perf_counter(), self._prober.seconds

        def record(step: int, epoch: float, responses: list[ScoredResponse]) -> None:
            self._record(phases, step, epoch, responses)

        def wanted(epoch: float) -> bool:
            return epoch >= phase.epochs or epoch % phase.probe_every < 1e-6

        def between(step: int) -> None:
            on_main(lambda: place.mark_between(step))

        trainer = make_trainer(
            self.model(phases[:-1]),
            self.tokenizer,
            self.examples(phases),
            phase,
            self.config,
            place,
            [
                ProbeCallback(self._prober, record, wanted, between),
                StepCallback(lambda: self.stepped(phase)),
            ],
            bf16=self.dtype == torch.bfloat16,
        )
        on_main(lambda: self.started(phases, trainer))
        train_phase(trainer, place, step)
        probing = self._prober.seconds - before
        self.seconds["probe"] += probing
        self.seconds["train"] += time.perf_counter() - start - probing

    @main_only
    def _resume_step(self, phases: Phases) -> int | None:
        """The step that these phases go on from; probes and checkpoints after it are dropped."""
        place, rows = self.place(phases), self.rows(phases)
        probed = [point.step for point in rows.points("")]
        step = place.resume_step(probed)
        lost = [s for s in probed if s > (step or 0)]
        if lost:
            where = f"step {step}" if step else "its start"
            self.say(
                f"{phases[-1].kind}: the checkpoint of step {lost[-1]} is not whole; the phase "
                f"goes on from {where}, and {len(lost)} of its probes are taken again"
            )
            rows = Trajectory(rows.frame[rows.frame["step"] <= (step or 0)].reset_index(drop=True))
            unseal(place.directory, _SEALED)
            rows.write(self._rows_file(phases))
            self._seal(phases)
        place.keep_until(step)
        self._written[phases_key(phases)] = rows
        return step

    @main_only
    def _record(
        self, phases: Phases, step: int, epoch: float, responses: Sequence[ScoredResponse]
    ) -> None:
        """Put a probe on disk before anything else goes on."""
        rows = self.rows(phases)
        probe = len(rows.points(""))
        kind = phases[-1].kind if phases else "base"
        scores = [response.summary() for response in responses]
        rows = rows.append(ProbePoint("", kind, step, epoch, probe), scores)
        unseal(self.place(phases).directory, _SEALED)
        write_json(self._tokens_file(phases), chosen_tokens(responses, self.tokenizer))
        rows.write(self._rows_file(phases))
        self._written[phases_key(phases)] = rows
        self._seal(phases)
        if phases:
            self.place(phases).seal(step)
            self.place(phases).keep_newest()
        self.probed(phases, probe)
