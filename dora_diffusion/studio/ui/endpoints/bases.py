"""Endpoints about base models: those that are known, and others."""

from typing import TYPE_CHECKING

from dora_diffusion.studio.bases import Base, BaseCheck

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio


class BaseEndpoints:
    """What they are taught to."""

    def __init__(self, studio: "Studio"):
        self.studio = studio
        self.at_once = (self.bases,)
        # A base is checked by loading parts of it, where pictures are drawn.
        self.in_line = (
            self.check_base,
            self.add_base,
        )

    def bases(self) -> list[Base]:
        """The base models that subjects can be taught to.

        Returns:
            name, label, family, where it lies, picture size in pixels, and whether it has gone missing.
        """
        return self.studio.bases.list()

    def check_base(self, name: str) -> BaseCheck:
        """Whether a model can be used as a base. Nothing is kept or downloaded. Waits in line: it reads the model.

        Args:
            name: a folder, a .safetensors file or a name of the hub.

        Returns:
            ok, and in words what was found or is missing.
        """
        return self.studio.bases.check(name)

    def add_base(self, name: str, download: bool = False) -> Base:
        """Check a base model, and keep it in the list. Waits in line, since it reads the model.

        Args:
            name: a folder, a .safetensors file or a name of the hub.
            download: let a name of the hub be downloaded; else it must be in this machine's cache.

        Returns:
            The base; its name is what create_subject asks for.
        """
        return self.studio.bases.add(name, download)
