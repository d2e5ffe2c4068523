"""The subject's photos with their captions, buckets and masks, as the settings want them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_diffusion.config import DataConfig
from dora_diffusion.data.buckets import Shape, automatic_buckets
from dora_diffusion.data.captions import METADATA, Caption, Captions, find_captions, tell_origins
from dora_diffusion.data.checks import check_photos, folder_findings
from dora_diffusion.data.masks import MaskFolder, MaskOf, alpha_mask
from dora_diffusion.data.views import Photos
from dora_diffusion.training.digests import NOTHING, Digests, digests_of_files, digests_of_texts


@dataclass(frozen=True)
class SubjectFiles:
    """What lies on the disk: photos, what each is called, and their masks. Cheap to find: no photo is read."""

    paths: list[Path]
    captions: list[Caption]
    mask_of: MaskOf | None


def find_subject(data: DataConfig, paths: list[Path]) -> SubjectFiles:
    """Captions and masks of the photos ``paths``.

    Raises:
        ConfigError: a caption names the class, and no class noun was given.
        DataError: a caption or a mask is missing, or not fit.
    """
    found = find_captions(paths, data.captions, data.caption_column, data.prompt())
    captions = [Caption(data.fill(caption.text), caption.origin) for caption in found]
    return SubjectFiles(paths, captions, _masks(data, paths))


def _masks(data: DataConfig, paths: list[Path]) -> MaskOf | None:
    if data.mask_data_dir is not None:
        return MaskFolder(data.mask_data_dir, paths)
    return alpha_mask if data.use_alpha_mask else None


def load_subject(data: DataConfig, files: SubjectFiles, resolution: int, chunk: int) -> Photos:
    """The photos, read.

    Args:
        resolution: side in pixels of the square that is trained at where there are no buckets.
        chunk: photos that all processes take in together.

    Raises:
        DataError: a photo or a mask cannot be read, or a mask does not fit its photo.
    """
    captions = Captions(
        tuple(caption.text for caption in files.captions),
        dropout=data.caption_dropout,
        shuffle=data.caption_shuffle,
        keep_tags=data.caption_keep_tags,
    )
    return Photos(
        files.paths,
        resolution,
        center_crop=data.center_crop,
        random_flip=data.random_flip,
        name="instance",
        buckets=_buckets(data, resolution),
        chunk=chunk,
        repeats=data.repeats,
        captions=captions,
        mask_of=files.mask_of,
        unmasked_weight=data.unmasked_weight,
    )


def _buckets(data: DataConfig, resolution: int) -> Sequence[Shape]:
    if data.aspect_ratio_buckets is None:
        return ()
    return data.given_buckets() or automatic_buckets(resolution)


def subject_digests(files: SubjectFiles) -> dict[str, Digests]:
    """Of what a run learns from, by name: a resume refuses others. Nothing of captions where there is but a prompt."""
    texts = [caption.text for caption in files.captions]
    plain = all(caption.origin == "prompt" for caption in files.captions)
    places = [_place_of(path, caption) for path, caption in zip(files.paths, files.captions, strict=True)]
    masks = files.mask_of.files if isinstance(files.mask_of, MaskFolder) else []
    return {
        "photos": digests_of_files(files.paths),
        "captions": NOTHING if plain else digests_of_texts(texts, places),
        "masks": digests_of_files(masks) if masks else NOTHING,
    }


def _place_of(path: Path, caption: Caption) -> str:
    """Where the caption of a photo is to be looked for."""
    if caption.origin == "sidecar":
        return path.with_suffix(".txt").name
    return f"{path.name} in {METADATA}" if caption.origin == "metadata" else f"{path.name} (by the prompt)"


def subject_facts(data: DataConfig, files: SubjectFiles, photos: Photos) -> dict[str, str]:
    """What a user wants to see once of the photos, by name."""
    facts = {"photos": f"{len(photos)}, prompt {data.prompt()!r}"}
    if any(caption.origin != "prompt" for caption in files.captions):
        facts["captions"] = tell_origins(files.captions)
    if data.aspect_ratio_buckets is not None:
        counts = Counter(photos.bucket_of(photo) for photo in range(len(photos)))
        facts["buckets"] = ", ".join(f"{count} of {width} x {height}" for (height, width), count in counts.items())
    if files.mask_of is not None:
        where = "the photos' transparency" if data.use_alpha_mask else str(data.mask_data_dir)
        facts["masks"] = f"{where}, {data.unmasked_weight:g} outside"
    return facts


def photo_remarks(data: DataConfig, resolution: int) -> Iterator[str]:
    """One sentence on photos that would hurt the result, if there are such: ``doctor`` has the others."""
    assert data.instance_data_dir is not None
    reports = check_photos(data.instance_data_dir, resolution)
    findings = [finding for report in reports for finding in report.findings] + folder_findings(reports)
    hurting = [finding.message for finding in findings if finding.severity == "warning"]
    if hurting:
        more = f" (one of {len(hurting)})" if len(hurting) > 1 else ""
        yield f"{hurting[0]}{more} See: dora-diffusion doctor --instance_data_dir {data.instance_data_dir}"


def missing_trigger(data: DataConfig, files: SubjectFiles) -> str | None:
    """What is to be said if the trigger is in no caption: nothing would call the subject then."""
    if any(data.trigger in caption.text for caption in files.captions):
        return None
    return (
        f"The trigger {data.trigger!r} is in no caption, so it will not call the subject: write it or {{trigger}} into "
        "them, or name the word that is there with --trigger."
    )
