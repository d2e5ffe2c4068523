"""Hostile names, paths, ids, hosts, files, sizes and prompts: refused in plain words or harmless, and nothing outside
the home is read or written. The studio is watched from inside: see ``watch/sitecustomize.py``.
"""

import base64
import json
import os
import re
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from attacker import Answer, Attacker
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from served import Server
from tabs import TAUGHT
from watched import Watch

pytest.importorskip("gradio")
pytestmark = pytest.mark.e2e

# Gradio refuses what no page of ours could send before we are asked, and says no word of it.
GRADIOS_OWN = r'"error": ?null'
TOKEN = "canary-7f3a9c"
RAW = (
    "Traceback",
    "Something went wrong",
    "sqlite3.",
    'File "/',
)  # what no answer says: each is a fault that nobody caught
SECRETS = (TOKEN, "root:x:0", "SQLite format 3", "max_train_steps:")
SCRIPT = '<img src=x onerror="window.hacked=1">'
PATIENCE_S = 20  # tests share the machine; what takes longer is stuck
HOME = {"studio.db", "studio.db-wal", "studio.db-shm", ".lock", "app.log", "subjects", "jobs", "media", "trash", "tmp"}
PROMPT, STRENGTH, SEED, COUNT, STEPS, GUIDANCE, SAMPLER, WIDTH = 1, 3, 4, 5, 6, 7, 8, 9  # places in Create's form


@dataclass(frozen=True)
class Case:
    """What is done, and what the answer has to say; "" where it is taken and does no harm."""

    name: str
    do: Callable[[Attacker], Answer]
    says: str = ""


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    place = tmp_path_factory.mktemp("hostile")
    canary = place / "canary"
    canary.mkdir()
    (canary / "secret.txt").write_text(TOKEN)
    Image.new("RGB", (300, 300), (1, 2, 3)).save(canary / "secret.jpg", comment=TOKEN.encode())
    home = place / "studio"
    folders = (home, place / "server.log", Path.home() / ".cache", Path("/tmp/.com.google"))
    watch = Watch(place / "watch.log", (canary, Path("/etc/passwd")), folders)
    server = Server([sys.executable, str(TAUGHT), "0.0"], home, environment=watch.environment())
    server.start()
    try:
        made = Attacker(server, canary)
        end = time.monotonic() + 60
        while json.loads(made.ask("job", "job-1").text)["data"][0]["state"] != "done":
            assert time.monotonic() < end, "the fake trainer does not end"
            time.sleep(0.2)
        yield made
        assert len(watch.processes()) >= 3, "server, trainer and workshop are watched"
    finally:
        server.end()


def subject_ids() -> Iterator[Case]:
    rule = r"made of a-z, 0-9 and dashes"
    ids: dict[str, tuple[Any, str]] = {
        "dots": ("../../canary", rule),
        "absolute": ("/etc", rule),
        "null byte": ("rex-1\0", rule),
        "wide letters": ("ｒｅｘ-1", rule),
        "right to left": ("rex\u202e-1", rule),
        "long": ("a" * 5000, "at most"),
        "empty": ("", rule),
        "sql": ("rex-1' or '1'='1", rule),
        "html": (SCRIPT, rule),
        "new line": ("rex-1\n", rule),
        "number": (7, "valid string"),
        "list": (["rex-1"], "valid string"),
        "mapping": ({"path": "/etc/passwd"}, "valid string"),
        "nothing": (None, "valid string"),
        "half a letter": ("\ud800", "string|made of"),
        "another's": ("nobody-99", "no subject called"),
    }
    for name, (id, says) in ids.items():
        yield Case(f"subject id: {name}", lambda at, id=id: at.ask("subject", id), says)
        if name in ("dots", "absolute", "sql", "number"):
            yield Case(f"job id: {name}", lambda at, id=id: at.ask("job", id), says)
    yield Case(
        "job id: too many digits", lambda at: at.ask("job", "job-" + "9" * 50), "no training|no job|made of|There is"
    )
    yield Case("delete: dots", lambda at: at.ask("delete_subject", "../../canary", "Rex"), rule)
    yield Case("delete: another name", lambda at: at.ask("delete_subject", "rex-1", "*"), "type its name exactly")
    yield Case("restore: dots", lambda at: at.ask("restore_subject", "../canary"), rule)
    yield Case("sample: dots", lambda at: at.ask("create_sample", "../../../canary"), "no sample subject")
    yield Case(
        "checkpoint of nobody", lambda at: at.ask("use_checkpoint", "rex-1", "job-1", -1), "greater than or equal"
    )


def names() -> Iterator[Case]:
    def named(name: str, noun: str = "teapot", trigger: str = "") -> Callable[[Attacker], Answer]:
        return lambda at: at.create([data(picture())], noun, name, trigger)

    yield Case("name: html", named(SCRIPT))
    yield Case("name: dots", named("../../canary"))
    yield Case("name: a drive", named("C:\\Windows\\system32"))
    yield Case("name: sql", named("'; drop table subjects; --"))
    yield Case("name: only signs", named("☃☃☃"))
    yield Case("name: long", named("x" * 3000), "at most 60 letters")
    yield Case("name: null byte", named("Rex\0"), "plain letters")
    yield Case("name: right to left", named("Rex\u202egpj.exe"), "plain letters")
    yield Case("noun: braces", named("", "{0.__class__}"), "without braces")
    yield Case("noun: bell", named("", "tea\x07pot"), "plain letters")
    yield Case("trigger: two words", named("", "teapot", "sks ../.."), "one rare word")
    yield Case("trigger: html", named("", "teapot", "<b>"))
    yield Case(
        "rename: null byte", lambda at: at.press("subjects-name-button", "click", "rex-1", "R\0x"), "plain letters"
    )
    yield Case("rename: subject of dots", lambda at: at.press("subjects-name-button", "click", "../x", "R"), "made of")
    yield Case("base: dots", lambda at: at.create([data(picture())], "dog", "", "", "../../canary"), "not in")


def files() -> Iterator[Case]:
    def taught(name: str, content: Callable[[], bytes]) -> Callable[[Attacker], Answer]:
        return lambda at: at.teach((name, content()))

    no_photo = "not a photo|cannot be read|no photo|empty|too large|pixels"
    yield Case("upload: text as jpg", taught("a.jpg", lambda: b"hello " * 100), no_photo)
    yield Case("upload: nothing in it", taught("a.jpg", lambda: b""), no_photo)
    yield Case("upload: zip as jpg", taught("a.jpg", zip_bomb), no_photo)
    yield Case("upload: decompression bomb", taught("a.png", bomb), no_photo)
    yield Case("upload: 30 MB", taught("a.jpg", lambda: b"\xff\xd8" + bytes(30_000_000)), "maximum|MB|size")
    yield Case("upload: svg with a script", taught("a.svg", lambda: SVG), no_photo)
    yield Case("upload: html as png", taught("a.png", lambda: SCRIPT.encode()), no_photo)
    yield Case("upload: half a jpg", taught("a.jpg", lambda: picture()[:400]), no_photo)
    yield Case("upload: gif", taught("a.gif", lambda: picture("GIF")))
    yield Case("upload: polyglot", polyglot)
    yield Case("upload: place in its exif", located)
    yield Case("upload: 101 files", lambda at: at.create([data(b"x")] * 101, "dog"), "At most 100 files")
    yield Case("upload: name with dots", taught("../../../canary/evil.jpg", picture))
    yield Case("upload: name with null byte", taught("a\0.jpg", picture), "")
    yield Case("upload: name right to left", taught("\u202egpj.exe.jpg", picture))
    yield Case("upload: name too long", lambda at: at.send("x" * 5000 + ".jpg", picture()))
    yield Case("upload: no form", lambda at: at.http("POST", "/gradio_api/upload", b"x" * 99), "")
    yield Case("upload: id with dots", lambda at: at.send("a.jpg", picture(), "?upload_id=../../canary"))
    yield Case(
        "upload: progress of dots", lambda at: at.get("/gradio_api/upload_progress?upload_id=../../x", Range="0")
    )

    def given(named: Callable[[Attacker], Any]) -> Callable[[Attacker], Answer]:
        return lambda at: at.create([named(at)], "dog")

    not_ours = f"was not uploaded here|begins with data|fetches nothing|{GRADIOS_OWN}"
    yield Case("photo: path of a secret", given(lambda at: {"path": str(at.canary / "secret.jpg")}), not_ours)
    yield Case("photo: /etc/passwd", given(lambda at: {"path": "/etc/passwd"}), not_ours)
    yield Case("photo: our database", given(lambda at: {"path": str(at.home / "studio.db")}), not_ours)
    yield Case("photo: dots", given(lambda at: {"path": f"{at.home}/tmp/../../canary/secret.jpg"}), not_ours)
    yield Case("photo: an address", given(lambda at: {"path": "http://127.0.0.1:9/a.jpg"}), not_ours)
    yield Case("photo: cloud's own address", given(lambda at: "http://169.254.169.254/latest/meta-data"), not_ours)
    yield Case("photo: file address", given(lambda at: {"path": "file:///etc/passwd"}), not_ours)
    yield Case("photo: null byte", given(lambda at: {"path": "/etc/passwd\0.jpg"}), not_ours)
    yield Case("photo: a mapping in it", given(lambda at: {"path": {"path": "/etc/passwd"}}), not_ours)
    yield Case("photo: html written out", given(lambda at: "data:text/html;base64,PGI+"), "begins with data:image")
    yield Case("photo: not base64", given(lambda at: "data:image/png;base64,!!!"), "not base64")
    yield Case("photos: no list", lambda at: at.create("/etc/passwd", "dog"), "list of files")

    def read(path: Callable[[Attacker], str]) -> Callable[[Attacker], Answer]:
        return lambda at: at.press("create-file", "upload", {"path": path(at), "meta": {"_type": "gradio.FileData"}})

    yield Case("settings from a secret", read(lambda at: str(at.canary / "secret.jpg")), not_ours)
    yield Case("settings from our database", read(lambda at: str(at.home / "studio.db")), not_ours)
    for name, content in METADATA.items():
        settings = read(lambda at, content=content: at.upload("a.png", content()))
        yield Case(f"settings: {name}", settings, "" if name == "html" else "says nothing|no picture|no prompt|success")


def orders() -> Iterator[Case]:
    def draw(place: int, value: Any) -> Callable[[Attacker], Answer]:
        form: list[Any] = ["rex-1", "a photo of sks teapot", "", 1, 7, 1, 2, "", "model", "", ""]
        form[place] = value
        return lambda at: at.press("create-generate", "click", *form)

    wrong = {
        "prompt: 100,000 letters": (PROMPT, "x" * 100_000, "at most 1000"),
        "prompt: a number": (PROMPT, 7, ""),
        "prompt: nothing": (PROMPT, "\u200b\u202e\0", "Write what the picture"),
        "strength: endless": (STRENGTH, 1e308, "Strength|maximum|between|1.5"),
        "strength: no number": (STRENGTH, float("nan"), "Strength|nan|between|JSON|valid"),
        "strength: words": (STRENGTH, "much", GRADIOS_OWN),
        "seed: too large": (SEED, 2**63, "seed|maximum|2147483647"),
        "seed: below": (SEED, -5, "seed|minimum|-1"),
        "seed: a list": (SEED, [1], GRADIOS_OWN),
        "pictures: a thousand million": (COUNT, 10**9, "1 to 8|maximum|between"),
        "steps: a thousand million": (STEPS, 10**9, "1 to 150|maximum|between"),
        "guidance: below": (GUIDANCE, "-1", "Guidance"),
        "guidance: words": (GUIDANCE, "__import__('os')", "Guidance"),
        "sampler: words": (SAMPLER, "__import__('os')", "sampler|choices"),
        "width: huge": (WIDTH, "1000000", "width"),
        "width: odd": (WIDTH, "65", "multiple of 8"),
        "width: no number": (WIDTH, "nan", "width"),
        "subject: dots": (0, "../../canary", "made of"),
        "base: dots": (0, "base:../../canary", "base"),
        "checkpoint: dots": (0, "rex-1@../../canary@1", "no such checkpoint"),
        "checkpoint: odd digit": (0, "rex-1@job-1@²", "no checkpoint"),
        "subject: a list": (0, ["rex-1"], "Choose|valid"),
    }
    for name, (place, value, says) in wrong.items():
        yield Case(f"draw: {name}", draw(place, value), says)
    for name, prompt in {"html": SCRIPT, "bell": "a sks\x07 teapot", "half a letter": "a \ud83d teapot"}.items():
        yield Case(f"draw: prompt with {name}", draw(PROMPT, prompt))

    def compare(mode: Any, values: str, rows: str = "") -> Callable[[Attacker], Answer]:
        return lambda at: at.press("compare-draw", "click", mode, "rex-1", None, values, rows, "sks teapot", 1, 0, 2)

    yield Case("compare: a million cells", compare("seeds", ", ".join(map(str, range(9999)))), "36|at most|letters")
    yield Case("compare: no numbers", compare("strengths", "nan, inf"), "number|between|nan")
    yield Case("compare: another mode", compare("../x", "1"), "Compare one of|choices")
    yield Case("compare: rows of dots", compare("base", "", "../../x"), "number")

    def export(**changed: Any) -> Callable[[Attacker], Answer]:
        form = {
            "subject": "rex-1",
            "checkpoint": "",
            "format": "diffusers",
            "precision": "fp32",
            "strength": 1,
            "rank": 8,
        }
        return lambda at: at.press("export-button", "click", *{**form, **changed}.values())

    yield Case("export: format of dots", export(format="../../canary/evil"), "format|choices")
    yield Case("export: precision of dots", export(precision="../fp32"), "precision|choices")
    yield Case("export: subject of dots", export(subject="../../canary"), "made of")
    yield Case("export: checkpoint of dots", export(checkpoint="job-1@../../canary"), "no such checkpoint")
    yield Case("export: rank below", export(format="lora", rank=-1), "rank|minimum|Rank")
    yield Case("export: by name for programs", lambda at: at.ask("export", "rex-1", "../../evil"), "join the queue")


def hidden() -> Iterator[Case]:
    views = {"dots": {"tab": "../x", "subject": "../../canary"}, "a list": [1], "a number": 5, "words": "x" * 9999}
    for name, value in views.items():
        yield Case(f"browser's memory: {name}", lambda at, value=value: at.press("", "load", value, named="restore"))
    yield Case("chosen subject: html", lambda at: at.press("subject", "change", SCRIPT))
    said: dict[str, tuple[str, tuple[Any, ...], Any, str]] = {
        "photo of dots": (
            "teach-thumbs",
            ("rex-1",),
            {"do": "remove", "photo": "../../canary/secret.jpg"},
            "no photo|There is",
        ),
        "step of words": ("teach-choice", (), {"do": "use", "job": "job-1", "step": "²"}, "step"),
        "step without end": ("teach-choice", (), {"do": "use", "job": "job-1", "step": "9" * 5000}, "step"),
        "job of dots": ("job", (), {"do": "cancel", "job": "../../canary"}, "made of|no training|There is"),
        "remedy of dots": ("job", (), {"do": "remedy", "job": "job-1", "remedy": "../x"}, "not offered"),
        "page of odd digits": ("subjects-cards", (0,), {"do": "page", "page": "²"}, ""),
        "card of dots": ("subjects-cards", (0,), {"do": "open", "id": "../../canary"}, "made of"),
        "step in a table": ("subjects-detail", ("rex-1",), {"do": "use", "job": "job-1", "step": "²"}, ""),
        "undo of dots": ("subjects-undo", (), {"do": "undo", "id": "../../canary"}, "made of"),
        "export of dots": ("export-list", (), {"do": "delete", "id": "../../canary"}, "made of|no export"),
        "picture without end": ("history-grid", (None,), {"do": "pick", "id": "9" * 400}, "no picture|There is"),
        "no mapping": ("job", (), ["cancel", "job-1"], ""),
        "nothing": ("strip", (), None, ""),
    }
    for name, (elem_id, values, what, says) in said.items():
        yield Case(
            f"button: {name}",
            lambda at, elem_id=elem_id, values=values, what=what: at.press(elem_id, "click", *values, said=what),
            says,
        )

    def train(overrides: Any) -> Callable[[Attacker], Answer]:
        return lambda at: at.ask("train", "rex-1", "quick", overrides)

    for name in (
        "run.output_dir",
        "data.instance_data_dir",
        "prior.class_data_dir",
        "model.pretrained_model_name_or_path",
    ):
        yield Case(f"setting: {name}", train({name: "/tmp/evil"}), "decided by the studio")
    yield Case("setting: push to the hub", train({"run.push_to_hub": True}), "decided by the studio")
    yield Case("setting: pickles", train({"model.allow_pickle": True}), "decided by the studio")
    yield Case("setting: unknown", train({"__class__.__init__": 1}), "Unknown setting")
    yield Case("setting: out of range", train({"adapter.rank": 10**9}), "rank")
    yield Case("setting: no mapping", train([["run.output_dir", "/tmp"]]), "valid dictionary")
    yield Case("quality: dots", lambda at: at.ask("train", "rex-1", "../../x", {}), "quality|Input should be")
    words = ("nobody", "rex-1", "teapot", "Rex", "sks", "toybox", "quick")
    for name, text in {"nested": "[" * 50_000, "no JSON": "{", "folder": '{"run.output_dir": "/tmp/evil"}'}.items():
        yield Case(f"hidden settings: {name}", lambda at, text=text: at.press("teach-train", "click", *words, text))


def routes() -> Iterator[Case]:
    paths: dict[str, Callable[[Attacker], object]] = {
        "/etc/passwd": lambda at: "/etc/passwd",
        "a secret": lambda at: at.canary / "secret.txt",
        "the database": lambda at: at.home / "studio.db",
        "the log": lambda at: at.home / "app.log",
        "a training's settings": lambda at: at.home / "jobs/job-1/config.yaml",
        "a photo as given": lambda at: at.home / "subjects/rex-1/photos/01.jpg",
        "dots": lambda at: f"{at.home}/media/../studio.db",
        "dots in percents": lambda at: f"{at.home}/media/%2e%2e/studio.db",
        "a slash in percents": lambda at: f"{at.home}/media/..%2fstudio.db",
        "percents twice": lambda at: f"{at.home}/media/%252e%252e/studio.db",
        "null byte": lambda at: f"{at.home}/media/%00../studio.db",
        "two slashes": lambda at: "//etc/passwd",
        "a file address": lambda at: "file:///etc/passwd",
        "an address": lambda at: "http://127.0.0.1:9/x",
        "home sign": lambda at: "~/.ssh/id_rsa",
        "long": lambda at: "/" + "a/" * 4000,
        "our source": lambda at: Path(__file__).parents[2] / "app.py",
        "media itself": lambda at: at.home / "media",
    }
    for name, path in paths.items():
        yield Case(f"file: {name}", lambda at, path=path: at.file(path(at)), ".*")
    for path in (
        "/static/../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2fetc/passwd",
        "/gradio_api/proxy=http://169.254.169.254/",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/custom_component/x/client/component/../../../../etc/passwd",
        "/gradio_api/stream/../../x/y/playlist.m3u8",
        "/monitoring",
        "/..%2f..%2fetc/passwd",
    ):
        yield Case(f"route: {path}", lambda at, path=path: at.get(path), ".*")
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:7860",
        "",
        "x" * 9000,
        "127.0.0.1@evil.example",
    ):
        yield Case(f"host: {host[:30] or 'none'}", lambda at, host=host: at.get("/config", Host=host), ".*")
    join = "/gradio_api/queue/join"
    for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example", "http://[", "http://127.0.0.1:1"):
        yield Case(f"origin: {origin}", lambda at, origin=origin: at.post(join, {}, Origin=origin), "another site")
    yield Case("referer", lambda at: at.post(join, {}, Referer="http://evil.example/x"), "another site")
    yield Case("cross-site", lambda at: at.post(join, {}, Sec_Fetch_Site="cross-site"), "another site")
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        yield Case(f"method: {method}", lambda at, method=method: at.http(method, "/config"), ".*")
    yield Case("handler without number", lambda at: at.post(join, {"data": [], "session_hash": "x"}), ".*")
    yield Case("handler of another number", lambda at: at.post(join, join_of(10**6)), ".*")
    yield Case("handler below zero", lambda at: at.post(join, join_of(-1)), ".*")
    yield Case("session of dots", lambda at: at.get("/gradio_api/heartbeat/../../x"), ".*")
    yield Case(
        "no JSON", lambda at: at.http("POST", "/gradio_api/run/jobs", b"{", Content_Type="application/json"), ".*"
    )
    yield Case("nested JSON", lambda at: at.http("POST", "/gradio_api/run/jobs", b"[" * 99_999, **TYPE), ".*")
    yield Case("too few values", lambda at: at.ask("train"), ".*")
    yield Case("too many values", lambda at: at.ask("jobs", *range(50)), ".*")
    yield Case("list without end", lambda at: at.ask("jobs", 10**9, 0, None), "less than or equal")
    yield Case("history before its start", lambda at: at.ask("history", "rex-1", 5, -1), "greater than or equal")


TYPE = {"Content_Type": "application/json"}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="300"><script>alert(1)</script></svg>'


def join_of(number: int) -> dict[str, Any]:
    return {"data": [], "fn_index": number, "session_hash": "x"}


def picture(kind: str = "JPEG", **settings: Any) -> bytes:
    """A photo with something to see."""
    pixels = bytes((x * y + z * 37) % 256 for y in range(200) for x in range(200) for z in range(3))
    kept = BytesIO()
    Image.frombytes("RGB", (200, 200), pixels).save(kept, kind, **settings)
    return kept.getvalue()


def data(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def zip_bomb() -> bytes:
    kept = BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", bytes(20_000_000))
    return kept.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks: bytes, side: int = 8, pixels: bytes | None = None) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = zlib.compress(bytes(side * (side + 1))) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """30,000 pixels a side in a few kB."""
    return png(side=30_000, pixels=zlib.compress(bytes(1_000_000)))


def told(text: str, key: str = "dora_diffusion") -> bytes:
    info, kept = PngInfo(), BytesIO()
    info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(kept, "PNG", pnginfo=info)
    return kept.getvalue()


def order(**changed: Any) -> str:
    return json.dumps({"order": {"prompt": "a sks teapot", **changed}, "seed": 7})


METADATA: dict[str, Callable[[], bytes]] = {
    "html": lambda: told(order(prompt=SCRIPT)),
    "nested": lambda: told("[" * 60_000),
    "text without end": lambda: told("x" * 3_000_000),
    "zipped bomb": lambda: png(chunk(b"zTXt", b"dora_diffusion\0\0" + zlib.compress(bytes(200_000_000), 1))),
    "subject of dots": lambda: told(order(subject_id="../../canary", base="../../canary")),
    "checkpoint of dots": lambda: told(order(subject_id="rex-1", job_id="../../x", step=10**30)),
    "numbers without end": lambda: told('{"order": {"prompt": "x", "width": 1e999, "strength": NaN}, "seed": 1e999}'),
    "half a letter": lambda: told('{"order": {"prompt": "\\ud83d", "base": "\\ud83d"}, "seed": 1}'),
    "another program's quotes": lambda: told('x\nSteps: 1, a: "' + '\\"' * 30_000, "parameters"),
    "another program's commas": lambda: told("x\nSteps: " + "a: ," * 15_000, "parameters"),
    "no prompt": lambda: told("{}"),
    "a list": lambda: told("[1, 2]"),
}


def stored(at: Attacker, answer: Answer) -> Path:
    """The first photo of the subject that was made."""
    id = json.loads(answer.text)["data"][0]["id"]
    return at.home / "subjects" / id / "photos" / "01.jpg"


def polyglot(at: Attacker) -> Answer:
    """A photo that is a page and an archive as well: only the photo is kept."""
    answer = at.teach(("a.jpg", picture(comment=SCRIPT.encode()) + SCRIPT.encode() + zip_bomb()))
    kept = stored(at, answer).read_bytes()
    assert b"onerror" not in kept and b"PK\x03\x04" not in kept and kept.startswith(b"\xff\xd8")
    return answer


def located(at: Attacker) -> Answer:
    """Where it was taken, and with what, is gone."""
    exif = Image.Exif()
    exif[0x010F] = "MakerOfCameras"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.0)})
    answer = at.teach(("a.jpg", picture(exif=exif)))
    with Image.open(stored(at, answer)) as kept:
        assert not kept.getexif() and not kept.getexif().get_ifd(0x8825)
    assert b"MakerOfCameras" not in stored(at, answer).read_bytes()
    return answer


CASES = [*subject_ids(), *names(), *files(), *orders(), *hidden(), *routes()]


def test_there_are_enough() -> None:
    assert len(CASES) >= 60 and len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"[^\w/.:-]+", "-", case.name)[:60])
def test_hostile(case: Case, attacker: Attacker) -> None:
    watch = Watch(attacker.home.parent / "watch.log")
    before, done, log = outside(attacker), watch.faults(), attacker.home / "app.log"
    logged, began = log.stat().st_size if log.exists() else 0, time.monotonic()
    answer = case.do(attacker)
    assert time.monotonic() - began < PATIENCE_S
    assert not any(word in answer.text for word in (*RAW, *SECRETS)), answer.text[:2000]
    if case.says:
        assert answer.refused or case.says.endswith("success"), answer.text[:2000]
        assert re.search(case.says, answer.text, re.IGNORECASE | re.DOTALL), answer.text[:2000]
    assert outside(attacker) == before
    assert {found.name for found in attacker.home.iterdir()} <= HOME
    assert watch.faults() == done  # libraries make folders of their own while they are loaded
    with log.open("rb") as words:
        words.seek(logged)
        assert b"Traceback" not in words.read()
    assert "teapot" in attacker.ask("samples").text, "it still answers"


def outside(attacker: Attacker) -> list[tuple[str, int, int]]:
    """What lies beside the home, and when it was changed."""
    place = attacker.home.parent
    found = [place, *place.glob("*"), *attacker.canary.rglob("*")]
    apart = {attacker.home, place / "server.log", place / "watch.log"}
    return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found if file not in apart)


def test_the_watch_sees(tmp_path: Path) -> None:
    """What is asserted to be empty above would not be, if something were done."""
    watch = Watch(tmp_path / "log", (tmp_path / "secret",), (tmp_path / "home",))
    for folder in ("secret", "home", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret" / "words").touch()
    done = """
import pathlib, socket, sys
here = pathlib.Path(sys.argv[1])
(here / "home" / "fine").write_text("x")
(here / "link" / "words").read_text()
(here / "home" / ".." / "other" / "file").write_text("x")
try: socket.create_connection(("192.0.2.1", 9), timeout=0.01)
except OSError: pass
"""
    surroundings = {**os.environ, **watch.environment()}
    subprocess.run([sys.executable, "-c", done, str(tmp_path)], env=surroundings, check=True)
    kinds = [fault.split("\t")[0] for fault in watch.faults()]
    assert kinds == ["secret", "written", "look-up", "connect"] and len(watch.processes()) == 1
