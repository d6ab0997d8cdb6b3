"""What a student learns from a teacher's logits or tokens: the choices of `method.objective`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from pipelines import streams as host
from pipelines.settings import Settings
from raymask.distillation import (
    ManifoldTerms,
    attention_loss,
    deit_soft_loss,
    hard_loss,
    manifold_terms,
    soft_loss,
)
from raymask.progress import Progress
from raymask.schedules import Constant, Share, Temperature
from raymask.streams import Rng

# b: images   c: classes   n, m: patches that both networks have   ds, dt: widths

Layers = tuple[tuple[int, int], ...]  # pairs of blocks: the student's, the teacher's; negative from the end


@dataclass(frozen=True)
class Lesson:
    """What the two networks say about the same images.

    student: logits of the token that is distilled; teacher: the frozen network's
    student_tokens, teacher_tokens: by pair of layers, the patches that the teacher saw
    student_attention, teacher_attention: what [CLS] attends to in the last block, among these patches
    """

    student: Float[Tensor, "b c"]
    teacher: Float[Tensor, "b c"]
    student_tokens: tuple[Float[Tensor, "b n ds"], ...] = ()
    teacher_tokens: tuple[Float[Tensor, "b m dt"], ...] = ()
    student_attention: Float[Tensor, "b n"] | None = None
    teacher_attention: Float[Tensor, "b n"] | None = None


class Nothing(Settings):
    """Labels only: no teacher is called."""

    kind: Literal["none"] = "none"


class Soft(Settings):
    """temperature^2 KL(teacher || student), weighted `alpha` beside the labels' 1 - alpha: the default."""

    kind: Literal["soft"] = "soft"
    alpha: Share = Constant(value=0.5)
    temperature: Temperature = Constant(value=1.0)

    def terms(self, lesson: Lesson, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The distilled parts of the loss by name; their sum is weighted by alpha."""
        return {"soft": soft_loss(lesson.student, lesson.teacher, temperature=self.temperature(progress))}


class Hard(Settings):
    """Cross-entropy with the teacher's first choice."""

    kind: Literal["hard"] = "hard"
    alpha: Share = Constant(value=0.5)

    def terms(self, lesson: Lesson, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The distilled parts of the loss by name; their sum is weighted by alpha."""
        return {"hard": hard_loss(lesson.student, lesson.teacher)}


class Deit(Settings):
    """DeiT's token distillation: hard, or soft with its division by the number of classes.

    Meant for a student with a distillation token, which then learns from the teacher while [CLS] learns the
    labels.
    """

    kind: Literal["deit"] = "deit"
    alpha: Share = Constant(value=0.5)
    temperature: Temperature = Constant(value=1.0)
    hard: bool = True

    @model_validator(mode="after")
    def _softens_what_is_soft(self) -> "Deit":
        if self.hard and self.temperature != type(self).model_fields["temperature"].default:
            raise ValueError(
                "objective.temperature softens logits, but objective.hard=true takes the teacher's first "
                "choice alone: set objective.hard=false, or leave the temperature out"
            )
        return self

    def terms(self, lesson: Lesson, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The distilled parts of the loss by name; their sum is weighted by alpha."""
        if self.hard:
            return {"hard": hard_loss(lesson.student, lesson.teacher)}
        temperature = self.temperature(progress)
        return {"soft": deit_soft_loss(lesson.student, lesson.teacher, temperature=temperature)}


class Attention(Settings):
    """Soft logits, and the student's [CLS] to attend as the teacher's does among the patches that both saw.

    The paper has a row of attention distillation but no formula, and no code of it is public: this is our
    reading. `weight` is that of the attention beside the logits.
    """

    kind: Literal["attention"] = "attention"
    alpha: Share = Constant(value=0.5)
    temperature: Temperature = Constant(value=1.0)
    weight: float = Field(default=1.0, ge=0)

    def terms(self, lesson: Lesson, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The distilled parts of the loss by name; their sum is weighted by alpha."""
        assert lesson.student_attention is not None and lesson.teacher_attention is not None
        attention = attention_loss(lesson.student_attention, lesson.teacher_attention)
        return {
            "soft": soft_loss(lesson.student, lesson.teacher, temperature=self.temperature(progress)),
            "attention": self.weight * attention,
        }


class Manifold(Settings):
    """Soft logits and, for each pair of layers, how the tokens lie to each other (Hao et al., NeurIPS 2022).

    layers: pairs (student's block, teacher's block); None pairs the first four and the last four of each
    patch, sample, random: weights of the three terms
    tokens: how many tokens of a batch the random term compares
    """

    kind: Literal["manifold"] = "manifold"
    alpha: Share = Constant(value=1.0)
    temperature: Temperature = Constant(value=1.0)
    layers: Layers | None = None
    patch: float = Field(default=4.0, ge=0)
    sample: float = Field(default=0.1, ge=0)
    random: float = Field(default=0.2, ge=0)
    tokens: int = Field(default=192, ge=1)

    @model_validator(mode="after")
    def _has_layers(self) -> "Manifold":
        if self.layers == ():
            raise ValueError("objective.layers is empty: give pairs of blocks, or leave it out")
        return self

    def pairs(self, student: int, teacher: int) -> Layers:
        """The pairs of blocks for networks of these depths. Raises ValueError for blocks they lack."""
        ends = min(4, student // 2, teacher // 2) or 1
        chosen = self.layers or tuple((i, i) for i in [*range(ends), *range(-ends, 0)])
        for layer, depth, whose in (
            x for s, t in chosen for x in ((s, student, "student"), (t, teacher, "teacher"))
        ):
            if not -depth <= layer < depth:
                raise ValueError(
                    f"objective.layers names block {layer}, but the {whose} has blocks 0 to {depth - 1}"
                )
        return tuple((s % student, t % teacher) for s, t in chosen)

    def terms(self, lesson: Lesson, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The distilled parts of the loss by name; their sum is weighted by alpha."""
        chosen = self._tokens(lesson.student_tokens[0], rng)
        each = [
            manifold_terms(ours, theirs, chosen=chosen)
            for ours, theirs in zip(lesson.student_tokens, lesson.teacher_tokens)
        ]
        return {
            "soft": soft_loss(lesson.student, lesson.teacher, temperature=self.temperature(progress)),
            "manifold": torch.stack([self._weighted(terms) for terms in each]).mean(),
        }

    def _weighted(self, terms: ManifoldTerms) -> Tensor:
        return terms.weighted(patch=self.patch, sample=self.sample, random=self.random)

    def _tokens(self, tokens: Float[Tensor, "b n ds"], rng: Rng) -> Int[Tensor, " r"]:
        count = tokens.shape[0] * tokens.shape[1]
        drawn = host.generator(host.stream(rng.seed, "manifold", rng.step)).permutation(count)[: self.tokens]
        return torch.from_numpy(drawn.astype(np.int64)).to(tokens.device, non_blocking=True)


Objective = Annotated[Nothing | Soft | Hard | Deit | Attention | Manifold, Field(discriminator="kind")]
