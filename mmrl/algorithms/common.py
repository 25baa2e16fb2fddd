"""Options that any algorithm may be given, so that another algorithm is another name.

An algorithm that has no use for one keeps it beside and says so; it refuses none of them. The
group size, `numerics` and `part` are read by the parameters of the algorithms that have them; the
KL and the clip are put into the stages here, over the algorithm's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.checks import kl_reasons
from mmrl.algorithms.stages.estimates import Note
from mmrl.objective import KL, KLEstimator, KLPlacement
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.validation import Section

Change = Callable[[Any, Mapping[str, Any]], Any]
"""Replaces fields of a stage, with the types its dataclass declares."""


Reading = Literal["paper", "trl", "verl", "code"]
NUMERICS: tuple[str, ...] = get_args(Reading)


class Common(Section):
    group_size: int | None = Field(None, gt=0, description="responses to a prompt")
    kl_coefficient: float | None = Field(
        None, ge=0, description="of the KL towards the reference; 0: no reference is loaded"
    )
    kl_estimator: KLEstimator | None = None
    kl_placement: KLPlacement | None = None
    clip_low: float | None = Field(None, ge=0, le=1, description="how far a ratio may fall below 1")
    clip_high: float | None = Field(None, ge=0, description="how far a ratio may rise above 1")
    numerics: Reading | None = Field(None, description="what implementations disagree on")
    part: str | None = Field(None, description="reward part that says right or wrong")


IN_STAGES = ("kl_coefficient", "kl_estimator", "kl_placement", "clip_low", "clip_high")
"""What is put into stages; the others are parameters of the algorithms that have them."""

NO_GROUP = "it plans its own number of responses"
NO_PART = "it does not ask what is right"
NO_NUMERICS = "it has one reading"
NO_CLIP = "its objective has no clip"
NO_KL = "there is no KL: kl_coefficient is 0"
SAID_BY_SECTION = "the section {} says it"


def split(
    params: type[Section], values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Divide a section's options: the algorithm's own, common ones it lacks, why some are idle."""
    own = {key: v for key, v in values.items() if key in params.model_fields}
    lacking = {key: v for key, v in values.items() if key not in own}
    unused = {
        key: reason
        for key, reason in (
            ("group_size", NO_GROUP),
            ("part", NO_PART),
            ("numerics", NO_NUMERICS),
        )
        if key in lacking
    }
    wanted = own.get("numerics")
    if wanted is not None:
        known = choices(params, "numerics")
        if wanted not in known and wanted in NUMERICS:
            lacking["numerics"] = own.pop("numerics")
            unused["numerics"] = f"it has {' and '.join(known)}"
    return own, lacking, unused


def choices(params: type[Section], option: str) -> tuple[str, ...]:
    """What an option that is one of several words may be; nothing where there is no such option."""
    field = params.model_fields.get(option)
    return get_args(field.annotation) if field else ()


def apply(
    algorithm: Algorithm,
    given: Common,
    sections: Mapping[str, Any],
    unused: dict[str, str],
    change: Change,
) -> Algorithm:
    """Put a KL and a clip that are given into the stages; `unused` takes what has no use, and why.

    What stands in a stage's own section goes before.
    """
    asked = {key: v for key in IN_STAGES if (v := getattr(given, key)) is not None}
    asked = {key: v for key, v in asked.items() if key not in unused}
    return _with_clip(_with_kl(algorithm, asked, sections, unused), asked, sections, unused, change)


def _with_kl(
    algorithm: Algorithm, asked: Mapping[str, Any], sections: Mapping[str, Any], unused: Any
) -> Algorithm:
    wanted = {key.removeprefix("kl_"): v for key, v in asked.items() if key.startswith("kl_")}
    for option, reason in _kl_settled(algorithm, sections).items():
        if wanted.pop(option, None) is not None:
            unused[f"kl_{option}"] = reason
    kl = algorithm.kl or KL()
    kl = dataclasses.replace(kl, coefficient=wanted.pop("coefficient", kl.coefficient))
    if is_empty(kl):
        unused.update(dict.fromkeys((f"kl_{option}" for option in wanted), NO_KL))
        return dataclasses.replace(algorithm, kl=kl)
    fitting = dataclasses.replace(kl, **wanted)
    if next(kl_reasons(algorithm, fitting), None) is None:
        return dataclasses.replace(algorithm, kl=fitting)
    for option in ("placement", "estimator"):  # one by one: an estimator may need the placement
        if option in wanted:
            tried = dataclasses.replace(kl, **{option: wanted[option]})
            refusal = next(kl_reasons(algorithm, tried), None)
            if refusal is None:
                kl = tried
            else:
                unused[f"kl_{option}"] = refusal
    return dataclasses.replace(algorithm, kl=kl)


def _kl_settled(algorithm: Algorithm, sections: Mapping[str, Any]) -> dict[str, str]:
    """Which options of the KL something else decides, and what."""
    options = ("coefficient", "estimator", "placement")
    if isinstance(algorithm.credit, Note):
        return dict.fromkeys(options, "nothing is trained")
    section = sections.get("kl", {})
    if section is None:
        return dict.fromkeys(options, "kl: null takes it out")
    if "reference" in algorithm.objective.needs:
        return dict.fromkeys(options, "its objective holds to the reference by its own beta")
    settled = {key: SAID_BY_SECTION.format("kl") for key in options if key in section}
    if algorithm.kl is not None and algorithm.kl.schedule is not None:
        settled["coefficient"] = "a schedule sets it"
    return settled


def is_empty(kl: KL) -> bool:
    """True of a KL that counts for nothing."""
    return kl.schedule is None and kl.coefficient == 0


def _with_clip(
    algorithm: Algorithm,
    asked: Mapping[str, Any],
    sections: Mapping[str, Any],
    unused: dict[str, str],
    change: Change,
) -> Algorithm:
    wanted = {key.removeprefix("clip_"): v for key, v in asked.items() if key.startswith("clip_")}
    section = sections.get("objective")
    for side in list(wanted):
        if isinstance(section, Mapping) and side in section:
            reason = SAID_BY_SECTION.format("objective")
        elif not has_clip(algorithm):
            reason = NO_CLIP
        else:
            continue
        unused[f"clip_{side}"] = reason
        del wanted[side]
    if algorithm.objective.clips_ratio:
        wanted = {side: 1 - v if side == "low" else 1 + v for side, v in wanted.items()}
    return dataclasses.replace(algorithm, objective=change(algorithm.objective, wanted))


def has_clip(algorithm: Algorithm) -> bool:
    """True if the objective bounds ratios from both sides."""
    return hasattr(algorithm.objective, "low") and hasattr(algorithm.objective, "high")


def clip_of(algorithm: Algorithm) -> tuple[float, float] | None:
    """How far a ratio may fall below 1 and rise above it."""
    if not has_clip(algorithm):
        return None
    objective: Any = algorithm.objective
    bounds = objective.low, objective.high
    return (1 - bounds[0], bounds[1] - 1) if objective.clips_ratio else bounds


def wide_clip(own: Algorithm, algorithm: Algorithm) -> str:
    """What is to be said of a clip that is far wider than the algorithm's own; "": nothing."""
    before, after = own.objective, algorithm.objective
    if not (isinstance(before, Clipped) and isinstance(after, Clipped)):
        return ""
    tight = after.ratio in ("sequence-mean", "sequence-token") and after.ratio == before.ratio
    if not tight or max(after.low / before.low, after.high / before.high) < 10:
        return ""
    return (
        f"the clip {after.low:g}, {after.high:g} is of a whole response's mean ratio, which moves "
        f"far less than a token's: its own is {before.low:g}, {before.high:g}"
    )


def defaults(own: Algorithm, unused: Mapping[str, str]) -> dict[str, Any]:
    """The algorithm's own value of every option that is put into its stages, where it has one."""
    found: dict[str, Any] = {}
    settled = _kl_settled(own, {})
    kl = own.kl or KL()
    for option in ("coefficient", "estimator", "placement"):
        if option not in settled and f"kl_{option}" not in unused:
            found[f"kl_{option}"] = getattr(kl, option)
    clip = clip_of(own)
    if clip is not None:
        found |= dict(zip(("clip_low", "clip_high"), clip, strict=True))
    return found
