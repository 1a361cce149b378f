"""What a browser may not send: other kinds of files, too large ones, tables that are none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dynlora.jobs.uploads import MAX_BYTES

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

RESENT = """async ([address, bytes, token]) => {
  const form = new FormData();
  form.append("file", new Blob([new Uint8Array(bytes)]), "a.csv");
  const answer = await fetch(address, {method: "PUT", body: form, headers: {"X-Xsrftoken": token}});
  return [answer.status, await answer.text()];
}"""
"""Sends a body of a size where the page sent its own file a moment ago: the page's own limit is not in the way."""


def test_other_files_are_refused_and_no_trace_is_shown(server: str, page: Page, runs_dir: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if request.method == "PUT" else None)
    page.goto(f"{server}/launch?data=upload")
    place = page.get_by_test_id("stFileUploaderDropzoneInput")
    uploader = page.get_by_test_id("stFileUploader")
    expect(page.get_by_text("Upload a file first.").first).to_be_visible()

    pickled = tmp_path / "model.pkl"
    pickled.write_bytes(b"\x80\x04.")
    place.set_input_files(pickled)
    expect(uploader.get_by_text("not allowed")).to_be_visible()

    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    place.set_input_files(large)
    expect(uploader.get_by_text("50.0MB or smaller")).to_be_visible()
    assert sent == [], "what the page refuses is not sent"
    assert not (runs_dir / ".uploads").exists()

    garbage = tmp_path / "garbage.parquet"
    garbage.write_bytes(b"PAR1" + bytes(range(256)))
    place.set_input_files(garbage)
    expect(page.get_by_test_id("stAlert").get_by_text("garbage.parquet").first).to_be_visible()
    expect(page.get_by_text("Traceback")).to_have_count(0)
    expect(page.get_by_test_id("stException")).to_have_count(0)

    token = {cookie.get("name"): cookie.get("value") for cookie in page.context.cookies()}["_streamlit_xsrf"]
    status, body = page.evaluate(RESENT, [sent[0].url, MAX_BYTES + 2**21, token])
    assert status == 413, body
    assert "Traceback" not in body
