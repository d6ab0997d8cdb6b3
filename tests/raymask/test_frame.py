"""The frame's table, in the step's docstring and in docs/methods, says what a step really does."""

import inspect
import re
from pathlib import Path

import pytest

from raymask.frozen import FrozenNetwork
from raymask.masks import Mask
from raymask.methods.keep import Keep
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.methods.method import Method
from raymask.step import train_step
from raymask.streams import Rng
from tests.raymask.autoencoding import BACKBONES, crops, disjoint, dmjd
from tests.raymask.test_ibot import ibot
from tests.raymask.toy import batch, dino, progress

README = Path(__file__).parents[2] / "docs" / "methods" / "README.md"
WHOLE, TOKEN, DROPPED, ATTENTION = (
    "whole crops",
    "mask tokens",
    "visible patches",
    "whole crops, attention asked",
)


def rows(text: str) -> list[list[str]]:
    """The cells of a table below its head, without links; a row may go on in an indented line."""
    joined = re.sub(r"\n +\|", " |", text)
    lines = [
        re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line) for line in joined.splitlines() if line.startswith("|")
    ]
    return [[cell.strip() for cell in line.strip("|").split("|") if cell.strip()] for line in lines[2:]]


def test_the_step_s_docstring_holds_the_table_of_the_pages():
    table = rows(inspect.getdoc(train_step) or "")
    assert [len(row) for row in table] == [7] * 4
    assert table == rows(README.read_text())


def maskedkd() -> Method:
    teacher = FrozenNetwork(name="vit_tiny_patch16_224", patch_size=8, dim=16, depth=1, heads=2)
    chosen = MaskedKD(teacher=teacher, keep=Keep(ratio=0.5), classes=2)
    return MaskedKDMethod(chosen, BACKBONES["vit"], Mask(views="none"), crops(), seed=0).double().train()


def watched(method: Method) -> list[tuple[str, str]]:
    """Who sees what in one step, in order; `guide` is what gives a target without being a network."""
    seen = []

    def watch(who: str, network) -> None:
        def note(_module, args, given) -> None:
            dropped = given.get("visible") is not None or (len(args) > 1 and args[1] is not None)
            hidden = given.get("hidden") is not None
            whole = ATTENTION if given.get("attention") else WHOLE
            seen.append((who, DROPPED if dropped else TOKEN if hidden else whole))

        network.register_forward_pre_hook(note, with_kwargs=True)

    watch("student", method.student.backbone)
    if method.teacher is not method.student:
        watch("teacher", method.teacher if isinstance(method, MaskedKDMethod) else method.teacher.backbone)
    elif hasattr(method, "guide"):
        guide = method.guide

        def noted(images):
            seen.append(("guide", WHOLE))
            return guide(images)

        method.guide = noted
    locals_ = 1 if hasattr(method, "center") else 0
    method(batch(2, locals_=locals_), progress(), Rng(0, 0))["loss"].backward()
    return seen


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: dino(Mask()), [("teacher", WHOLE), ("student", TOKEN), ("student", WHOLE)]),
        (lambda: dino(Mask(kind="drop")), [("teacher", WHOLE), ("student", DROPPED), ("student", WHOLE)]),
        (
            lambda: ibot(Mask(strategy={"kind": "attention"})),
            [("teacher", ATTENTION), ("student", TOKEN), ("student", WHOLE)],
        ),
        (maskedkd, [("student", ATTENTION), ("teacher", DROPPED)]),
        (lambda: dmjd(disjoint()), [("guide", WHOLE), ("student", DROPPED)]),
    ],
    ids=["random masks", "random masks, dropped", "AttMask on iBOT", "MaskedKD", "DMJD"],
)
def test_the_guide_sees_all_and_runs_first_and_the_follower_sees_what_is_left(build, expected):
    assert watched(build()) == expected
