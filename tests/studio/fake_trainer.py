"""A trainer that trains nothing: it keeps the trainer's side of the bargain, or breaks it in one chosen way.

Run as: python fake_trainer.py MODE SECONDS_A_STEP config.yaml
Modes: ok, refuse (exit 2 before the first word), crash (vanish at step 3), fail (say so at step 3),
hang (no SIGTERM helps), liar (say done without an adapter).
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import yaml


class Trainer:
    def __init__(self, mode: str, pause_s: float, config: dict) -> None:
        self.mode, self.pause_s = mode, pause_s
        self.steps = config["run"]["max_train_steps"]
        self.folder = Path(config["run"]["output_dir"])
        self.folder.mkdir(exist_ok=True)
        self.stop_asked = False
        signal.signal(signal.SIGTERM, self.on_stop)

    def on_stop(self, *_: object) -> None:
        self.stop_asked = self.mode != "hang"
        if self.mode != "hang":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # like the real one: the second ends it at once

    def say(self, state: str, step: int, message: str = "") -> None:
        status = {
            "state": state,
            "step": step,
            "max_train_steps": self.steps,
            "loss": loss_at(step) if step else None,
            "seconds_left": (self.steps - step) * self.pause_s if step else None,
            "message": message,
            "pid": os.getpid(),
        }
        draft = self.folder / "status.json.new"
        draft.write_text(json.dumps(status))
        draft.replace(self.folder / "status.json")

    def train(self) -> None:
        self.say("preparing", 0, "Making class images: 4 of 12")
        time.sleep(self.pause_s)
        checkpoint = self.folder / "checkpoint"
        first = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 1
        for step in range(first, self.steps + 1):
            with (self.folder / "metrics.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": loss_at(step)}) + "\n")
            checkpoint.write_text(str(step))
            self.say("training", step)
            self.misbehave(step)
            if self.stop_asked:
                return self.say("stopped", step, f"Stopped at step {step}; everything is saved.")
            time.sleep(self.pause_s)
        self.say("saving", self.steps)
        if self.mode != "liar":
            (self.folder / "pytorch_lora_weights.safetensors").write_bytes(b"not real")
        return self.say("done", self.steps)

    def misbehave(self, step: int) -> None:
        if step == 3 and self.mode == "crash":
            os._exit(9)
        if step == 3 and self.mode == "fail":
            self.say("failed", step, "Training became <unstable> at step 3. Halve the learning rate.")
            sys.exit(1)


def loss_at(step: int) -> float:
    return 0.1 + 0.4 * math.exp(-step / 30) + 0.05 * math.sin(step * 1.7)


if __name__ == "__main__":
    mode, pause, config_file = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    if mode == "refuse":
        print("Error: the base model toybox cannot be found.")
        sys.exit(2)
    Trainer(mode, pause, yaml.safe_load(config_file.read_text())).train()
