"""A model folder as its JSON files describe it: what can be told without loading anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmrl.errors import ConfigError
from mmrl.model_config import ModelConfig

ADAPTER_CONFIG = "adapter_config.json"
PROCESSORS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")
MEDIA = ("vision", "visual", "image", "img_", "audio", "video", "speech", "thinker", "vq_config")
"""Words in the keys of a config.json, of which one that takes media has some."""


def model_folder(path: str) -> Path:
    """The folder a model path names; `asset:NAME` is a model shipped with the package."""
    if path.startswith("asset:"):
        return Path(__file__).parent.parent / "assets" / path.removeprefix("asset:")
    return Path(path)


def base_of(folder: Path) -> str | None:
    """Path of the base model of an adapter folder; None where the folder holds no adapter."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    base = _read(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base or not Path(base).is_dir():
        raise ConfigError(
            f"{folder} is an adapter to {base}, which is not there: put the base model's folder "
            f"into base_model_name_or_path of {ADAPTER_CONFIG}"
        )
    return str(base)


def check_folder(config: ModelConfig, *, processor: bool = True) -> tuple[Path, Path]:
    """The folder that `config` names, and the one of its base where it holds an adapter.

    Raises ConfigError where the folder is no model, or, unless `processor` is False, where its
    processor is missing (its tokenizer, of a model that takes text alone).
    """
    path = model_folder(config.path)
    base = base_of(path)
    if base is not None and config.lora is not None:
        raise ConfigError(
            f"{path} is an adapter: make a model of it with `mmrl export {path} --out DIR --merge` "
            "and put new adapters on that, or resume the run it comes from"
        )
    folder = path if base is None else Path(base)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"no model at {folder}: model.path must hold a transformers config.json")
    settings = _read(folder / "config.json")
    if config.trust_remote_code and "auto_map" in settings:
        return path, folder
    wanted, names = ("processor", PROCESSORS) if _hears(settings) else ("tokenizer", TOKENIZERS)
    if processor and not any((path / name).is_file() for name in names):
        raise ConfigError(
            f"{path} has no {wanted} ({' or '.join(names[:2])}): copy it from the model that the "
            "weights come from"
        )
    return path, folder


def check_media(config: ModelConfig) -> None:
    """Raise ConfigError where the folder's model takes no pictures, video or sound."""
    _, folder = check_folder(config, processor=False)
    settings = _read(folder / "config.json")
    own_code = config.trust_remote_code and "auto_map" in settings
    if not own_code and not _hears(settings):
        raise ConfigError(
            f"{folder} holds a model of type '{settings.get('model_type')}' without an encoder of "
            "pictures or sound: take a vision-language or audio model (`mmrl families`)"
        )


def _hears(settings: dict[str, Any]) -> bool:
    return any(word in key for key in settings for word in MEDIA)


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{file}: expected an object, found {type(settings).__name__}")
    return settings
