"""Masks follow their photos pixel for pixel, and become the latents' loss weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_photo_colours import profile

from dora_diffusion.data.masks import MaskFolder, MaskOf, alpha_mask
from dora_diffusion.data.photos import open_alpha, open_grey, open_photo
from dora_diffusion.data.views import Photos, View
from dora_diffusion.errors import DataError

SIDE = 32


def save(path: Path, pixels: np.ndarray, **how: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, **how)
    return path


def photo_at(path: Path, width: int = SIDE, height: int = SIDE) -> Path:
    return save(path, np.random.default_rng(0).integers(0, 256, (height, width, 3)))


def masked(path: Path, mask_of: MaskOf, **how: object) -> Photos:
    settings: dict[str, object] = {"center_crop": False, "random_flip": False, "name": "instance", **how}
    return Photos([path], SIDE, mask_of=mask_of, **settings)  # type: ignore[arg-type]


def test_a_weight_is_the_mean_of_its_pixels(tmp_path: Path) -> None:
    """Columns 0 to 19 white: of the four places in a row two are whole, one half, one empty."""
    mask = np.zeros((SIDE, SIDE))
    mask[:, :20] = 255
    mask[:8, :8] = 51  # a fifth
    save(tmp_path / "masks" / "a.png", mask)
    photo = photo_at(tmp_path / "a.jpg")
    photos = masked(photo, MaskFolder(tmp_path / "masks", [photo]))
    weights = photos.loss_weights(View(0, 0, 0, False), (4, 4))
    assert weights.dtype == torch.float32
    row = torch.tensor([1, 1, 0.5, 0])
    expected = torch.stack([torch.tensor([0.2, 1, 0.5, 0]), row, row, row])[None]
    torch.testing.assert_close(weights, expected)
    softer = masked(photo, MaskFolder(tmp_path / "masks", [photo]), unmasked_weight=0.2)
    torch.testing.assert_close(softer.loss_weights(View(0, 0, 0, False), (4, 4)), 0.2 + 0.8 * expected)
    flipped = photos.loss_weights(View(0, 0, 0, True), (4, 4))
    assert torch.equal(flipped, weights.flip(2))


def test_the_mask_is_cropped_where_the_photo_is(tmp_path: Path) -> None:
    """The photo shows its own mask: wherever it is cropped and mirrored, the two agree."""
    pattern = np.zeros((SIDE, 96))
    pattern[8:20, 30:70] = 255
    photo = save(tmp_path / "a.png", np.repeat(pattern[..., None], 3, axis=2))
    save(tmp_path / "masks" / "a.bmp", pattern)
    photos = masked(photo, MaskFolder(tmp_path / "masks", [photo]), random_flip=True)
    views = [photos.view(0, sample) for sample in range(30)]
    assert len({view.left for view in views}) > 10 and {view.flip for view in views} == {True, False}
    for view in views:
        pixels = (photos.pixel_values(view)[:1] + 1) / 2
        torch.testing.assert_close(
            photos.loss_weights(view, (4, 4)), torch.nn.functional.avg_pool2d(pixels, 8), atol=1e-6, rtol=0
        )


def test_the_mask_is_resized_as_the_photo_is(tmp_path: Path) -> None:
    """64 x 128 to 32 x 64: the white half of the mask is the white half of the crop."""
    mask = np.zeros((64, 128))
    mask[:, 64:] = 255
    photo = photo_at(tmp_path / "a.jpg", 128, 64)
    save(tmp_path / "masks" / "a.png", mask[::2, ::2])  # a mask of half the size will do
    photos = masked(photo, MaskFolder(tmp_path / "masks", [photo]), center_crop=True)
    weights = photos.loss_weights(photos.view(0, 0), (4, 4))
    torch.testing.assert_close(weights[0, 0], torch.tensor([0, 0, 1.0, 1]), atol=0.02, rtol=0)
    assert float(weights.min()) >= 0 and float(weights.max()) <= 1


def test_a_mask_follows_its_photo_into_a_bucket(tmp_path: Path) -> None:
    mask = np.zeros((24, 40))
    mask[:8] = 255
    photo = photo_at(tmp_path / "a.jpg", 40, 24)
    save(tmp_path / "masks" / "a.png", mask)
    photos = masked(photo, MaskFolder(tmp_path / "masks", [photo]), buckets=[(32, 32), (24, 40)])
    weights = photos.loss_weights(photos.view(0, 0), (3, 5))
    assert torch.equal(weights, torch.tensor([1.0, 0, 0])[:, None].expand(3, 5)[None])


def test_without_masks_all_count(tmp_path: Path) -> None:
    photos = Photos([photo_at(tmp_path / "a.jpg")], SIDE, center_crop=True, random_flip=False, name="class")
    assert not photos.has_masks
    assert torch.equal(photos.loss_weights(photos.view(0, 0), (4, 4)), torch.ones(1, 4, 4))


def translucent(path: Path, exif: Image.Exif | None = None) -> Path:
    """Red, opaque on the left half, half transparent in the upper right, transparent in the lower right."""
    pixels = np.zeros((SIDE, SIDE, 4))
    pixels[..., 0] = 255
    pixels[:, :16, 3] = 255
    pixels[:16, 16:, 3] = 128
    return save(path, pixels, **({"exif": exif} if exif else {}))


def test_alpha_is_read_before_it_is_composited_away(tmp_path: Path) -> None:
    photo = translucent(tmp_path / "a.png")
    photos = masked(photo, alpha_mask)
    weights = photos.loss_weights(View(0, 0, 0, False), (4, 4))[0]
    half = 128 / 255
    torch.testing.assert_close(weights[0], torch.tensor([1, 1, half, half]))
    assert torch.equal(weights[3], torch.tensor([1.0, 1, 0, 0]))
    assert photos.pixel_values(View(0, 0, 0, False))[:, -1, -1].tolist() == [1, 1, 1]  # white, as without masks
    assert photos.pixel_values(View(0, 0, 0, False))[:, 0, 0].tolist() == [1, -1, -1]


def test_alpha_of_a_palette_picture(tmp_path: Path) -> None:
    picture = Image.new("P", (SIDE, SIDE), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.paste(1, (0, 0, 16, SIDE))
    picture.save(tmp_path / "a.png", transparency=0)
    alpha = np.asarray(open_alpha(tmp_path / "a.png"))
    assert (alpha[:, :16] == 255).all() and (alpha[:, 16:] == 0).all()


def test_masks_are_turned_upright_as_photos_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees: what is stored at the left is shown at the top
    photo = translucent(tmp_path / "a.png", exif)
    alpha = np.asarray(open_alpha(photo))
    assert (alpha[:16] == 255).all() and (alpha[16:] < 255).all()
    red = np.asarray(open_photo(photo))[..., 1]
    assert (red[:16] == 0).all() and (red[16:] > 0).all()
    mask = np.zeros((SIDE, SIDE))
    mask[:, :16] = 255
    stored = save(tmp_path / "masks" / "a.png", mask, exif=exif)
    upright = np.asarray(open_grey(stored))
    assert (upright[:16] == 255).all() and (upright[16:] == 0).all()


def test_a_masks_numbers_are_taken_as_they_stand(tmp_path: Path) -> None:
    """No colour profile bends them, and 16 bits are brought to 8."""
    grey = np.full((SIDE, SIDE), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "profile.png", icc_profile=profile(b"GRAY"))
    assert (np.asarray(open_photo(tmp_path / "profile.png")) != 128).all()
    assert (np.asarray(open_grey(tmp_path / "profile.png")) == 128).all()
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert (np.asarray(open_grey(tmp_path / "deep.png")) == 128).all()
    cut_out = np.zeros((SIDE, SIDE, 4), np.uint8)
    cut_out[:, :16] = 255
    Image.fromarray(cut_out).save(tmp_path / "cut.png")  # white where opaque, nothing elsewhere: as editors export it
    assert np.asarray(open_grey(tmp_path / "cut.png"))[0].tolist() == [255] * 16 + [0] * 16


def refusal(make: object, *arguments: object) -> str:
    with pytest.raises(DataError) as caught:
        make(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mask_that_is_missing_or_double_is_told(tmp_path: Path) -> None:
    photos = [photo_at(tmp_path / f"{name}.jpg") for name in "abc"]
    save(tmp_path / "masks" / "b.png", np.full((SIDE, SIDE), 255))
    told = refusal(MaskFolder, tmp_path / "masks", photos)
    assert "for a.jpg, c.jpg" in told and "a.png" in told
    save(tmp_path / "masks" / "b.jpg", np.full((SIDE, SIDE), 255))
    assert "2 masks for b.jpg: b.jpg and b.png" in refusal(MaskFolder, tmp_path / "masks", photos[1:2])
    assert "does not exist" in refusal(MaskFolder, tmp_path / "maks", photos)


def test_a_mask_of_other_proportions_is_told(tmp_path: Path) -> None:
    photo = photo_at(tmp_path / "a.jpg", 48, 32)
    save(tmp_path / "masks" / "a.png", np.full((48, 32), 255))
    told = refusal(masked, photo, MaskFolder(tmp_path / "masks", [photo]))
    assert "The mask of a.jpg is 32 x 48 pixels and the photo 48 x 32" in told


def test_a_size_rounded_by_a_pixel_is_no_other_proportion(tmp_path: Path) -> None:
    photo = photo_at(tmp_path / "a.jpg", 101, 67)
    save(tmp_path / "masks" / "a.png", np.full((33, 50), 255))
    masked(photo, MaskFolder(tmp_path / "masks", [photo]))


def test_a_black_mask_is_told(tmp_path: Path) -> None:
    photo = photo_at(tmp_path / "a.jpg")
    save(tmp_path / "masks" / "a.png", np.zeros((SIDE, SIDE)))
    assert "The mask a.png is black everywhere" in refusal(masked, photo, MaskFolder(tmp_path / "masks", [photo]))
    clear = save(tmp_path / "clear.png", np.zeros((SIDE, SIDE, 4)))
    assert "clear.png is transparent everywhere" in refusal(masked, clear, alpha_mask)


def test_a_photo_without_transparency_has_no_alpha_mask(tmp_path: Path) -> None:
    assert "a.jpg has no transparency" in refusal(masked, photo_at(tmp_path / "a.jpg"), alpha_mask)
