from __future__ import annotations

from typing import Any, List

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedspect.data import plain_transforms
from fedspect.data.views import (
    NO_VIEWS,
    ORIENTATIONS,
    ViewSettings,
    apply_view,
    new_view,
    orient,
    pooled_view,
    view_ids,
    view_token,
)

DIGEST = "0123456789abcdef" * 2
ONLY_ORIENTATIONS = ViewSettings(crops=False, light=False, contrast=False, noise=False, blur=False)
SWITCHES = ("orientations", "crops", "light", "contrast", "noise", "blur")


def surface(channels: int = 1, side: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, side // 4, side // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")[0]
    return smooth.mul(255).to(torch.uint8).repeat(channels, 1, 1)


def same(first: Tensor, second: Tensor) -> bool:
    return bool(torch.equal(first, second))


def test_view_0_is_the_picture_as_it_is() -> None:
    assert same(apply_view(surface(), 0, DIGEST, ViewSettings()), surface())


def test_views_0_to_7_are_the_eight_orientations() -> None:
    image = torch.arange(4, dtype=torch.uint8).view(1, 2, 2)
    seen = {tuple(apply_view(image, view, DIGEST, ViewSettings()).flatten().tolist()) for view in range(8)}
    turns = {(0, 1, 2, 3), (1, 3, 0, 2), (3, 2, 1, 0), (2, 0, 3, 1)}
    mirrored = {(1, 0, 3, 2), (3, 1, 2, 0), (2, 3, 0, 1), (0, 2, 1, 3)}
    assert seen == turns | mirrored


def test_a_variant_is_the_same_each_time_and_follows_from_seed_picture_and_number() -> None:
    image, settings_ = surface(), ViewSettings(seed=1)
    one = apply_view(image, 9, DIGEST, settings_)
    assert same(one, apply_view(image, 9, DIGEST, settings_))
    assert not same(one, apply_view(image, 10, DIGEST, settings_))
    assert not same(one, apply_view(image, 9, DIGEST, ViewSettings(seed=2)))
    assert not same(one, apply_view(image, 9, DIGEST[::-1], settings_))


def test_drawing_a_view_leaves_the_picture_and_torchs_random_numbers_alone() -> None:
    image = surface()
    torch.manual_seed(5)
    for view in range(30):
        apply_view(image, view, DIGEST, ViewSettings())
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert same(image, surface()) and same(drawn, torch.rand(3))


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_change_can_be_switched_off_and_on_alone(switch: str) -> None:
    alone = NO_VIEWS.model_copy(update={switch: True})
    image = surface()
    assert all(same(apply_view(image, view, DIGEST, NO_VIEWS), image) for view in range(8, 20))
    assert any(not same(apply_view(image, view, DIGEST, alone), image) for view in range(8, 20))


def test_switching_one_change_off_leaves_the_others_as_they_were() -> None:
    image = surface()
    without = ViewSettings(noise=False)
    pairs = [
        same(apply_view(image, view, DIGEST, ViewSettings()), apply_view(image, view, DIGEST, without))
        for view in range(8, 40)
    ]
    assert 10 < sum(pairs) < 32  # noise falls on one view of three


def test_variants_of_orientations_alone_are_orientations() -> None:
    image = surface()
    orientations = [orient(image, number) for number in range(ORIENTATIONS)]
    for view in range(8, 30):
        drawn = apply_view(image, view, DIGEST, ONLY_ORIENTATIONS)
        assert any(same(drawn, orientation) for orientation in orientations)


def test_a_grey_picture_in_three_channels_stays_grey() -> None:
    for view in range(8, 24):
        red, green, blue = apply_view(surface(3), view, DIGEST, ViewSettings())
        assert same(red, green) and same(green, blue)


@settings(max_examples=40, deadline=None)
@given(
    view=st.integers(0, 10_000),
    channels=st.sampled_from([1, 3]),
    side=st.sampled_from([16, 31, 64]),
    switches=st.lists(st.booleans(), min_size=len(SWITCHES), max_size=len(SWITCHES)),
    seed=st.integers(0, 2**40),
)
def test_any_view_is_a_picture_of_the_same_shape(
    view: int, channels: int, side: int, switches: List[bool], seed: int
) -> None:
    chosen = ViewSettings(seed=seed, **dict(zip(SWITCHES, switches)))  # type: ignore[arg-type]
    image = torch.randint(0, 256, (channels, side, side), dtype=torch.uint8)
    drawn = apply_view(image, view, DIGEST, chosen)
    assert drawn.shape == image.shape and drawn.dtype == torch.uint8 and drawn.is_contiguous()


def test_the_pool_begins_with_orientations_and_holds_as_many_views_as_asked() -> None:
    assert view_ids(0, ViewSettings(views_per_picture=11)) == list(range(11))
    assert view_ids(0, ViewSettings(views_per_picture=4)) == [0, 1, 2, 3]
    assert view_ids(0, ViewSettings(orientations=False, views_per_picture=3)) == [0, 8, 9]
    assert view_ids(0, ONLY_ORIENTATIONS) == list(range(8))
    assert view_ids(7, NO_VIEWS) == [0]


def test_variants_are_renewed_at_the_chosen_pace_and_orientations_stay() -> None:
    chosen = ViewSettings(views_per_picture=10, renew_every=5)
    assert view_ids(4, chosen) == [*range(8), 8, 9]
    assert view_ids(5, chosen) == [*range(8), 10, 11]
    assert view_ids(5, chosen.model_copy(update={"renew_every": 0})) == [*range(8), 8, 9]


def test_a_picture_shows_each_view_of_its_pool_once_before_any_twice() -> None:
    chosen = ViewSettings(views_per_picture=12, renew_every=0)
    shown = [pooled_view(epoch, DIGEST, chosen, 1) for epoch in range(12)]
    assert sorted(shown) == list(range(12))
    starts = {pooled_view(0, f"{number:032x}", chosen, 1) for number in range(60)}
    assert len(starts) > 8  # an epoch mixes views of all kinds


def test_without_a_cache_every_epoch_draws_a_new_variant_and_every_seed_others() -> None:
    def shown(seed: int) -> List[int]:
        return [new_view(epoch, DIGEST, ViewSettings(views_per_picture=2), seed) for epoch in range(20)]

    assert len(set(shown(1))) == 20 and min(shown(1)) >= ORIENTATIONS
    assert shown(1) == shown(1) and set(shown(1)).isdisjoint(shown(2))
    assert new_view(3, DIGEST, NO_VIEWS, 1) == 0


def test_orientations_are_shared_by_all_settings_and_variants_by_those_that_draw_alike() -> None:
    first = ViewSettings()
    others = [ViewSettings(light_strength=0.3), ViewSettings(noise=False), ViewSettings(seed=1)]
    assert {view_token(7, settings_) for settings_ in [first, *others]} == {view_token(7, first)}
    assert len({view_token(8, settings_) for settings_ in [first, *others]}) == 4
    assert view_token(8, first) == view_token(8, ViewSettings(views_per_picture=99, renew_every=1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resized_crop", (3, 5, 40, 40, [64, 64])),
        ("adjust_brightness", (1.2,)),
        ("adjust_contrast", (0.8,)),
        ("adjust_contrast", (1.3,)),
        ("adjust_gamma", (1.2,)),
        ("gaussian_blur", ([5, 5], [1.0, 1.0])),
    ],
)
def test_without_torchvision_a_view_is_the_same_to_one_grey_level(
    name: str, arguments: Any, channels: int
) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = surface(channels, 64)
    if channels == 3:
        image[1] //= 2  # a colour, not grey
    options = {"antialias": True} if name == "resized_crop" else {}
    theirs = getattr(functional, name)(image, *arguments, **options).int()
    ours = getattr(plain_transforms, name)(image, *arguments).int()
    assert int((theirs - ours).abs().max()) <= 1
