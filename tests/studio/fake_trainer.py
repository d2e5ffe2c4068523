"""A trainer that trains nothing: it keeps the trainer's side of the bargain, or breaks it in one chosen way.

Run as: python fake_trainer.py MODE SECONDS_A_STEP config.yaml
What it "learns" is a chain of digests over steps and photos, so that an exact resume gives the same bytes.

Modes, at step 3: ok; refuse (exit 2 before the first word); fail (say so); hang (no SIGTERM helps); liar (say done
without an adapter); oom (unless batch, resolution or memory saving were changed); nan (unless the learning rate was
halved); and, the first time only: crash (vanish), kill (by SIGKILL), abort (by SIGABRT), disk, base.
"""

import fcntl
import hashlib
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import yaml
from PIL import Image

from dora_diffusion.studio.process import say_alive

FIRST_TIME_ONLY = ("crash", "kill", "abort", "disk", "base")


class Trainer:
    def __init__(self, mode: str, pause_s: float, config_file: Path) -> None:
        self.job, self.pause_s = config_file.parent, pause_s
        self.config = yaml.safe_load(config_file.read_text())
        self.steps = self.config["run"]["max_train_steps"]
        self.every = self.config["run"]["checkpointing_steps"]
        self.folder = Path(self.config["run"]["output_dir"])
        self.folder.mkdir(exist_ok=True)
        self.mode = self.mode_now(mode)
        photos = sorted(Path(self.config["data"]["instance_data_dir"]).glob("*.jpg"))
        self.digest = hashlib.sha256(b"".join(photo.read_bytes() for photo in photos)).hexdigest()
        self.stop_asked = False
        signal.signal(signal.SIGTERM, self.on_stop)
        self.refuse_company()

    def mode_now(self, mode: str) -> str:
        broke_once = self.job / "broke_once"
        if mode in FIRST_TIME_ONLY:
            if broke_once.exists():
                return "ok"
            broke_once.touch()
        return mode

    def refuse_company(self) -> None:
        """No two trainers of one job: the test looks for the file that this leaves."""
        self.alone = (self.job / "alone").open("w")
        try:
            fcntl.flock(self.alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (self.job / "TWICE").touch()

    def on_stop(self, *_: object) -> None:
        self.stop_asked = self.mode != "hang"
        if self.mode != "hang":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # like the real one: the second ends it at once

    def say(self, state: str, step: int, message: str = "", **facts: object) -> None:
        status = {
            "state": state,
            "step": step,
            "max_train_steps": self.steps,
            "loss": loss_at(step) if step else None,
            "seconds_left": (self.steps - step) * self.pause_s if step else None,
            "step_ms": 1000 * self.pause_s,
            "memory_gib": 0.5,
            "device": "CPU",
            "message": message,
            "pid": os.getpid(),
            **facts,
        }
        write(self.folder / "status.json", json.dumps(status).encode())

    def train(self) -> None:
        self.say("preparing", 0, "making class images: 4 of 12")
        time.sleep(self.pause_s)
        first = self.resume() + 1
        for step in range(first, self.steps + 1):
            self.digest = hashlib.sha256(f"{self.digest} {step}".encode()).hexdigest()
            with (self.folder / "metrics.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": loss_at(step)}) + "\n")
            self.say("training", step)
            self.misbehave(step)
            if step % self.every == 0 or step == self.steps:
                self.preview(step)
            if step % self.every == 0 or self.stop_asked:
                self.save(step)
            if self.stop_asked and step < self.steps:
                return self.say("stopped", step, f"Stopped at step {step}; everything is saved.")
            time.sleep(self.pause_s)
        self.say("saving", self.steps)
        self.save(self.steps)
        if self.mode != "liar":
            write(self.folder / "pytorch_lora_weights.safetensors", self.digest.encode())
        return self.say("done", self.steps)

    def resume(self) -> int:
        checkpoint, metrics = self.folder / "checkpoint.json", self.folder / "metrics.jsonl"
        step = 0
        if checkpoint.exists():
            step, self.digest = json.loads(checkpoint.read_text())
        if metrics.exists():
            lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write(metrics, "".join(f"{line}\n" for line in kept).encode())
        return step

    def save(self, step: int) -> None:
        adapters = self.job / "adapters"
        adapters.mkdir(exist_ok=True)
        write(adapters / f"step-{step:06d}.safetensors", self.digest.encode())
        write(self.folder / "checkpoint.json", json.dumps([step, self.digest]).encode())

    def preview(self, step: int) -> None:
        (self.folder / "samples").mkdir(exist_ok=True)
        pictures = {}
        for number, _ in enumerate(self.config["run"]["validation_prompt"]):
            file = self.folder / "samples" / f"step-{step:06d}-{number:02d}-0.png"
            shade = 40 + 200 * step // self.steps
            Image.new("RGB", (64, 64), (shade, 60 * number, 120)).save(file)
            pictures[file.name] = round(step / self.steps - 0.05 * number, 4)
        mean = sum(pictures.values()) / max(1, len(pictures))
        with (self.job / "likeness.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, "likeness": mean, "pictures": pictures}) + "\n")

    def misbehave(self, step: int) -> None:
        if step != 3:
            return
        if self.mode == "crash":
            os._exit(9)
        if self.mode in ("kill", "abort"):
            os.kill(os.getpid(), signal.SIGKILL if self.mode == "kill" else signal.SIGABRT)
        run, optim = self.config["run"], self.config["optim"]
        eased = run["train_batch_size"] == 1 or run["gradient_checkpointing"] or self.config["data"]["resolution"]
        if self.mode == "oom" and not eased:
            self.fail(step, "Out of memory in step 3. What helps: --gradient_checkpointing.", "out_of_memory")
        if self.mode == "nan" and optim["learning_rate"] >= 2e-3:
            self.fail(step, "The loss of steps 1 to 3 is not finite.", "unstable")
        if self.mode == "disk":
            self.fail(step, "checkpoint-3 cannot be written: No space left on device.", "disk_full")
        if self.mode == "base":
            self.fail(step, "There is no base model at /models/sd15.", "base_missing")
        if self.mode == "fail":
            self.fail(step, "Training became <unstable> at step 3. Halve the learning rate.", "broken")

    def fail(self, step: int, message: str, code: str) -> None:
        self.say("failed", step, message, code=code)
        sys.exit(1)


def write(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.new")
    draft.write_bytes(content)
    draft.replace(file)


def loss_at(step: int) -> float:
    return 0.1 + 0.4 * math.exp(-step / 30) + 0.05 * math.sin(step * 1.7)


if __name__ == "__main__":
    say_alive()
    mode, pause, config_file = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    if mode == "refuse":
        print("Error: the base model toybox cannot be found.")
        sys.exit(2)
    Trainer(mode, pause, config_file).train()
