"""The endpoints for programs: documented, typed, checked, in plain words, and nothing else is open."""

import base64
import inspect
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

import gradio as gr
import pytest
import safehttpx
from drawing_studio import DrawingStudio
from gradio import utils
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from shop import Shop, fake_workshop

from dora_diffusion.config import AppConfig
from dora_diffusion.errors import MachineError, StudioError
from dora_diffusion.studio.ui import mcp
from dora_diffusion.studio.ui.api import GROUPS
from dora_diffusion.studio.ui.endpoints.answers import as_json
from dora_diffusion.studio.ui.endpoints.boundary import endpoint
from dora_diffusion.studio.ui.endpoints.making import MakingEndpoints
from dora_diffusion.studio.ui.endpoints.uploads import MAX_FILES, received
from dora_diffusion.studio.ui.launch import launch
from dora_diffusion.studio.ui.offline import FETCHED, fetch_nothing
from dora_diffusion.studio.ui.page import build

GUIDE = Path(__file__).parents[3] / "docs" / "studio.md"
LONG = {"generate", "compare", "export", "check_base", "add_base"}
SHORT = {
    *("list_subjects", "subject", "create_subject", "samples", "create_sample", "delete_subject", "restore_subject"),
    *("qualities", "estimate", "train", "jobs", "job", "losses", "checkpoints", "use_checkpoint", "cancel", "resume"),
    *("remedy", "remove_job", "history", "formats", "bases"),
}


@pytest.fixture
def studio(tmp_path: Path) -> DrawingStudio:
    made = DrawingStudio(tmp_path / "home")
    made.subjects.create_from_sample("teapot")
    return made


@pytest.fixture
def call(studio: DrawingStudio) -> Callable[..., Any]:
    """Calls an endpoint as Gradio does: by its name, with what a request gave."""
    known = {function.__name__: endpoint(function, studio.home.log_file) for function in functions(studio)}
    return lambda name, **given: known[name](**given)


def functions(studio: DrawingStudio) -> list[Callable[..., Any]]:
    groups = [group(studio) for group in GROUPS]  # type: ignore[arg-type]
    return [function for group in groups for function in (*group.at_once, *group.in_line)]


def refusal(call: Callable[..., Any], name: str, **given: Any) -> str:
    with pytest.raises(gr.Error) as refused:
        call(name, **given)
    assert not refused.value.print_exception
    return str(refused.value.message)


def test_each_endpoint_is_documented_and_typed(studio: DrawingStudio) -> None:
    for function in functions(studio):
        description, parameters, returned = utils.get_function_description(function)
        assert description.endswith(".") and returned, function.__name__
        hints = inspect.signature(function)
        assert set(parameters) == set(hints.parameters) and all(parameters.values()), function.__name__
        # Gradio reads one line of each: a second one would be lost.
        args = inspect.getdoc(function).partition("Args:")[2].partition("Returns:")[0]  # type: ignore[union-attr]
        assert len(args.split("\n\n")[0].strip().splitlines()) == len(parameters), function.__name__
        assert hints.return_annotation is not inspect.Signature.empty


def test_nothing_else_of_the_page_is_public(studio: DrawingStudio) -> None:
    page = build(studio)  # type: ignore[arg-type]
    told = page.get_api_info()
    assert {name.lstrip("/") for name in told["named_endpoints"]} == SHORT | LONG
    assert not told["unnamed_endpoints"]
    for function in page.fns.values():
        if function.api_name in SHORT:
            assert not function.queue and function.concurrency_limit is None
        elif function.api_name in LONG:
            assert function.queue and (function.concurrency_id, function.concurrency_limit) == ("gpu", 1)
        else:
            assert function.api_visibility == "private"


def test_the_types_that_clients_are_told(studio: DrawingStudio) -> None:
    told = build(studio).get_api_info()["named_endpoints"]  # type: ignore[arg-type]
    files = told["/create_subject"]["parameters"][0]
    assert (files["parameter_name"], files["python_type"]["type"]) == ("files", "list[filepath]")
    assert [part["python_type"]["type"][:14] for part in told["/generate"]["returns"]] == [
        "list[filepath]",
        "list[dict(subj",
    ]
    job = told["/job"]["returns"][0]["type"]["properties"]
    assert job["state"]["enum"][0] == "draft" and "remedies" in str(job["failure"])


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("subject", {"subject": 5}, "subject: input should be a valid string, got '5'."),
        ("subject", {"subject": None}, "valid string"),
        ("subject", {"subject": ["teapot-1"]}, "valid string"),
        ("subject", {"subject": {"path": "x"}}, "valid string"),
        ("subject", {"subject": "x" * 5000}, "at most 4000 characters"),
        ("subject", {"subject": "\ud800"}, "unicode"),
        ("jobs", {"limit": 10**30}, "limit: input should be less than or equal to 200"),
        ("jobs", {"limit": 0}, "greater than or equal to 1"),
        ("jobs", {"offset": -1}, "greater than or equal to 0"),
        ("jobs", {"state": "gone"}, "'queued'"),
        ("train", {"subject": "teapot-1", "overrides": "{}"}, "dictionary"),
        ("train", {"subject": "teapot-1", "overrides": {"adapter.rang": 4}}, "rang"),
        ("generate", {"subject": None, "prompt": "x", "strength": float("nan")}, "finite number"),
        ("generate", {"subject": None, "prompt": "x", "count": 9}, "1 to 8"),
        ("generate", {"subject": None, "prompt": ""}, "Write what the picture shall show"),
        ("compare", {"subject": "teapot-1", "prompt": "x", "mode": "strengths", "values": [0.1] * 37}, "at most 36"),
        ("compare", {"subject": "teapot-1", "prompt": "x", "mode": "faces"}, "'strengths'"),
        ("export", {"subject": "teapot-1", "format": "kohya", "precision": "fp8"}, "'fp16'"),
        ("export", {"subject": "teapot-1", "format": "kohya", "rank": 513}, "less than or equal to 512"),
        ("use_checkpoint", {"subject": "teapot-1", "job": "job-1", "step": -3}, "greater than or equal to 0"),
        ("create_subject", {"files": "x", "class_noun": "dog"}, "a list of files"),
    ],
)
def test_what_is_wrong_is_refused_in_plain_words(
    call: Callable[..., Any], name: str, given: dict[str, Any], words: str
) -> None:
    assert words in refusal(call, name, **given)


def test_words_are_plain_and_not_html(call: Callable[..., Any]) -> None:
    assert refusal(call, "subject", subject="<b>'x'") == "There is no subject called <b>'x'."


def test_a_fault_shows_a_reference_and_nothing_of_itself(call: Callable[..., Any], caplog: Any) -> None:
    said = refusal(call, "generate", subject=None, prompt="explode")
    assert "inner words" not in said and "reference" in said
    assert "inner words" in caplog.text


def test_generate_orders_what_was_asked(call: Callable[..., Any], studio: DrawingStudio) -> None:
    asked = {
        **{"prompt": "a toy", "negative_prompt": "blur", "strength": 0.5, "seed": 7, "num_inference_steps": 4},
        **{"guidance_scale": 3.0, "sampler": "ddim", "width": 64, "height": 72, "step": 3, "base": "toybox"},
    }
    files, settings = call("generate", subject="teapot-1", count=2, job="job-1", **asked)
    order = studio.asked[-1][1]
    assert {name: getattr(order, name) for name in asked} == asked
    assert (order.subject_id, order.job_id, order.num_images) == ("teapot-1", "job-1", 2)
    assert [Path(file["path"]).name for file in files] == ["00001-seed7.png", "00002-seed8.png"]
    assert [given["seed"] for given in settings] == [7, 8] and settings[0]["num_images"] == 1


def test_compare_tells_headers_and_cells(call: Callable[..., Any], studio: DrawingStudio) -> None:
    grid, told = call(
        "compare", subject="teapot-1", prompt="x", mode="strengths", values=[0, 0.5], seeds=[1, 2], job="j-1"
    )
    mode, order, values, seeds = studio.asked[-1][1]
    assert (mode, values, seeds, order.job_id) == ("strengths", (0, 0.5), (1, 2), "j-1")
    assert Path(grid["path"]).is_relative_to(studio.home.media)
    assert told["columns"] == ["strength 0", "strength 0.5"] and len(told["rows"]) == 2
    assert [cell["strength"] for cell in told["cells"]] == [0, 0.5] * 2


def test_export_tells_what_the_readers_said(call: Callable[..., Any], studio: DrawingStudio) -> None:
    file, told = call("export", subject="teapot-1", format="lora", precision="fp16", rank=8, job="job-1", step=20)
    asked = {"subject": "teapot-1", "format": "lora", "precision": "fp16", "strength": 1.0, "rank": 8}
    assert studio.asked[-1] == ("export", {**asked, "job_id": "job-1", "step": 20})
    assert file["orig_name"] == "teapot-1-lora.safetensors" and told["verdicts"][0]["ok"] is True
    assert "path" not in told  # gradio_client would take it for another file to download


def test_formats_tells_the_readers_of_a_subjects_base(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home", fake_workshop(tmp_path), **{"dog-1": None})
    ask = endpoint(MakingEndpoints(shop).formats, shop.home.log_file)  # type: ignore[arg-type]

    def readers(**given: Any) -> dict[str, list[str]]:
        return {note["name"]: note["readers"] for note in ask(**given)}

    assert "A1111" in readers()["lora"] and readers() == readers(subject=None)
    of_toybox = readers(subject="dog-1")
    assert "A1111" not in of_toybox["lora"] and of_toybox["merged_checkpoint"] == []
    with pytest.raises(gr.Error, match="no subject called"):
        ask(subject="cat-1")
    shop.close()


def test_answers_name_no_file_of_the_server(call: Callable[..., Any], studio: DrawingStudio) -> None:
    studio.jobs.enqueue("teapot-1", "quick")
    for name, given in (("subject", {"subject": "teapot-1"}), ("jobs", {}), ("list_subjects", {}), ("history", {})):
        assert str(studio.home.path) not in json.dumps(call(name, **given)), name


def test_estimate_may_still_be_measured(call: Callable[..., Any], studio: DrawingStudio) -> None:
    assert call("estimate", subject="teapot-1")["source"] == "a two-step measurement"
    studio.estimates.told = None
    assert call("estimate", subject="teapot-1", overrides={"run.max_train_steps": 7}) is None


def test_json_of_everything() -> None:
    assert as_json({1: (Path, 2.5)}) == {"1": [Path, 2.5]}
    made = as_json([gr.FileData(path="a.png")])
    assert made[0]["meta"] == {"_type": "gradio.FileData"} and isinstance(made[0], dict)


# Files of a request


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tmp"
    (made / "hash").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(made / "hash" / "dog.png")
    return made


def test_files_that_were_uploaded(folder: Path) -> None:
    dog = folder / "hash" / "dog.png"
    with received([{"path": str(dog), "meta": {}}, str(dog)], folder) as paths:
        assert paths == [dog, dog]
    assert dog.exists()


def test_a_file_that_is_written_out_is_gone_afterwards(folder: Path) -> None:
    content = (folder / "hash" / "dog.png").read_bytes()
    with received(["data:image/png;base64," + base64.b64encode(content).decode()], folder) as paths:
        assert paths[0].read_bytes() == content and paths[0].suffix == ".png"
    assert not paths[0].exists()


@pytest.mark.parametrize(
    "file",
    [
        *("/etc/passwd", "../home.txt", "", "~/x.jpg", "http://example.com/x.jpg", "file:///etc/passwd", "\0"),
        *({"path": "/etc/passwd"}, {"path": "hash/../../secret"}, {"path": None}, {}, None, 5, ["x"]),
        *("data:text/html;base64,aGk=", "data:image/png;base64,%%%", "data:image/svg+xml;base64,aGk="),
    ],
)
def test_other_files_are_refused(folder: Path, file: Any) -> None:
    with pytest.raises(StudioError), received([file], folder):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["hash"]


def test_links_out_of_the_uploads_are_refused(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(b"secret")
    (folder / "hash" / "link.png").symlink_to(folder.parent / "secret.png")
    with (
        pytest.raises(StudioError, match="was not uploaded here"),
        received([str(folder / "hash" / "link.png")], folder),
    ):
        pass


def test_too_many_and_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudioError, match="At most 100"), received(["x"] * (MAX_FILES + 1), folder):
        pass
    monkeypatch.setattr("dora_diffusion.studio.ui.endpoints.uploads.MAX_BYTES", 1000)
    with pytest.raises(StudioError, match="at most"), received(["data:image/png;base64," + "A" * 2000], folder):
        pass


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in FETCHED:
        monkeypatch.setattr(safehttpx, name, getattr(safehttpx, name))  # put back afterwards
    fetch_nothing()
    from gradio.processing_utils import ssrf_protected_download

    with pytest.raises(gr.Error, match="fetches nothing"):
        ssrf_protected_download("http://example.com/x.jpg", str(tmp_path))


# MCP


@pytest.mark.parametrize("version", ["1.21.0", "1.30.0", "1.99"])
def test_versions_of_mcp_that_do(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp.metadata, "version", lambda name: version)
    mcp.check_mcp(None)


@pytest.mark.parametrize("version", ["1.20.9", "0.9", "2.0.0", "2.3", "3"])
def test_versions_of_mcp_that_do_not(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp.metadata, "version", lambda name: version)
    with pytest.raises(MachineError, match=f"{version} is installed: pip install"):
        mcp.check_mcp(None)


def test_mcp_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise mcp.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(mcp.metadata, "version", missing)
    with pytest.raises(MachineError, match="missing here: pip install"):
        mcp.check_mcp(None)


def test_mcp_would_go_round_a_login() -> None:
    with pytest.raises(StudioError, match="without the login"):
        mcp.check_mcp(("ada", "secret"))


def test_mcp_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_STUDIO_LOGIN", "ada:secret")
    with pytest.raises(StudioError, match="without the login"):
        launch(AppConfig(mcp=True, home=tmp_path / "home", browser=False), print)
    assert not (tmp_path / "home").exists()


def test_a_page_without_its_mcp_is_told() -> None:
    page = gr.Blocks()
    page.mcp_error = "Error launching MCP server: no call_tool"
    with pytest.raises(MachineError, match="no call_tool"):
        mcp.check_served(page)


# Served


@dataclass
class Served:
    """A studio in a process of its own."""

    url: str
    home: Path

    def post(self, name: str, *values: Any) -> tuple[int, str]:
        """Status and body of a request that no client would send."""
        body = json.dumps({"data": values}).encode()
        asked = urllib.request.Request(f"{self.url}gradio_api/run/{name}", body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served") / "home"
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("drawing_studio.py")
    with (home.parent / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, script, home, str(port), "--mcp"], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/"
    end = time.monotonic() + 180
    while url not in (home.parent / "log").read_text():
        assert server.poll() is None and time.monotonic() < end, (home.parent / "log").read_text()
        time.sleep(0.1)
    yield Served(url, home)
    server.terminate()
    assert server.wait(60) == 0


@pytest.fixture
def client(served: Served, tmp_path: Path) -> Client:
    return Client(served.url, verbose=False, download_files=tmp_path / "downloads")


def test_the_whole_way_by_gradio_client(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (9, 9, 9)).save(tmp_path / "dog.png")
    subject = client.predict(
        files=[handle_file(tmp_path / "dog.png")], class_noun="dog", name="Rex", api_name="/create_subject"
    )
    job = client.predict(subject=subject["id"], quality="quick", api_name="/train")
    told = client.predict(job=job["id"], api_name="/job")
    assert told == {**job, "failure": None} and told["subject_id"] == subject["id"]
    assert client.predict(subject=subject["id"], api_name="/subject")["jobs"] == [told]
    files, settings = client.predict(subject=subject["id"], prompt="a dog", count=2, seed=3, api_name="/generate")
    assert [Image.open(file).size for file in files] == [(128, 128), (128, 128)] and settings[1]["seed"] == 4
    assert Path(files[0]).is_relative_to(tmp_path)
    file, proof = client.predict(subject=subject["id"], format="comfyui", api_name="/export")
    assert Path(file).stat().st_size == proof["size"] and Path(file).suffix == ".safetensors"
    with pytest.raises(AppError, match="There is no subject called '&'."):
        client.predict(subject="'&'", api_name="/subject")


def test_short_answers_do_not_wait_for_pictures(client: Client, served: Served) -> None:
    waiting = [client.submit(subject=None, prompt="wait", api_name="/generate") for _ in range(3)]
    time.sleep(0.3)
    assert client.predict(api_name="/samples") == ["teapot", "backpack", "robot"]
    assert served.post("samples")[0] == 200
    assert not any(job.done() for job in waiting)
    (served.home / "go").touch()
    assert all(len(job.result(timeout=120)[0]) == 1 for job in waiting)


def test_the_example_of_the_guide(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "photos" / "1.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "downloads"))
    monkeypatch.setattr(time, "sleep", lambda seconds: (served.home / "done").touch())  # the fake training's end
    example = GUIDE.read_text().split("```python\n")[1].split("```")[0]
    exec(compile(example.replace("http://127.0.0.1:7860", served.url), "studio.md", "exec"), {})
    said = capsys.readouterr().out
    assert "done [" in said and "('diffusers', True)" in said and said.count(".png") == 4


def test_the_request_of_the_guide(served: Served) -> None:
    command = next(line for line in GUIDE.read_text().splitlines() if line.startswith("curl"))
    path, body = (
        command.split("http://127.0.0.1:7860/")[1].split(" -H ")[0],
        json.loads(command.split("-d ")[1].strip("'")),
    )
    status, answer = served.post(path.removeprefix("gradio_api/run/"), *body["data"])
    assert status == 500 and json.loads(answer)["error"].startswith("There is no") or status == 200


def test_the_guide_names_every_endpoint() -> None:
    tables = [line for line in GUIDE.read_text().splitlines() if line.startswith("|")]
    named = {word for line in tables for word in re.findall(r"`([a-z_]+)`", line)}
    assert named >= SHORT | LONG


@pytest.mark.parametrize(
    "file",
    [
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "/etc/passwd"},
        "/etc/passwd",
        {"path": "http://203.0.113.1/x.jpg", "meta": {"_type": "gradio.FileData"}},
    ],
)
def test_files_of_the_machine_and_of_the_net_stay_where_they_are(served: Served, file: Any) -> None:
    status, body = served.post("create_subject", [file], "dog", "", "", "toybox")
    assert status == 500 and "root:" not in body
    said = json.loads(body)["error"]
    assert said is None or "was not uploaded here" in said or "fetches nothing" in said


def test_no_address_is_fetched_for_a_browser(served: Served) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{served.url}gradio_api/file=http://203.0.113.1/x.jpg", timeout=60)
    assert refused.value.code == 403


def test_mcp_lists_and_calls_the_tools(served: Served) -> None:
    import anyio
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def ask() -> None:
        async with streamable_http_client(f"{served.url}{mcp.ADDRESS}") as (read, write, _):  # noqa: SIM117
            async with ClientSession(read, write) as session:
                await session.initialize()
                tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                assert set(tools) == SHORT | LONG
                assert tools["job"].description.startswith("How a training is now.")
                assert tools["job"].inputSchema["properties"]["job"]["description"] == "its id, for example job-1."
                answer = await session.call_tool("samples", {})
                assert not answer.isError and "teapot" in answer.content[0].text
                refused = await session.call_tool("subject", {"subject": "nobody-1"})
                assert refused.isError and "There is no subject called nobody-1." in refused.content[0].text
                local = await session.call_tool("create_subject", {"files": ["/etc/passwd"], "class_noun": "dog"})
                assert local.isError and "was not uploaded here" in local.content[0].text

    anyio.run(ask)
