"""Writing a file that is proved before it has its name."""

import shutil
from pathlib import Path

from dora_diffusion.adapters import AdapterState
from dora_diffusion.adapters.changes import needs_base
from dora_diffusion.errors import AdapterError, ConfigError, FormatError, MachineError, ModelError
from dora_diffusion.formats.format import Base, Format, Precision
from dora_diffusion.formats.peft_format import is_empty_folder, is_peft_folder
from dora_diffusion.formats.verify.against import judged, verify_against
from dora_diffusion.formats.verify.compare import Verification
from dora_diffusion.formats.verify.promises import further_readers_of, readers_of
from dora_diffusion.formats.verify.reading import BaseWeights, read_adapter_file
from dora_diffusion.formats.verify.report import first_fault
from dora_diffusion.formats.verify.stand_in import stand_in


def write_proved(
    form: Format, state: AdapterState, output: Path, base: Base, precision: Precision = "fp32"
) -> list[Verification]:
    """Write ``state`` beside ``output``, read it back as each reader does that the format is for, and then rename it.

    Returns:
        What each of those readers makes of the file, and others that take such files.

    Raises:
        FormatError: in a reader the format is for the file would give other weights; nothing is left, and an older file
            stays.
        ConfigError: a folder is in the way that is none of the format's.
        AdapterError, ConfigError, ModelError, MachineError: as ``Format.write`` and ``verify_against`` say.
    """
    if output.is_dir() and not is_peft_folder(output) and (form.suffix or not is_empty_folder(output)):
        raise ConfigError(f"{output} is there and is no folder of {form.name}'s; give another --output.")
    # Under its own name in a folder of its own: some headers repeat the name.
    folder = output.with_name(f".{output.name}.unproved")
    shutil.rmtree(folder, ignore_errors=True)
    fresh = folder / output.name
    try:
        form.write(state, fresh, base, precision)
        found = _prove(form, state, fresh, base)
        if output.is_dir():
            shutil.rmtree(output)
        fresh.replace(output)
    except OSError as error:
        raise MachineError(f"{output} cannot be written: {error.strerror or error}. Give another --output.") from None
    except MachineError as error:
        raise MachineError(str(error).replace(str(fresh), str(output))) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _prove(form: Format, state: AdapterState, file: Path, base: Base) -> list[Verification]:
    names = readers_of(form.name)
    if not names:
        return []
    written = read_adapter_file(file)
    asked = (*names, *further_readers_of(form.name))
    try:
        if form.needs_base and needs_base(state):  # to write it, its weights were found to be the adapter's own
            found = judged(written, state, BaseWeights(base.family, base.weights), asked)
        else:
            found = verify_against(written, state, base, asked)
    except (ConfigError, ModelError, AdapterError):
        if state.kind != "lora":
            raise
        # It adds the same to any base, so that none is needed to see that, by the readers it is for.
        found = judged(written, state, stand_in(state, base), names)
    for one in found[: len(names)]:
        if not one.is_right:
            raise FormatError(
                f"The format {form.name!r} cannot carry this adapter to {one.reader}: {first_fault(one)}. Nothing was "
                "written; export another format."
            )
    return found
