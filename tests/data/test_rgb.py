"""Files that Pillow reads wrongly or not at all are read correctly or refused with a cure."""

import io

import numpy as np
import PIL.Image
import pytest
from raw_files import fits, jpeg_2000, jpeg_head, packed_12_bits, png, tga, tiff

from tlopt.data import decode, rgb
from tlopt.data.decode import Reading, decode_rgb
from tlopt.errors import DataError

CROP = Reading(resize="crop")


def pixels(content: bytes, reading: Reading = CROP) -> list[tuple[int, ...]]:
    """The image's pixels, row by row."""
    return [tuple(p) for p in np.asarray(decode_rgb(content, 8, reading).image).reshape(-1, 3).tolist()]


def grey(content: bytes, reading: Reading = CROP) -> list[int]:
    """The same of a grey image, one number each."""
    found = pixels(content, reading)
    assert all(len(set(pixel)) == 1 for pixel in found)
    return [pixel[0] for pixel in found]


@pytest.mark.parametrize("kind", ["grey10", "grey16", "rgb8"])
def test_a_white_jpeg_2000_is_white(kind):
    assert pixels(jpeg_2000(kind)) == [(255, 255, 255)] * 4


@pytest.mark.parametrize(("kind", "bits"), [("grey9", 9), ("rgb12", 12), ("rgba16", 16)])
def test_a_jpeg_2000_whose_white_would_come_black_is_refused_with_its_bits(kind, bits):
    with pytest.raises(DataError, match=f"JPEG 2000 with {bits} bits.*8 bits, or as a 16-bit PNG"):
        pixels(jpeg_2000(kind))


@pytest.mark.parametrize("photometric", [0, 1])
def test_a_16_bit_tiff_is_upright_in_value_whichever_value_is_white(photometric):
    values = np.array([0, 65535, 32896, 257], dtype="<u2")
    stored = 65535 - values if photometric == 0 else values
    assert grey(tiff(stored.tobytes(), 4, 1, bits=16, photometric=photometric)) == [0, 255, 128, 1]


def test_a_12_bit_tiff_uses_the_whole_range():
    assert grey(tiff(packed_12_bits([0, 4095, 2048, 1024]), 4, 1, bits=12)) == [0, 255, 128, 64]


@pytest.mark.parametrize(
    ("depth", "rows", "transparent", "expected"),
    [
        (1, [bytes([0b01000000])], 0, [255, 255]),
        (2, [bytes([0b01110000])], 1, [255, 255]),
        (2, [bytes([0b01100000])], 1, [255, 170]),
        (4, [bytes([0x15])], 1, [255, 85]),
        (8, [bytes([1, 7])], 1, [255, 7]),
        (16, [bytes([1, 0, 1, 1])], 0x0100, [255, 1]),
    ],
)
def test_the_transparent_colour_of_a_grey_png_is_white_at_every_depth(depth, rows, transparent, expected):
    content = png(rows, 2, depth=depth, colour=0, transparent=transparent.to_bytes(2, "big"))
    assert grey(content) == expected


def test_the_transparent_colour_of_a_16_bit_rgb_png_is_compared_in_all_bits():
    clear, dark = bytes([0, 0, 0, 0, 0, 0]), bytes([0, 9, 0, 9, 0, 9])  # equal in the upper eight bits
    content = png([clear + dark], 2, depth=16, colour=2, transparent=bytes(6))
    assert pixels(content) == [(255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize(("alpha_bits", "expected"), [(0, (30, 20, 10)), (8, (255, 255, 255))])
def test_alpha_of_a_tga_counts_only_where_it_is_declared(alpha_bits, expected):
    content = tga(np.full((1, 1, 4), (10, 20, 30, 0)), alpha_bits=alpha_bits)
    assert pixels(content) == [expected]


def test_files_that_are_decoded_differently_than_before_are_marked():
    values = np.array([0, 65535], dtype="<u2").tobytes()
    read = [decode_rgb(tiff(values, 2, 1, bits=16, photometric=p), 8, CROP).revised for p in (0, 1)]
    assert read == [True, False]


def test_a_fits_file_is_refused_by_name():
    with pytest.raises(DataError, match=r"its content is FITS.*save it as PNG"):
        pixels(fits(np.array([[0, 65535]])))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (jpeg_head(12), "a JPEG with 12 bits per sample"),
        (tiff(bytes(20), 2, 2, bits=8, bands=5, planar=2), r"a TIFF of 5 bands \(planar, 8 bits, unsigned\)"),
        (tiff(bytes(20), 2, 2, bits=8, bands=5), r"a TIFF of 5 bands \(8 bits, unsigned\)"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "JPEG XL"),
        (bytes(128) + b"DICM" + bytes(20), "DICOM"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"no image at all", "no known image format"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_the_error_for_an_unreadable_file_names_its_format(content, words):
    with pytest.raises(DataError, match=words):
        pixels(content)


def test_heic_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(decode, "HEIF", "")
    monkeypatch.setattr(rgb, "FORMATS", [name for name in rgb.FORMATS if name != "HEIF"])
    with pytest.raises(DataError, match=r"HEIC.*tlopt\[heif\]"):
        pixels(b"\0\0\0\x18ftypheic" + bytes(40))


def test_heic_is_read_with_its_package():
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), (200, 30, 30)).save(file, "HEIF", quality=100)
    assert np.abs(np.array(pixels(file.getvalue())) - (200, 30, 30)).max() <= 4


@pytest.mark.parametrize(("bits", "expected"), [(16, [0, 16, 255]), (12, [0, 255, 255]), (14, [0, 64, 255])])
def test_bits_say_which_value_of_16_bit_grey_is_white(bits, expected):
    file = io.BytesIO()
    PIL.Image.fromarray(np.array([[0, 4095, 65535]], dtype=np.uint16)).save(file, "PNG")
    assert grey(file.getvalue(), Reading(resize="crop", bits=bits)) == expected


def test_bits_leave_alone_what_its_format_scales():
    assert grey(jpeg_2000("grey10"), Reading(resize="crop", bits=10)) == [255] * 4
    graymap = b"P5\n2 1\n1023\n" + (1023).to_bytes(2, "big") + (512).to_bytes(2, "big")
    assert grey(graymap, Reading(resize="crop", bits=10)) == [255, 128]


def test_bits_hold_for_16_bit_colours_of_png_in_all_levels():
    row = b"".join(value.to_bytes(2, "big") for value in (0, 2048, 4095, 16, 32, 48))
    content = png([row], 2, depth=16, colour=2)
    assert pixels(content, Reading(resize="crop", bits=12)) == [(0, 128, 255), (1, 2, 3)]


def test_bits_are_refused_for_16_bit_colours_of_other_files():
    content = tiff(bytes(6), 1, 1, bits=16, photometric=2, bands=3)
    assert pixels(content) == [(0, 0, 0)]
    with pytest.raises(DataError, match=r"data\.bits.*PNG"):
        pixels(content, Reading(resize="crop", bits=12))


@pytest.mark.parametrize(
    ("content", "peak"),
    [
        (tiff(np.array([5, 900], dtype="<u2").tobytes(), 2, 1, bits=16), 900),
        (tiff(bytes([5, 90]), 2, 1, bits=8), -1),
        (tiff(bytes([0, 3, 0, 3, 0, 3]), 1, 1, bits=16, photometric=2, bands=3), 3 * 257),
    ],
)
def test_the_largest_value_of_deep_images_is_known(content, peak):
    assert decode_rgb(content, 8, CROP).peak == peak


def test_more_megapixels_are_read_where_they_are_allowed(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    file = io.BytesIO()
    PIL.Image.new("1", (100, 100)).save(file, "PNG")
    with pytest.raises(DataError, match=r"more pixels.*megapixels_max"):
        pixels(file.getvalue())
    with decode.quiet():
        assert len(pixels(file.getvalue(), Reading(resize="crop", megapixels_max=0.02))) == 10_000
