"""What the eye's tests share: their sizes, and held-out toys rendered and looked at."""

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dora_diffusion.toybox.draws import Instances, Split, Views
from dora_diffusion.toybox.eye import SIZE, Eye, Seen
from dora_diffusion.toybox.recipe.eye_pool import RoundTrip
from dora_diffusion.toybox.render import Rendered, render
from dora_diffusion.toybox.words import REFERENCE_SCENES, SCENES

# The training photos' scenes and the prompts' scenes never overlap (the definition of likeness).
OTHER_SCENES = tuple(scene for scene in SCENES if scene not in REFERENCE_SCENES)
_BATCH = 1024


class AcceptanceSizes(BaseModel):
    """How much is rendered for the tests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int = Field(2_500, ge=1, description="photo-style renders for class, scene and main colour")
    styled: int = Field(2_000, ge=1, description="renders in all styles")
    gallery: int = Field(100, ge=2, description="toys of one class among which one is found")
    classes: int = Field(21, ge=1, description="classes that are searched, the first ones")
    twins: int = Field(504, ge=2, description="toys that are compared with their twins")
    subjects: int = Field(2, ge=1, description="toys of each class for the probes")
    pictures: int = Field(8, ge=1, le=len(OTHER_SCENES), description="pictures of each, in as many scenes")
    resamplings: int = Field(1_000, ge=1, description="of the bootstrap")
    size: int = Field(SIZE, ge=32, description="side of the renders in pixels")
    supersample: int = Field(2, ge=1, description="rays a pixel, along each side")

    @classmethod
    def smoke(cls) -> "AcceptanceSizes":
        """Everything once, in seconds, on a CPU."""
        few = {"photos": 4, "styled": 4, "gallery": 2, "classes": 1, "twins": 2, "subjects": 1, "pictures": 2}
        return cls.model_validate({**few, "resamplings": 20, "size": 32, "supersample": 1})


@dataclass(frozen=True)
class Bench:
    """An eye under test, the held-out set it is tested on, and the autoencoder (None: none yet)."""

    eye: Eye
    round_trip: RoundTrip | None
    split: Split
    seed: int
    device: str
    sizes: AcceptanceSizes

    def pictures(self, instances: Instances, views: Views) -> Rendered:
        """Renders of held-out toys."""
        return render(instances, views, self.sizes.size, self.sizes.supersample, self.device)

    def look(self, instances: Instances, views: Views, through: bool = False) -> Seen:
        """What the eye says of renders, ``through`` the autoencoder if asked; batch by batch, on the CPU."""
        parts = []
        for start in range(0, len(instances), _BATCH):
            rows = slice(start, start + _BATCH)
            images = self.pictures(instances.take(rows), views.take(rows)).images
            parts.append(self.see(images, through))
        return Seen(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def see(self, images: Tensor, through: bool = False) -> Seen:
        """What the eye says of pictures, on the CPU."""
        if through and self.round_trip is not None:
            images = self.round_trip(images)
        return Seen(*(column.cpu() for column in self.eye.see(images)))


def in_scenes(views: Views, scenes: tuple[str, ...]) -> Views:
    """The same views in the given scenes, in turn: row i in scene ``i % len(scenes)``."""
    places = torch.tensor([tuple(SCENES).index(scene) for scene in scenes])
    columns = views.columns()
    columns["scene"] = places[torch.arange(len(views)) % len(scenes)]
    return Views(**columns)


def repeated(instances: Instances, times: int) -> Instances:
    """Every toy ``times`` times in a row."""
    return instances.take(torch.arange(len(instances)).repeat_interleave(times))
