"""Results served on this machine: what is answered, what is refused, and what is saved."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import emopipe
from emopipe.errors import InputNotFound, PortUnavailable
from emopipe.pipeline.corrections.saved import SAVED
from emopipe.pipeline.report.viewer import HOST, first_page, linked_file, listening
from tests.conftest import SAMPLES
from tests.pipeline.corrections.results import PROBE, SPOKEN, contents, document, edit, rows, write_results
from tests.pipeline.report.browser import TOKEN, ServedPage, browser, needs_browser, serious_findings, served

HOSTILE = "<img src=x onerror='window.broken = 1'>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results beside their recordings, and things near them that are nobody's business."""
    base = tmp_path_factory.mktemp("served")
    (base / "recordings").mkdir()
    shutil.copy(SAMPLES / "interview.mp4", base / "recordings")
    (base / "recordings" / "second.mp4").symlink_to("interview.mp4")
    (base / "secret.txt").write_text("secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        folder = write_results(base / "results")
    (folder / "inside.txt").write_text("inside")
    (folder / "link.txt").symlink_to(base / "secret.txt")
    (folder / "link.html").symlink_to(base / "secret.txt")
    (folder / "up").symlink_to(base)
    return folder


@pytest.fixture(scope="module")
def port(results: Path) -> Iterator[int]:
    with served(results) as port:
        yield port


class Answer:
    def __init__(self, port: int, path: str, method: str = "GET", body: Any = None, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection(HOST, port, timeout=20)
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        self.status, self.headers, self.content = answer.status, answer.headers, answer.read()
        connection.close()

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def facts(self) -> Any:
        return json.loads(self.content)


def asked(port: int, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    return Answer(port, f"/{TOKEN}/{path}", method, body, **headers)


def saved(port: int, facts: Any, etag: str = "", name: str = "interview", **headers: str) -> Answer:
    headers = {"Content-Type": "application/json", "If-Match": f'"{etag}"', **headers}
    body = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
    return asked(port, f"_corrections/{name}", "PUT", body, **headers)


def test_pages_play_and_save_where_they_are_served(results: Path, port: int) -> None:
    page = asked(port, "interview.html")
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    assert 'src="_media/interview"' in page.text and '"server": "_corrections/interview"' in page.text
    assert "connect-src 'self'" in page.text
    assert "connect-src" not in (results / "interview.html").read_text()
    assert asked(port, "summary.html").content == (results / "summary.html").read_bytes()
    assert asked(port, "interview.json").content == (results / "interview.json").read_bytes()
    assert asked(port, "inside.txt").text == "inside"
    assert asked(port, "").headers["Location"].endswith(f"/{TOKEN}/{first_page(results)}")
    assert page.headers["Referrer-Policy"] == "no-referrer" and page.headers["Cache-Control"] == "no-store"


def test_recordings_are_served_in_parts(results: Path, port: int) -> None:
    whole = (SAMPLES / "interview.mp4").read_bytes()
    part = asked(port, "_media/interview", Range="bytes=1000-1999")
    assert part.status == 206 and part.content == whole[1000:2000]
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(whole)}"
    assert asked(port, "_media/interview", Range="bytes=-10").content == whole[-10:]
    assert asked(port, "_media/interview", Range=f"bytes={len(whole)}-").status == 416
    assert asked(port, "_media/second").content == whole, "the recordings lie where they lie"
    assert asked(port, "_media/gone").status == 404


def test_only_what_is_in_the_folder_is_served(port: int) -> None:
    for path in (
        "../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "up/secret.txt",
        "link.txt",
        "link.html",
        "%00",
        "_media/..%2f..%2fsecret.txt",
        "_media/%2e%2e",
        "//etc/passwd",
        "/etc/passwd",
        "_corrections/..%2fsecret",
        "inside.txt/../../secret.txt",
        "%7f%ff%fe.html",
    ):
        answer = Answer(port, f"/{TOKEN}/{path}")
        assert answer.status in (400, 404, 405) and b"secret" not in answer.content, path


def test_a_page_cannot_link_to_what_is_not_a_recording(results: Path, port: int, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder, symlinks=True)
    page = folder / "interview.html"
    page.write_text(page.read_text().replace('"link": "../recordings/interview.mp4"', '"link": "../secret.txt"'))
    (tmp_path / "secret.txt").write_text("secret")
    with served(folder) as other:
        assert asked(other, "_media/interview").status == 404
        assert asked(other, "_media/second").status == 404, "its recording is not here"
        page.write_text("no data")
        assert asked(other, "_media/interview").status == 404


def test_without_the_token_nothing_is_answered(port: int) -> None:
    for path in ("/", "/interview.html", "/_media/interview", f"/{TOKEN[:-1]}/interview.html", f"/{TOKEN}x/", "/%ff/"):
        answer = Answer(port, path)
        assert answer.status == 403 and b"interview" not in answer.content, path
    assert Answer(port, "*", "OPTIONS").status == 403 and Answer(port, "/favicon.ico").content == b""
    assert Answer(port, f"/{'y' * 43}/_corrections/interview", "PUT", b"{}").status == 403


def test_names_of_other_hosts_are_refused(port: int) -> None:
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "0.0.0.0", ""):
        assert asked(port, "interview.html", Host=host).status in (400, 403), host
    assert asked(port, "interview.html", Host=f"localhost:{port}").status == 200


def test_other_sites_cannot_send(results: Path, port: int) -> None:
    before = contents(results)
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}", f"https://127.0.0.1:{port}"):
        assert saved(port, document("Ana", edit(0, confirmed=True)), Origin=origin).status == 403, origin
    assert contents(results) == before


def test_it_listens_on_this_machine_alone() -> None:
    with listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        number = listener.getsockname()[1]
        with pytest.raises(PortUnavailable, match="cannot be used"):
            listening(number)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results")


@pytest.fixture
def own(folder: Path) -> Iterator[int]:
    with served(folder) as port:
        yield port


def test_what_is_saved_can_be_read_and_applied(folder: Path, own: int) -> None:
    before = contents(folder)
    ana = document("Ana", edit(0, confirmed=True, label="happiness"), edit(1, label="sadness", note=HOSTILE))
    answer = saved(own, ana)
    assert answer.status == 200
    ben = saved(own, document("Ben", edit(0, label="neutral")))
    other = saved(own, document("Ana", edit(2, text="=1+1"), name="second"), name="second")
    assert (ben.status, other.status) == (200, 200)
    assert {name for name in contents(folder) if contents(folder)[name] != before.get(name)} == {SAVED}
    first, second = asked(own, "_corrections/interview").facts
    assert [(one["by"], len(one["recordings"][0]["utterances"])) for one in (first, second)] == [("Ana", 2), ("Ben", 1)]
    assert first["etag"] == answer.facts["etag"] and first["recordings"][0]["probe"] == PROBE["interview"]
    corrected = emopipe.correct(folder, folder / SAVED)
    assert len(corrected.applied) == 4 and not corrected.refused
    assert [one["by"] for one in rows(folder)[0]["corrections"]] == ["Ana", "Ben"]
    assert HOSTILE not in asked(own, "interview.html").text
    assert emopipe.correct(folder, folder / SAVED).applied == corrected.applied


def test_two_tabs_do_not_overwrite_each_other(folder: Path, own: int) -> None:
    first = saved(own, document("Ana", edit(0, label="neutral"))).facts["etag"]
    late = saved(own, document("Ana", edit(1, label="neutral")))
    assert late.status == 412 and late.facts["etag"] == first
    assert late.facts["recordings"][0]["utterances"][0]["start"] == SPOKEN[0][0]
    assert saved(own, document("Ana", edit(0, label="neutral"))).status == 200, (
        "saving the same again is not a conflict"
    )
    second = saved(own, document("Ana", edit(1, label="neutral")), first)
    assert second.status == 200 and second.facts["etag"] != first
    assert saved(own, document("Ana", edit(0, label="neutral")), first).status == 412
    assert saved(own, document("Ana"), second.facts["etag"]).facts["etag"] == ""
    assert not (folder / SAVED).exists(), "nothing is corrected any more"


def test_many_at_once_are_saved_one_after_the_other(folder: Path, own: int) -> None:
    people = [f"Person {number}" for number in range(12)]
    statuses: list[int] = []

    def do(by: str) -> None:
        statuses.append(saved(own, document(by, edit(0, label="neutral"))).status)

    threads = [threading.Thread(target=do, args=[by]) for by in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * len(people)
    assert sorted(one["by"] for one in asked(own, "_corrections/interview").facts) == sorted(people)


def test_what_is_not_corrections_is_refused_and_nothing_changes(folder: Path, own: int) -> None:
    before = contents(folder)
    good = document("Ana", edit(0, label="neutral"))
    for facts, status in (
        (b"no", 422),
        (b"", 422),
        ({"format": "other"}, 422),
        (document("", edit(0, label="neutral")), 422),
        (document("Ana\n=1+1", edit(0, label="neutral")), 422),
        (document("Ana", edit(0, label="neutral"), name="second"), 422),
        (document("Ana", edit(0, label="neutral"), name="../../out"), 422),
        ({**good, "recordings": good["recordings"] * 2}, 422),
        (document("Ana", {"start": "0", "end": 1, "label": "x"}), 422),
    ):
        answer = saved(own, facts)
        assert answer.status == status and answer.facts["code"] == "EMO-511" and answer.facts["hint"], facts
    assert saved(own, good, name="gone").status == 404
    assert asked(own, "_corrections/interview", "PUT", b"{}", Content_Type="application/json").status == 428
    assert saved(own, good, Content_Type="text/plain").status == 415
    assert asked(own, "interview.html", "POST", b"x").status == 405
    assert asked(own, "inside.txt", "PUT", b"x").status == 405 and contents(folder) == before


def test_too_much_is_refused(own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emopipe.pipeline.report.viewer.MOST_BYTES", 1000)
    assert saved(own, document("Ana", edit(0, note="x" * 2000))).status == 413


def test_a_link_in_the_place_of_the_file_is_not_followed(folder: Path, own: int, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere.json"
    other.write_text(json.dumps(document("Eve", edit(0, label="neutral"))))
    (folder / SAVED).symlink_to(other)
    before = other.read_bytes()
    assert asked(own, "_corrections/interview").status == 422
    assert saved(own, document("Ana", edit(0, label="neutral"))).status == 422
    assert other.read_bytes() == before and (folder / SAVED).is_symlink()


def test_a_damaged_file_of_corrections_is_told_and_kept(folder: Path, own: int) -> None:
    (folder / SAVED).write_text("{")
    answer = saved(own, document("Ana", edit(0, label="neutral")))
    assert answer.status == 422 and answer.facts["hint"] and (folder / SAVED).read_text() == "{"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_cannot_be_written_to_is_told(folder: Path, own: int) -> None:
    folder.chmod(0o500)
    answer = saved(own, document("Ana", edit(0, label="neutral")))
    folder.chmod(0o700)
    assert answer.status == 500 and answer.facts["code"] == "EMO-601"


def test_odd_names_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('50% "quoted" & <b>', "naïve#1?x=2", "corrections"):
        folder = tmp_path / str(len(name))
        monkeypatch.setitem(PROBE, name, "3" * 40)
        write_results(folder)
        stem = next(one.stem for one in folder.glob("*.html") if one.stem.startswith(name))
        assert name != "corrections" or stem.startswith("corrections-")
        address = quote(stem, safe="")
        with served(folder) as port:
            assert f'"server": "_corrections/{address}"' in asked(port, f"{address}.html").text
            facts = document("Ana", edit(0, label="neutral"), name=stem, probe="3" * 40)
            assert saved(port, facts, name=address).status == 200
        monkeypatch.delitem(PROBE, name)


def test_links_of_pages_are_files(tmp_path: Path) -> None:
    assert linked_file("../a%20b%23.mp4", tmp_path / "x") == tmp_path / "x" / ".." / "a b#.mp4"
    assert linked_file((tmp_path / "a b.mp4").as_uri(), tmp_path) == tmp_path / "a b.mp4"
    assert os.fsencode(linked_file("%ff.mp4", tmp_path).name) == b"\xff.mp4"


def test_without_results_there_is_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        first_page(tmp_path)


def test_the_command_prints_its_address_and_ends_cleanly(folder: Path) -> None:
    script = "from emopipe.pipeline.cli.app import main; main()"
    command = [sys.executable, "-c", script, "view", str(folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        host, _, path = facts["address"].removeprefix("http://").partition("/")
        port = int(host.partition(":")[2])
        until = time.monotonic() + 20
        while (answer := Answer(port, f"/{path}")).status != 200:
            assert time.monotonic() < until
        assert answer.content == (folder / "summary.html").read_bytes() and len(path.partition("/")[0]) >= 40
        with socket.create_connection((HOST, port)):
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (0, "", "")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture
def playable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results that have a recording."""
    (tmp_path / "recordings").mkdir()
    shutil.copy(SAMPLES / "interview.mp4", tmp_path / "recordings")
    monkeypatch.chdir(tmp_path)
    return write_results(tmp_path / "results")


@needs_browser
@pytest.mark.slow
def test_a_browser_plays_seeks_corrects_saves_and_finds_it_again(playable: Path, driver: Any) -> None:
    page = ServedPage(driver, playable)
    with served(playable) as port:
        page.open(port, "interview")
        page.click(".row .time", 3)
        page.wait("document.getElementById('media').currentTime === 5.8")
        page.do("document.getElementById('media').play()")
        page.wait("document.getElementById('media').currentTime > 6.2", 30)
        page.do("document.getElementById('media').pause()")
        page.relabel(1, "sadness")
        assert "Who corrects?" in page.press("#send") and not (playable / SAVED).exists()
        page.do("window.fetch = () => new Promise(() => {})")  # the page is left before the server answers
        page.fill("by", "Ana")
        page.driver.refresh()
        page.wait_for_marks(1)  # what was not sent stays in the tab
        assert "saved in the results" in page.press("#send")
        page.driver.refresh()
        page.wait_for_marks(1)
        page.fill("by", "Ben")
        page.wait_for_marks(0)  # nobody begins with what somebody else says
        assert [one for one in driver.get_log("browser") if "beforeunload" not in one["message"]] == []
        assert {url.split("/")[2] for url in page.requests() if url.startswith("http")} == {f"{HOST}:{port}"}
    page.relabel(0, "anger")
    assert "does not answer" in page.press("#send") and page.marked == 1
    (applied,) = emopipe.correct(playable, playable / SAVED).applied
    assert (applied.by, applied.start) == ("Ana", SPOKEN[1][0])


@needs_browser
@pytest.mark.slow
def test_two_tabs_are_told_of_each_other(playable: Path, driver: Any) -> None:
    page = ServedPage(driver, playable)
    with served(playable) as port:
        page.open(port, "interview")
        page.fill("by", "Ana")
        page.relabel(1, "sadness")
        page.press("#send")
        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        page.open(port, "interview")
        page.wait("document.getElementById('status').textContent.startsWith('Ana saved')")
        page.fill("by", "Ana")
        page.wait_for_marks(1)
        page.relabel(2, "anger")
        assert "saved in the results" in page.press("#send")
        second = driver.current_window_handle
        driver.switch_to.window(first)
        page.relabel(4, "sadness")
        assert "Not saved" in page.press("#send")
        assert "Ana has saved other corrections" in page.wait("document.getElementById('conflict').innerText")
        assert serious_findings(page) == []
        page.click("#combine")
        page.wait("document.getElementById('status').textContent.includes('3 utterances are saved')")
        driver.switch_to.window(second)
        page.relabel(0, "anger")
        assert "Not saved" in page.press("#send")
        page.click("#take-theirs")
        page.wait_for_marks(3)
    applied = emopipe.correct(playable, playable / SAVED).applied
    assert [(one.by, one.start) for one in applied] == [("Ana", SPOKEN[number][0]) for number in (1, 2, 4)]
