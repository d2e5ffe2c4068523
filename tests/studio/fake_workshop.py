"""Speaks as the workshop's process does and loads nothing: pictures are one colour, told by their seed and strength.

Arguments: seconds a sampling step takes.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

PAUSE_S = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
orders: "queue.SimpleQueue[dict[str, Any]]" = queue.SimpleQueue()
stopped: set[int] = set()


class StoppedError(Exception):
    pass


def listen() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "stop" in message:
            stopped.add(message["stop"])
        else:
            orders.put(message)
    os._exit(0)


def say(order: dict[str, Any], event: str, **facts: Any) -> None:
    print(json.dumps({"order": order["order"], "event": event, **facts}), flush=True)


def draw(order: dict[str, Any]) -> dict[str, Any]:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    wanted = order["arguments"]
    steps, files = wanted["num_inference_steps"], wanted["files"]
    for index, file in enumerate(files):
        for step in range(1, steps + 1):
            time.sleep(PAUSE_S)
            if order["order"] in stopped:
                raise StoppedError
            say(order, "step", done=index * steps + step, total=len(files) * steps)
        size = (wanted["width"] or 64, wanted["height"] or 64)
        image = Image.new("RGB", size, (file["seed"] % 256, round(100 * wanted["strength"]), 0))
        info = PngInfo()
        settings = {**wanted["remember"], "prompt": wanted["prompt"], "seed": file["seed"]}
        info.add_text("dora_diffusion", json.dumps(settings))
        image.save(file["path"], pnginfo=info)
        image.save(file["thumb"])
        say(order, "picture", index=index, seconds=0.5 * steps, width=size[0], height=size[1])
    return {}


def export(order: dict[str, Any]) -> dict[str, Any]:
    wanted = order["arguments"]
    file = Path(wanted["folder"]) / f"{wanted['stem']}.safetensors"
    file.write_bytes(b"weights")
    say(order, "note", text="Proving.")
    if wanted["precision"] == "bf16":
        raise ValueError("ComfyUI reads other weights. Nothing was written; give another --output.")
    say(order, "warning", text="Something is left out.")
    verdict = {"reader": "comfyui", "ok": True, "words": "2 of 2 layers", "worst": 1e-8, "worst_of_change": 1e-7}
    return {"file": file.name, "size": 7, "sha256": "0" * 64, "verdicts": [{**verdict, "must": True}]}


def work(order: dict[str, Any]) -> dict[str, Any]:
    """What the order comes to; tasks that no workshop has are for tests of the line alone."""
    task, arguments = order["task"], order["arguments"]
    if task == "die":
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "leave":
        os._exit(3)
    if task == "refuse":
        raise ValueError("That cannot be done.")
    if task == "break":
        raise KeyError("lost")
    if task == "hang":
        say(order, "step", done=0, total=1)
        time.sleep(600)
    if task == "babble":
        print("not JSON at all", flush=True)
        print('["nor an object"]', flush=True)
    if task in ("check_base", "download_base"):
        print(task, os.environ["HF_HUB_OFFLINE"], file=sys.stderr, flush=True)
        if "bad" in arguments["name"]:
            raise ValueError(f"{arguments['name']} is no model.")
        return {"family": "sd1", "size": 512, "note": ""}
    if task == "plan":
        return {"step_s": 0.5, "loading_s": 4.0, "peak_gib": 1.5, "total_gib": 8.0, "device": "cpu"}
    known = {"draw": draw, "export": export}
    return known[task](order) if task in known else {"task": task, "pid": os.getpid(), **arguments}


def main() -> None:
    threading.Thread(target=listen, daemon=True).start()
    while True:
        order = orders.get()
        try:
            say(order, "done", result=work(order))
        except StoppedError:
            say(order, "stopped")
        except ValueError as error:
            say(order, "refused", message=str(error))
        except Exception as error:
            say(order, "broken", message=f"{type(error).__name__}: {error}")


main()
