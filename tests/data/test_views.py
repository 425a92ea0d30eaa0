"""Views of a batch: pure functions of image and draws."""

import pytest
import torch
from torch.nn import functional

from tlopt.data.views import DRAWS, epoch_draws, eval_views, training_views

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
torch.set_num_threads(1)


@pytest.fixture
def images():
    return torch.randint(
        0, 256, (6, 18, 18, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def train(images, draws, *, strength=0.7, flip=True, mean=MEAN, std=STD, resolution=16):
    return training_views(
        images, resolution=resolution, strength=strength, flip=flip, mean=mean, std=std, draws=draws
    )


def middle(n: int) -> torch.Tensor:
    """Draws that mean: no flip, the whole window, square, in the middle, colours as they are."""
    return torch.tensor([[0.9, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]]).repeat(n, 1)


def test_evaluation_sees_the_normalised_middle(images):
    views = eval_views(images, resolution=16, mean=MEAN, std=STD)
    expected = (images[2, 1 + 5, 1 + 7, 1].item() / 255 - 0.4) / 0.25
    assert (views.shape, views.dtype) == ((6, 3, 16, 16), torch.float32)
    assert views[2, 1, 5, 7].item() == pytest.approx(expected, abs=1e-6)


def test_a_view_has_the_shape_and_type_of_evaluation(images):
    views = train(images, epoch_draws(1, 0, 6))
    assert (views.shape, views.dtype) == ((6, 3, 16, 16), torch.float32)


def test_without_strength_and_flip_a_view_is_the_evaluation_view(images):
    views = train(images, epoch_draws(1, 0, 6), strength=0.0, flip=False)
    assert torch.equal(views, eval_views(images, resolution=16, mean=MEAN, std=STD))


def test_an_almost_zero_strength_is_almost_the_evaluation_view(images):
    views = train(images, epoch_draws(1, 0, 6), strength=1e-6, flip=False)
    assert torch.allclose(views, eval_views(images, resolution=16, mean=MEAN, std=STD), atol=1e-2)


@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_a_view_does_not_depend_on_its_batch(images, strength):
    draws = epoch_draws(1, 3, 6)
    together = train(images, draws, strength=strength)
    order = torch.tensor([4, 0, 5])
    assert torch.equal(train(images[order], draws[order], strength=strength), together[order])
    assert torch.equal(train(images[2:3], draws[2:3], strength=strength), together[2:3])


@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_a_first_draw_below_one_half_mirrors(images, strength):
    straight, mirrored = middle(6), middle(6)
    mirrored[:, 0] = 0.1
    views = [train(images, draws, strength=strength) for draws in (straight, mirrored)]
    assert torch.allclose(views[1], views[0].flip(-1), atol=1e-4)


def test_without_flip_no_image_is_mirrored(images):
    draws = middle(6)
    draws[:, 0] = 0.1
    assert torch.equal(train(images, draws, flip=False), train(images, middle(6), flip=False))


@pytest.mark.parametrize("strength", [0.01, 0.3, 0.7, 1.0])
def test_a_view_shows_the_same_part_of_an_image_however_large_it_is_stored(strength):
    shades = torch.linspace(20, 230, 112)
    large = torch.stack([shades.expand(112, 112), shades[:, None].expand(112, 112)] * 2, -1)[None, ..., :3]
    small = large.unflatten(1, (56, 2)).mean(2).unflatten(2, (56, 2)).mean(3)
    draws = epoch_draws(1, 0, 1)
    views = [
        train(stored.round().to(torch.uint8), draws, strength=strength, resolution=49, **PLAIN)
        for stored in (small, large)
    ]
    assert torch.allclose(*views, atol=2 / 255)


def test_a_larger_store_keeps_what_a_small_crop_would_lose():
    """Stripes of two pixels of 48; the smallest crop, a quarter of the image, has 24 to show in 32."""
    stripes = (torch.arange(48) // 2 % 2 * 255).to(torch.uint8).expand(48, 48)
    large = stripes[None, :, :, None].expand(1, 48, 48, 3)
    small = functional.interpolate(large.permute(0, 3, 1, 2).float(), 36, mode="bicubic", antialias=True)
    stored = small.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    draws = middle(1)
    draws[0, 1] = 1.0
    contrasts = [train(at, draws, strength=1.0, resolution=32, **PLAIN).std() for at in (large, stored)]
    assert contrasts[0] > 1.2 * contrasts[1]


def test_full_strength_reaches_the_whole_image(images):
    views = train(images, middle(6), strength=1.0, resolution=18, **PLAIN)
    assert torch.allclose(views, images.permute(0, 3, 1, 2) / 255, atol=1e-5)


def ramp(side: int) -> torch.Tensor:
    """One image whose red is its column and whose green is its row, in steps of 10 / 255."""
    steps = torch.arange(side, dtype=torch.uint8) * 10
    return torch.stack(
        [steps.expand(side, side), steps[:, None].expand(side, side), 0 * steps.expand(side, side)], -1
    )[None]


def test_the_smallest_crop_at_full_strength_is_a_quarter_in_its_corner():
    draws = middle(1)
    draws[0, 1], draws[0, 3], draws[0, 4] = 1.0, 0.0, 1.0  # area 1/4, left, bottom
    view = train(ramp(16), draws, strength=1.0, resolution=8, **PLAIN)[0] * 255
    assert torch.allclose(view[0, 0], 10.0 * torch.arange(8), atol=1e-3)
    assert torch.allclose(view[1, :, 0], 10.0 * torch.arange(8, 16), atol=1e-3)


def test_the_widest_aspect_is_four_to_three():
    draws = middle(1)
    draws[0, 1], draws[0, 2] = 1.0, 1.0
    view = train(ramp(24), draws, strength=1.0, resolution=12, **PLAIN)[0] * 255
    across, down = (view[0, 6, 7] - view[0, 6, 6]).item(), (view[1, 7, 6] - view[1, 6, 6]).item()
    assert across / down == pytest.approx(4 / 3, rel=1e-4)
    assert across * down == pytest.approx(100, rel=1e-4)


def test_crops_never_leave_the_image():
    inside = torch.full((500, 12, 12, 3), 255, dtype=torch.uint8)
    draws = epoch_draws(1, 0, 500)
    draws[:, 5:] = 0.5
    assert torch.allclose(
        train(inside, draws, strength=1.0, resolution=10, **PLAIN), torch.ones(1), atol=1e-5
    )


def colour(rgb: tuple[int, int, int], column: int, draw: float) -> list[float]:
    """An even image's colour after one colour draw at strength 1."""
    draws = middle(1)
    draws[0, column] = draw
    image = torch.tensor(rgb, dtype=torch.uint8).expand(1, 8, 8, 3)
    return (train(image, draws, strength=1.0, resolution=8, **PLAIN)[0, :, 4, 4] * 255).tolist()


def test_the_brightest_draw_multiplies_by_one_point_four():
    assert colour((100, 50, 10), 5, 1.0) == pytest.approx([140, 70, 14], abs=1e-2)


def test_the_darkest_draw_multiplies_by_zero_point_six():
    assert colour((100, 50, 10), 5, 0.0) == pytest.approx([60, 30, 6], abs=1e-2)


def test_contrast_stretches_about_the_mean_grey():
    grey = 0.299 * 100 + 0.587 * 50 + 0.114 * 10
    expected = [grey + 0.6 * (value - grey) for value in (100, 50, 10)]
    assert colour((100, 50, 10), 6, 0.0) == pytest.approx(expected, abs=1e-2)


def test_saturation_leaves_grey_alone():
    assert colour((90, 90, 90), 7, 1.0) == pytest.approx([90, 90, 90], abs=1e-2)


def test_colours_stay_within_bounds():
    assert colour((250, 250, 250), 5, 1.0) == pytest.approx([255, 255, 255])


def test_draws_are_uniform_numbers_of_the_documented_shape():
    draws = epoch_draws(1, 0, 1000)
    assert (draws.shape, draws.dtype, draws.device.type) == ((1000, DRAWS), torch.float32, "cpu")
    assert 0 <= draws.min() < 0.01 < 0.99 < draws.max() < 1
    assert torch.allclose(draws.mean(0), torch.full((DRAWS,), 0.5), atol=0.05)


def test_draws_depend_on_seed_and_epoch_and_nothing_else():
    assert torch.equal(epoch_draws(1, 2, 50), epoch_draws(1, 2, 50))
    assert not torch.equal(epoch_draws(1, 2, 50), epoch_draws(1, 3, 50))
    assert not torch.equal(epoch_draws(1, 2, 50), epoch_draws(2, 2, 50))


def test_an_image_s_draws_do_not_depend_on_how_many_images_there_are():
    assert torch.equal(epoch_draws(1, 2, 1000)[:7], epoch_draws(1, 2, 7))


def test_draws_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    epoch_draws(1, 2, 3)
    assert torch.equal(torch.rand(1), expected)


def test_draws_are_the_same_on_every_machine():
    recorded = [0.93266064, 0.97018868, 0.2251364, 0.69151795, 0.09350747, 0.75265378, 0.31484681, 0.51928222]
    assert epoch_draws(1, 2, 2)[1].tolist() == pytest.approx(recorded, abs=1e-8)
