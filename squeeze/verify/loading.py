"""Subjects from what a user names: `module:function`, a TRL trainer, or data and a model."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeeze.data.encoding import apply_template
from squeeze.data.loading import open_data
from squeeze.errors import InputError
from squeeze.files import parse_json, read_text
from squeeze.models import load_tokenizer
from squeeze.user_code import users_code
from squeeze.verify.families import is_group_relative
from squeeze.verify.functions import LogpsSubject, LossSubject
from squeeze.verify.groups import GroupInstance, GroupSubject
from squeeze.verify.llamafactory import llamafactory_subject
from squeeze.verify.preflight import DataSubject
from squeeze.verify.subject import InstanceSubject, TrainerSubject
from squeeze.verify.trl_trainers import trl_subject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Subject = TrainerSubject | DataSubject | LossSubject | LogpsSubject


def subject_from(
    given: Any, *, name: str, model_directory: Path | None = None, data: list[Any] | None = None
) -> Subject:
    """A subject as it is; a transformers Trainer, or a factory of them, as a subject.

    Raises `InputError` for anything else.
    """
    from transformers import Trainer

    if isinstance(given, Subject):
        return given
    if isinstance(given, Trainer):
        return GroupInstance(given) if is_group_relative(given) else InstanceSubject(given)
    if callable(given):
        return _of_factory(given, name=name, model_directory=model_directory, data=data)
    raise InputError(
        f"{name} is a {type(given).__name__}; give a function make_trainer(model, data, "
        "**options), a Trainer, or a subject of squeeze.verify"
    )


def _of_factory(given: Any, **settings: Any) -> TrainerSubject:
    """A subject of the kind that the factory's trainer is, which is built once to see it."""
    subject = TrainerSubject(given, **settings)
    try:
        if not is_group_relative(subject.trainer):
            return subject
    except InputError:  # a batch of rows is not one of whole groups
        groups = GroupSubject(given, **settings)
        try:
            found = is_group_relative(groups.trainer)
        except InputError:
            return subject  # which says what is wrong when it is asked
        return groups if found else subject
    return GroupSubject(given, **settings)


def load_subject(spec: str, *, model: str | None = None, data: str | None = None) -> Subject:
    """The subject that `module:attribute` names, the module found from the working directory.

    A file that ends in .yaml or .yml is a configuration of LLaMA-Factory. Raises `InputError`
    naming what is missing.
    """
    if spec.endswith((".yaml", ".yml")):
        return llamafactory_subject(spec)
    module_name, _, attribute = spec.partition(":")
    if not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"{spec!r} names no function; write module:function")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with users_code(f"importing the module {module_name!r}"):
        module = importlib.import_module(module_name)
    if not hasattr(module, attribute):
        raise InputError(f"{module_name} has no {attribute!r}")
    return subject_from(
        getattr(module, attribute),
        name=spec,
        model_directory=_directory(model),
        data=None if data is None else read_rows(data),
    )


def trl_trainer(
    name: str, loss_type: str | None, *, model: str | None = None, **settings: Any
) -> Subject:
    """A TRL trainer by name, on a model's directory or a tiny one; raises as `trl_subject`."""
    return trl_subject(name, loss_type, model_directory=_directory(model), **settings)


def preflight(
    data: str,
    model: str,
    *,
    max_length: int | None = 1024,
    template: str | None = None,
    limit: int | None = None,
) -> DataSubject:
    """Data and a model's tokenizer; `template` is what it is trained with, if not its own.

    Raises `InputError` for data or a model that cannot be read.
    """
    tokenizer = load_tokenizer(model)
    at_inference: PreTrainedTokenizerBase | None = None
    if template is not None:
        at_inference = load_tokenizer(model)
        _set_template(tokenizer, template)
    rows = read_rows(data)[:limit]
    return DataSubject(
        rows,
        tokenizer,
        max_length=max_length,
        at_inference=at_inference,
        name=f"{data} for {model}",
    )


def _set_template(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    file = Path(template)
    if file.is_file():
        tokenizer.chat_template = read_text(file, "--template")
        apply_template(tokenizer, "model")
    else:
        apply_template(tokenizer, template)


def read_rows(data: str) -> list[Mapping[str, Any]]:
    """Rows in TRL's formats as they stand in a JSON Lines file, other formats as conversations."""
    path = Path(data)
    if path.suffix == ".jsonl" and path.is_file():
        lines = read_text(path, "--data").splitlines()
        rows = [_row(line, path, number) for number, line in enumerate(lines, start=1)]
        known = [row for row in rows if row is not None]
        names = set(known[0]) if known else set()
        if ({"chosen", "rejected"} <= names or "completion" in names) and _of_one_form(known[0]):
            return known
    found: list[Mapping[str, Any]] = []
    for number, item in open_data(data).examples():
        if isinstance(item, InputError):
            raise InputError(f"{data}, row {number} {item}")
        turns = [{"role": m.role, "content": m.content} for m in item.prompt]
        answers = {"chosen": item.chosen, "rejected": item.rejected}
        found.append(
            {"prompt": turns}
            | {k: [{"role": "assistant", "content": v}] for k, v in answers.items()}
        )
    return found


def _of_one_form(row: Mapping[str, Any]) -> bool:
    """Whether prompt and answers are all text or all messages, as in TRL's formats."""
    parts = [row[name] for name in ("prompt", "chosen", "rejected", "completion") if row.get(name)]
    return len({isinstance(part, str) for part in parts}) < 2


def _row(line: str, path: Path, number: int) -> Mapping[str, Any] | None:
    if not line.strip():
        return None
    try:
        row = parse_json(line)
    except ValueError as error:
        raise InputError(f"{path}, row {number} is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}, row {number} is no JSON object")
    return row


def _directory(model: str | None) -> Path | None:
    if model is None:
        return None
    path = Path(model)
    if not (path / "config.json").is_file():
        raise InputError(
            f"--model {model} is no directory with config.json; give one that save_pretrained wrote"
        )
    return path
