"""Export in a real browser: a proved file, one that is refused, and what was exported before."""

from collections.abc import Callable
from typing import Any

import pytest
from served import Server
from tabs import TAUGHT, choose, fits, show, wait_for_line

pytestmark = pytest.mark.e2e


def test_export(serve: Callable[..., Server], open_page: Callable[..., Any], tmp_path: Any) -> None:
    page = open_page(serve(TAUGHT, 0.0))
    show(page, "Export")
    page.locator("#export-subject").wait_for()
    page.wait_for_function("document.querySelector('#export-subject input')?.value.startsWith('Rex')", timeout=60_000)
    page.locator("#export-button").click()
    assert "is proved" in wait_for_line(page, "export", "done")
    result = page.locator("#export-result[data-proved=true]")
    result.wait_for()
    assert "0" * 64 in result.inner_text() and "✓" in page.locator("#export-verdicts").inner_text()
    with page.expect_download() as download:
        result.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"weights" and download.value.suggested_filename.endswith("safetensors")
    row = page.locator("#export-earlier tbody tr")
    row.first.wait_for()
    assert "✓ proved for ComfyUI" in row.inner_text()

    choose(page, "export-precision", "bf16")
    page.locator("#export-button").click()
    assert "ComfyUI reads other weights" in wait_for_line(page, "export", "failed")
    assert page.locator("#export-result").count() == 0 and row.count() == 1  # nothing that looks like a success

    row.get_by_role("button", name="Show").click()
    page.locator("#export-result[data-proved=true]").wait_for()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        for seen in (page.locator("#export-verdicts tbody td").last, row.get_by_role("button", name="Delete")):
            box = seen.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width, (width, box)
    row.get_by_role("button", name="Delete").click()
    row.get_by_role("button", name="for good").click()
    page.locator("#export-none").wait_for()
    page.set_viewport_size({"width": 390, "height": 844})
    assert fits(page)
