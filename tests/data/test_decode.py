"""Decoding of files: one claim for each kind of file."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import features

from tlopt.data import decode as rule
from tlopt.data.decode import Reading
from tlopt.data.rgb import square
from tlopt.data.sources.entry import EXTENSIONS, HEIF_EXTENSIONS
from tlopt.errors import DataError

CROP, STRETCH = Reading(resize="crop"), Reading(resize="stretch")
RED, WHITE = (255, 0, 0), (255, 255, 255)


def one_colour(picture: PIL.Image.Image, path: Path, **options: object) -> tuple[int, ...]:
    """The colour in the middle of `picture`, saved at `path` and decoded."""
    picture.save(path, **options)
    pixels = rule.decode(path, size=8, reading=CROP)
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    return tuple(int(value) for value in pixels[4, 4])


def test_rgb_pixels_are_kept(tmp_path):
    assert one_colour(PIL.Image.new("RGB", (8, 8), (10, 20, 30)), tmp_path / "x.png") == (10, 20, 30)


@pytest.mark.parametrize("suffix", EXTENSIONS)
def test_files_of_every_suffix_that_counts_as_an_image_are_decoded(tmp_path, suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    if suffix in HEIF_EXTENSIONS:
        pytest.importorskip("pillow_heif").register_heif_opener()
    colour = one_colour(PIL.Image.new("RGB", (8, 8), WHITE), tmp_path / f"x{suffix}")
    assert min(colour) > 250


def test_grey_is_repeated(tmp_path):
    assert one_colour(PIL.Image.new("L", (8, 8), 77), tmp_path / "x.png") == (77, 77, 77)


def test_a_bilevel_image_is_black_and_white(tmp_path):
    assert one_colour(PIL.Image.new("1", (8, 8), 1), tmp_path / "x.png") == WHITE


def test_cmyk_jpegs_become_rgb(tmp_path):
    red, green, blue = one_colour(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "x.jpg")
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white(tmp_path, mode):
    black_and_clear = (0,) * len(mode)
    assert one_colour(PIL.Image.new(mode, (8, 8), black_and_clear), tmp_path / "x.png") == WHITE


def test_half_transparent_red_is_pink(tmp_path):
    red, green, blue = one_colour(PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 128)), tmp_path / "x.png")
    assert (red, abs(green - 127) <= 1, abs(blue - 127) <= 1) == (255, True, True)


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    picture = PIL.Image.new("P", (8, 8), 3)
    picture.putpalette([0, 0, 0] * 4)
    assert one_colour(picture, tmp_path / "x.png", transparency=3) == WHITE


def test_a_palette_gives_its_colours(tmp_path):
    picture = PIL.Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, *RED])
    assert one_colour(picture, tmp_path / "x.png") == RED


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32896, 128), (257, 1)])
def test_sixteen_bit_grey_is_scaled_to_eight(tmp_path, value, expected):
    picture = PIL.Image.fromarray(np.full((8, 8), value, dtype=np.uint16))
    assert one_colour(picture, tmp_path / "x.png") == (expected,) * 3


def test_floating_point_pixels_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.tif cannot be decoded: floating-point"):
        one_colour(PIL.Image.new("F", (8, 8), 0.5), tmp_path / "x.tif")


def test_whole_numbers_above_sixteen_bits_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"outside 0\.\.65535"):
        one_colour(PIL.Image.new("I", (8, 8), 70000), tmp_path / "x.tif")


def test_only_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in (RED, WHITE)]
    assert one_colour(frames[0], tmp_path / "x.gif", save_all=True, append_images=frames[1:]) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(tmp_path, orientation):
    upright = np.zeros((16, 8, 3), dtype=np.uint8)
    upright[0:4, 0:4] = RED  # upper left corner
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "x.png", exif=exif)

    pixels = rule.decode(tmp_path / "x.png", size=16, reading=STRETCH)

    assert tuple(pixels[1, 2]) == RED
    assert pixels[8:].max() == 0
    assert pixels[:, 12:].max() == 0


def test_broken_exif_does_not_make_an_image_unreadable(tmp_path):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), RED).save(buffer, "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    with rule.quiet():
        assert rule.decode(buffer.getvalue(), size=8, reading=CROP).shape == (8, 8, 3)


def test_crop_takes_the_centre_and_stretch_the_whole(tmp_path):
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, :10], wide[:, 10:20], wide[:, 20:] = RED, WHITE, RED
    PIL.Image.fromarray(wide).save(tmp_path / "x.png")

    assert (rule.decode(tmp_path / "x.png", size=10, reading=CROP) == 255).all()
    stretched = rule.decode(tmp_path / "x.png", size=30, reading=STRETCH)
    assert (tuple(stretched[15, 2]), tuple(stretched[15, 15])) == (RED, WHITE)


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    PIL.Image.fromarray(stripes).save(tmp_path / "x.png")
    assert (
        np.abs(rule.decode(tmp_path / "x.png", size=8, reading=CROP).astype(int) - 128)[1:-1, 1:-1].max() < 4
    )


def test_a_large_jpeg_gives_nearly_what_full_decoding_gives(tmp_path):
    row, column = np.mgrid[:512, :512] / 511
    smooth = np.stack([row, column, row * column], axis=-1) * 255
    PIL.Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    with PIL.Image.open(tmp_path / "x.jpg") as full:
        expected = square(full.convert("RGB"), size=32, resize="crop")
    assert np.abs(rule.decode(tmp_path / "x.jpg", size=32, reading=CROP).astype(int) - expected).max() <= 2


def problem_of(content: bytes) -> str:
    """The error of decoding the bytes, "" if they are an image."""
    try:
        rule.decode_rgb(content, 1, CROP)
    except DataError as error:
        return str(error)
    return ""


def broken(kind: str, folder: Path) -> Path:
    """A file that is no whole image."""
    path = folder / f"{kind}.jpg"
    PIL.Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"no image at all"}[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "truncated", "text"])
def test_a_broken_file_is_named(tmp_path, kind):
    path = broken(kind, tmp_path)
    with pytest.raises(DataError, match=f"{kind}.jpg cannot be decoded"):
        rule.decode(path, size=8, reading=CROP)


@pytest.mark.parametrize("kind", ["empty", "truncated", "text"])
def test_a_broken_file_has_a_problem_and_a_whole_one_has_none(tmp_path, kind):
    assert problem_of(broken(kind, tmp_path).read_bytes())
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "whole.jpg")
    assert problem_of((tmp_path / "whole.jpg").read_bytes()) == ""


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif", ".bmp", ".tif"])
def test_a_truncated_file_of_any_format_is_unreadable(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    PIL.Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    content = path.read_bytes()
    with rule.quiet():
        assert problem_of(content) == ""
        assert problem_of(content[: len(content) // 2])


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png cannot be decoded: it cannot be read \(No such file"):
        rule.decode(tmp_path / "gone.png", size=8, reading=CROP)


def test_a_decompression_bomb_is_named(tmp_path, monkeypatch):
    PIL.Image.new("1", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"bomb\.png cannot be decoded: .* more pixels"):
        rule.decode(tmp_path / "bomb.png", size=8, reading=CROP)
