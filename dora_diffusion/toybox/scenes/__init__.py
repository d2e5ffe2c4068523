"""The places a toy can be in: procedural grounds and backs, different in every image."""

from collections.abc import Mapping
from types import MappingProxyType

from dora_diffusion.toybox.scenes import city, far_places, indoors, library, open_land, outdoors_walls
from dora_diffusion.toybox.scenes.scene import WALL_Z, Scene

__all__ = ["SCENES_BY_NAME", "WALL_Z", "Scene"]

# The names and their order are those of words.SCENES; a test holds them together.
SCENES_BY_NAME: Mapping[str, Scene] = MappingProxyType(
    {
        "studio": indoors.STUDIO,
        "beach": open_land.BEACH,
        "snow": open_land.SNOW,
        "grass": open_land.GRASS,
        "table": indoors.TABLE,
        "desert": open_land.DESERT,
        "moon": far_places.MOON,
        "city": city.CITY,
        "underwater": far_places.UNDERWATER,
        "brick": outdoors_walls.BRICK,
        "kitchen": indoors.KITCHEN,
        "sunset": far_places.SUNSET,
        "forest": outdoors_walls.FOREST,
        "carpet": indoors.CARPET,
        "library": library.LIBRARY,
        "garden": outdoors_walls.GARDEN,
    }
)
