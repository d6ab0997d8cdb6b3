"""Methods that learn from labels, and the data that must have them."""

import numpy as np
import pytest

from pipelines.notes import NOTHING, Notes
from raymask.config import Config
from raymask.methods.labels import with_classes


def config(**method) -> Config:
    return Config.model_validate(
        {"method": {"kind": "maskedkd", **method}, "evaluate": {"network": "student"}}
    )


class Labelled:
    """A source as far as labels go."""

    def __init__(self, labels: list[int], classes: int, notes: Notes = NOTHING) -> None:
        self.notes = notes
        self.labels, self.classes = np.array(labels), [str(i) for i in range(classes)]

    def __len__(self) -> int:
        return len(self.labels)


def test_the_number_of_classes_is_the_datas():
    assert with_classes(config(), Labelled([0, 1, 2], 3)).method.classes == 3


@pytest.mark.parametrize(
    ("labels", "classes", "given", "sentence"),
    [
        ([0, -1, 1], 2, {}, "but 1 of its 3 images have none"),
        ([-1, -1], 0, {}, "but 2 of its 2 images have none: give images in two or more folders"),
        ([0, 0], 1, {}, "but all its images are of one class: give images in two or more folders"),
        ([0, 1], 2, {"classes": 10}, r"method\.classes=10, but .* has 2 classes"),
    ],
)
def test_data_that_cannot_teach_is_refused(labels, classes, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        with_classes(config(**given), Labelled(labels, classes))


def test_labels_that_cannot_be_used_are_counted_where_labels_are_missing():
    source = Labelled([0, -1, 1], 2, Notes(labels=1, label="1.cls, which holds b'-5' in a.tar"))
    with pytest.raises(ValueError, match=r"1 of its 3 .* have none \(1 because .* which holds b'-5' in a"):
        with_classes(config(), source)


def test_a_frozen_teacher_is_not_evaluated():
    wrong = config().model_copy(update={"evaluate": Config().evaluate})
    with pytest.raises(ValueError, match=r"give evaluate\.network=student"):
        with_classes(wrong, Labelled([0, 1], 2))


def test_methods_without_labels_take_any_data():
    plain = Config()
    assert with_classes(plain, Labelled([-1], 0)) is plain
