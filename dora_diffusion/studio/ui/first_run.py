"""What teaching is, shown to who has taught nothing yet: photos of a sample, and what toybox drew once it knew it."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from dora_diffusion.studio.disk import link_or_copy, told
from dora_diffusion.studio.intake import make_thumb
from dora_diffusion.studio.samples import sample_photos
from dora_diffusion.studio.ui.html import picture

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio

SAMPLE = "teapot"
DRAWN = Path(__file__).with_name("example")  # made by scripts/make_first_run.py
SCENES = {"beach": "on the beach", "snow": "in the snow", "forest": "in the forest"}  # of the prompts, by file name
SHOWN_PHOTOS = 3


def first_run_html(studio: "Studio") -> str:
    """The example; empty once there is a subject, which says more."""
    if studio.subjects.list():
        return ""
    photos, drawn = _pictures(studio)
    given = "".join(picture(photo, f"A sample photo of a toy {SAMPLE}") for photo in photos)
    made = "".join(
        f"<figure>{picture(drawn[name], f'The same {SAMPLE} {words}, drawn by the model')}"
        f"<figcaption>{escape(words)}</figcaption></figure>"
        for name, words in SCENES.items()
    )
    return (
        '<div id="teach-example" class="example">'
        f"<h3>You give a few photos</h3><div class='three'>{given}</div>"
        f"<h3>You get new pictures of the same thing</h3><div class='three'>{made}</div>"
        "<p class='quiet'>Made by the small built-in model after one balanced training with five photos. To do the "
        f"same here, press {SAMPLE.capitalize()} under “Your photos”, then Train.</p></div>"
    )


def _pictures(studio: "Studio") -> tuple[list[Path], dict[str, Path]]:
    """The photos, and what was drawn by scene, as files in the media folder: nothing else is served."""
    folder = studio.home.media_of("example", SAMPLE)
    photos = []
    with told("show the example"):
        for photo in sample_photos(SAMPLE)[:SHOWN_PHOTOS]:
            photos.append(folder / f"photo-{photo.name}")
            make_thumb(photo, photos[-1])
        drawn = {name: folder / f"{name}.jpg" for name in SCENES}
        for name, file in drawn.items():
            link_or_copy(DRAWN / f"{name}.jpg", file)
    return photos, drawn
