from __future__ import annotations

import pytest

from fedspect.data.classes import ClassList, class_list, spelt_alike
from fedspect.errors import ClassError

NEU = ClassList(
    ("crazing", "rolled-in_scale", "scratches"), {"RS": "rolled-in_scale", "kratzer": "scratches"}
)


@pytest.mark.parametrize("label", ["rolled-in_scale", "Rolled-In Scale", "rolled_in-scale", " RS ", "rs"])
def test_a_label_is_understood_in_any_spelling_and_by_its_alias(label: str) -> None:
    assert NEU.resolve(label) == "rolled-in_scale"
    assert NEU.index(label) == 1


def test_an_unknown_label_is_refused_with_the_nearest_class() -> None:
    with pytest.raises(ClassError) as caught:
        NEU.index("scratch")
    assert "did you mean 'scratches'?" in str(caught.value)
    assert NEU.find("scratch") is None


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ClassError):
        ClassList(())


@pytest.mark.parametrize("names", [("a", "A"), ("red iron", "red_iron"), ("a", "a"), ("a", " ")])
def test_names_that_cannot_be_told_apart_are_refused(names: tuple) -> None:
    with pytest.raises(ClassError):
        ClassList(names)


def test_an_alias_for_no_class_is_refused() -> None:
    with pytest.raises(ClassError, match="unknown class"):
        ClassList(("a", "b"), {"x": "c"})


def test_an_alias_that_is_another_class_is_refused() -> None:
    with pytest.raises(ClassError, match="two classes"):
        ClassList(("a", "b"), {"A": "b"})


def test_the_classes_of_labels_are_sorted_and_single() -> None:
    assert class_list(["b", "a", "b"]).names == ("a", "b")


def test_spellings_of_one_word_are_found() -> None:
    assert spelt_alike(["Scratch", "scratch", "pit", "red iron", "red-iron"]) == [
        ("Scratch", "scratch"),
        ("red iron", "red-iron"),
    ]
