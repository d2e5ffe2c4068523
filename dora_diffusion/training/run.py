"""``train(config, on_event, should_stop)``: the whole trainer, for script, command line and studio alike."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from dora_diffusion.config import TrainConfig
from dora_diffusion.config.fields import value_at, walk
from dora_diffusion.errors import FormatError, TrainingError
from dora_diffusion.formats import WEIGHTS_NAME
from dora_diffusion.formats.checkpoint_folders import CHECKPOINT, FINAL
from dora_diffusion.inference.out_of_memory import is_out_of_memory, memory_told
from dora_diffusion.models import choose_attention
from dora_diffusion.registry import FORMATS, OPTIMIZERS
from dora_diffusion.training import remedies
from dora_diffusion.training.assembly import Assembly, assemble, photo_paths
from dora_diffusion.training.card import write_card
from dora_diffusion.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from dora_diffusion.training.events import (
    Finished,
    Note,
    OnEvent,
    Planned,
    PreviewReady,
    RunStarted,
    Saved,
    Saving,
    ShouldStop,
    StepDone,
    StoppedEarlyError,
    ignore,
    never,
)
from dora_diffusion.training.hardware import make_accelerator, show_pictures, start_trackers
from dora_diffusion.training.hub import Hub, connect
from dora_diffusion.training.memory import recompute_activations
from dora_diffusion.training.optim import notes_on
from dora_diffusion.training.planner import WORTH_TELLING, Planner
from dora_diffusion.training.preview import draw_previews, pictures_by_prompt, validation_prompts
from dora_diffusion.training.published import published_as, published_weights
from dora_diffusion.training.recovery import Recovery
from dora_diffusion.training.run_folder import RunFolder
from dora_diffusion.training.sentinels import Sentinels, Watched
from dora_diffusion.training.stepper import Losses, Stepper


@dataclass(frozen=True)
class TrainResult:
    """What a run came to. ``stopped``: it can go on; ``loss``: of the last step, NaN when none was done.

    ``plan``: with ``plan_only``, what the run would need; nothing was written.
    """

    output_dir: Path
    adapter: Path
    step: int
    stopped: bool
    loss: float
    plan: Planned | None = None


def train(config: TrainConfig, on_event: OnEvent = ignore, should_stop: ShouldStop = never) -> TrainResult:
    """Teach the base of ``config`` its subject.

    Started again in the same folder it resumes, or says that it is finished. Nothing is written before photos, base and
    adapter are known to be sound.

    Args:
        on_event: called with every ``events.Event``, on the main process only.
        should_stop: asked after every step; the run then saves a checkpoint and the adapter as it is, and returns.

    Raises:
        DoraError: a setting, photo, model, folder or machine is not fit; the message says what to do.
    """
    folder = RunFolder(config)
    paths = photo_paths(config)
    _check_prompts(config)
    accelerator = make_accelerator(config.run)
    tell = on_event if accelerator.is_main_process else ignore
    hub = connect(config.run) if accelerator.is_main_process and not config.run.plan_only else None
    if folder.is_finished():
        return _already_finished(folder, hub, tell)
    OPTIMIZERS.load(config.optim.optimizer).check(config.optim, accelerator.device)
    points = [] if config.run.overwrite else folder.resume_points()
    for note in notes_on(config):
        tell(Note(note))
    try:
        with memory_told("putting the run together", remedies.when_assembling(config)):
            parts = assemble(config, paths, accelerator, tell, should_stop)
    except StoppedEarlyError:
        return _stopped_early(folder, tell)
    _resume(points, parts.progress, tell)
    _keep_attention(parts, config)
    if config.run.plan_only:
        return _Run(config, folder, parts, accelerator, tell).plan()
    _open(folder, hub, accelerator, parts.progress.step)
    start_trackers(accelerator, {name: value_at(config, name) for name, _ in walk(TrainConfig)})
    tell(RunStarted(folder.path, parts.progress.step, config.run.max_train_steps, parts.facts))
    result = _Run(config, folder, parts, accelerator, tell).go(should_stop)
    if hub and not result.stopped:
        tell(Note(hub.upload(folder.path)))
    return result


def _check_prompts(config: TrainConfig) -> None:
    """Raises: ConfigError: a prompt cannot be written out."""
    config.data.prompt()
    if config.prior.with_prior_preservation:
        config.class_prompt()
    validation_prompts(config)


def _open(folder: RunFolder, hub: Hub | None, accelerator: Accelerator, step: int) -> None:
    """The first that is written, after everything that can be refused."""
    if hub:
        hub.make_repository()
    if accelerator.is_main_process:
        folder.open()
        folder.drop_metrics_after(step)
    accelerator.wait_for_everyone()


def _already_finished(folder: RunFolder, hub: Hub | None, tell: OnEvent) -> TrainResult:
    done, adapter = folder.steps_done(), folder.path / WEIGHTS_NAME
    tell(
        Note(
            f"The run in {folder.path} is finished; its photos and captions are not looked at again. "
            "To go on, raise --max_train_steps; to start again, --overwrite."
        )
    )
    tell(Finished(done, adapter, False))
    if hub:
        tell(Note(hub.upload(folder.path)))
    return TrainResult(folder.path, adapter, done, False, float("nan"))


def _resume(points: list[Path], progress: Progress, tell: OnEvent) -> None:
    """Load the first checkpoint that is whole.

    Raises:
        TrainingError: there are some and none is whole.
    """
    for checkpoint in points:
        try:
            load_checkpoint(checkpoint, progress)
        except FormatError as error:
            tell(Note(f"{checkpoint.name} is damaged: {error}"))
            continue
        tell(Note(f"Resuming from {checkpoint.name}."))
        return
    if points:
        names = ", ".join(checkpoint.name for checkpoint in points)
        raise TrainingError(f"No checkpoint of this run is whole (looked at {names}); start again with --overwrite.")


def _keep_attention(parts: Assembly, config: TrainConfig) -> None:
    """A resumed run keeps the backend that ``auto`` found: measured again, another might win, with other roundings."""
    base, record = parts.base, parts.progress.record
    if config.model.attention == "auto" and record.attention not in ("", base.attention.split()[0]):
        base.attention = parts.facts["attention"] = choose_attention(base.unet, record.attention)
    record.attention = base.attention.split()[0]


def _stopped_early(folder: RunFolder, tell: OnEvent) -> TrainResult:
    tell(Note("Stopped before the first step; the class images made so far are kept (the same command goes on)."))
    return TrainResult(folder.path, folder.path / WEIGHTS_NAME, folder.steps_done(), True, float("nan"))


class _Run:
    """The loop, and what is written while it turns."""

    def __init__(
        self, config: TrainConfig, folder: RunFolder, parts: Assembly, accelerator: Accelerator, tell: OnEvent
    ):
        self.config, self.folder, self.accelerator, self.tell = config, folder, accelerator, tell
        self.base, self.progress, self.parts = parts.base, parts.progress, parts.parts
        stepper = Stepper(
            parts.base.predict,
            parts.noise_schedule,
            parts.batches,
            parts.progress,
            accelerator,
            accumulation=config.run.gradient_accumulation_steps,
            prior_loss_weight=config.prior.prior_loss_weight,
            max_grad_norm=config.optim.max_grad_norm,
            loss=config.loss,
            prior_prediction=parts.prior_prediction,
            text_encoder_steps=config.optim.text_encoder_steps(config.run.max_train_steps),
        )
        self.planner = Planner(accelerator.device)
        self.recovery = Recovery(
            config,
            stepper,
            parts.progress,
            recompute=lambda: recompute_activations(parts.base, parts.trained),
            on_change=self.planner.restart,
            processes=accelerator.num_processes,
            tell=tell,
        )
        self.sentinels = Sentinels(Watched(config, parts.base, parts.batches, parts.progress, folder.path, tell))

    def plan(self) -> TrainResult:
        """Take the steps that the plan is made from, and leave."""
        done, planned = self.progress.step, None
        while planned is None:
            self.planner.begin_step()
            loss = self.recovery.step().total
            planned = self.planner.end_step(self.config.run.max_train_steps - done)
        self.tell(planned)
        self.tell(Note(f"The plan is for {self.base.name} ({self.base.family.name})."))
        return TrainResult(self.folder.path, self.folder.path / WEIGHTS_NAME, done, True, loss, planned)

    def go(self, should_stop: ShouldStop) -> TrainResult:
        run = self.config.run
        self.sentinels.before_run()
        loss, stopped, usual_ms = float("nan"), False, 0.0
        while self.progress.step < run.max_train_steps and not stopped:
            self.sentinels.before_step()
            self.planner.begin_step()
            began = time.perf_counter()
            rate = self.progress.schedule.get_last_lr()[0]
            losses = self.recovery.step()
            step_ms = 1000 * (time.perf_counter() - began)
            planned = self.planner.end_step(run.max_train_steps - self.progress.step)
            usual_ms = step_ms if not usual_ms else 0.9 * usual_ms + 0.1 * step_ms
            loss, step = losses.total, self.progress.step
            self._report(losses, rate, step_ms, usual_ms)
            self.sentinels.after_step(losses)
            if planned is not None and run.max_train_steps - step >= WORTH_TELLING:
                self.tell(planned)
            if run.validation_prompt and self._preview_is_due():
                self._preview()
            stopped = self._anybody(should_stop()) and step < run.max_train_steps
            if self._checkpoint_is_due() and not stopped and step < run.max_train_steps:
                self._checkpoint(CHECKPOINT)
        self._finish(stopped)
        return TrainResult(self.folder.path, self.folder.path / WEIGHTS_NAME, self.progress.step, stopped, loss)

    def _anybody(self, wish: bool) -> bool:
        """Whether any process was asked to stop: all must leave at the same step."""
        if self.accelerator.num_processes == 1:
            return wish
        votes = torch.tensor(float(wish), device=self.accelerator.device)
        return bool(self.accelerator.reduce(votes, reduction="sum").item() > 0)

    def _report(self, losses: Losses, rate: float, step_ms: float, usual_ms: float) -> None:
        step, total = self.progress.step, self.config.run.max_train_steps
        prior = losses.prior if self.config.prior.with_prior_preservation else None
        event = StepDone(
            step,
            total,
            losses.total,
            losses.instance,
            prior,
            rate,
            step_ms,
            (total - step) * usual_ms / 1000,
            losses.applied,
        )
        if self.accelerator.trackers:
            values = {
                "loss": event.loss,
                "instance_loss": event.instance_loss,
                "lr": event.lr,
                "step_ms": event.step_ms,
            }
            self.accelerator.log(values if prior is None else {**values, "prior_loss": prior}, step=step)
        self.tell(event)

    def _preview_is_due(self) -> bool:
        run, step = self.config.run, self.progress.step
        return step == run.max_train_steps or bool(run.validation_steps and step % run.validation_steps == 0)

    def _checkpoint_is_due(self) -> bool:
        every = self.config.run.checkpointing_steps
        return bool(every and self.progress.step % every == 0)

    def _preview(self) -> None:
        if self.accelerator.is_main_process:
            paths = self._drawn_previews()
            if self.accelerator.trackers:
                show_pictures(self.accelerator, pictures_by_prompt(paths), self.progress.step)
            self.tell(PreviewReady(self.progress.step, paths))
        self.accelerator.wait_for_everyone()

    def _drawn_previews(self) -> tuple[Path, ...]:
        """Raises: MachineError: the memory does not suffice; the steps done so far are saved first."""
        step = self.progress.step
        saved = f"Step {step} is saved: with another setting of previews the same command goes on from there."
        with memory_told("drawing previews", remedies.when_previewing(self.config), saved):
            try:
                with self.parts.all_here(), published_weights(self.progress):
                    return draw_previews(self.base, self.config, step)
            except Exception as error:
                if is_out_of_memory(error):
                    self._save(CHECKPOINT)
                raise

    def _checkpoint(self, name: str) -> None:
        self.sentinels.before_save()
        if self.accelerator.is_main_process:
            self._save(name)
        self.accelerator.wait_for_everyone()

    def _save(self, name: str) -> None:
        self.tell(Saving(self.progress.step, self._write_adapter))
        path = save_checkpoint(self.folder.path, self.progress, self.config.run.checkpoints_total_limit, name)
        self.tell(Saved(self.progress.step, path))

    def _finish(self, stopped: bool) -> None:
        self._checkpoint(CHECKPOINT if stopped or self._checkpoint_is_due() else FINAL)
        if self.accelerator.is_main_process:
            write_card(self.folder.path, self.config, self.base, self.progress.step)
            # Last, because this file is what makes a run a finished one.
            self._write_adapter(self.folder.path / WEIGHTS_NAME)
            self.tell(Finished(self.progress.step, self.folder.path / WEIGHTS_NAME, stopped))
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def _write_adapter(self, path: Path) -> None:
        """Write the adapter as it is now, for others to load."""
        data = self.config.data
        metadata = {
            "step": str(self.progress.step),
            "instance_prompt": data.prompt(),
            "trigger": data.trigger,
            "class_noun": data.class_noun or "",
            "resolution": str(data.resolution or self.base.native_resolution),
            **self.base.schedule_facts(),
        }
        if (published := published_as(self.progress)) is not None:
            metadata["weights"] = published
        with published_weights(self.progress):
            state = self.progress.adapter.state(self.base.name, metadata)
        FORMATS.load("diffusers").write(state, path)
