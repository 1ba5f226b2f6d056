"""Chromium as Debian packages it, driven by selenium, and what is done with the page of a clip in it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from emopipe.pipeline.report.viewer import HOST, listening, viewer

TOKEN = "x" * 43
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HAS_BROWSER = bool(BROWSER and DRIVER and find_spec("selenium"))
needs_browser = pytest.mark.skipif(not HAS_BROWSER, reason="needs selenium, and Debian's chromium and chromium-driver")


class Page:
    """A page in the browser, and what is done with it."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def do(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def wait(self, condition: str, seconds: float = 10) -> Any:
        until = time.monotonic() + seconds
        while not (answer := self.do(f"return {condition}")):
            assert time.monotonic() < until, f"{condition} does not come true"
            time.sleep(0.05)
        return answer

    def click(self, selector: str, number: int = 0) -> None:
        self.do("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, number)

    def fill(self, name: str, value: Any) -> None:
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        self.do(
            script + "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}));",
            name,
            value,
        )

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.do(
                "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))", key
            )

    def saved(self) -> dict[str, Any]:
        path = self.folder / "corrections.json"
        path.unlink(missing_ok=True)
        self.click("#save")
        until = time.monotonic() + 10
        while not path.exists() or not path.stat().st_size:
            assert time.monotonic() < until, "nothing was saved"
            time.sleep(0.05)
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    def requests(self) -> list[str]:
        events = [json.loads(one["message"])["message"] for one in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]


def serious_findings(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds on a page that is serious or critical: rule, and the first element."""
    package = find_spec("axe_core_python")
    if package is None or package.origin is None:
        pytest.skip("needs axe-core-python, which holds axe-core")
    page.do((Path(package.origin).parent / "axe.min.js").read_text())
    report = page.driver.execute_async_script("axe.run().then(arguments[0])")
    grave = [one for one in report["violations"] if one["impact"] in ("serious", "critical")]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in grave]


class ServedPage(Page):
    """The page of a clip as a server shows it."""

    def open(self, port: int, name: str) -> None:
        self.driver.get(f"http://{HOST}:{port}/{TOKEN}/{name}.html")
        self.wait("document.getElementById('media').readyState > 0")

    @property
    def status(self) -> str:
        return str(self.do("return document.getElementById('status').innerText"))

    @property
    def marked(self) -> int:
        return int(self.do("return document.querySelectorAll('.mark').length"))

    def press(self, selector: str) -> str:
        """Click, and give back what the page then says."""
        self.do("document.getElementById('status').textContent = ''")
        self.click(selector)
        self.wait("document.getElementById('status').textContent")
        return self.status

    def relabel(self, number: int, label: str) -> None:
        self.click(".row .time", number)
        self.fill("edit-label", label)

    def wait_for_marks(self, count: int) -> None:
        self.wait(f"document.querySelectorAll('.mark').length === {count}")


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The port on which a folder is served."""
    import uvicorn

    with listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(viewer(folder, TOKEN), log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def browser(folder: Path) -> Iterator[Any]:
    """A browser without a window that downloads into a folder."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "no-first-run",
        "mute-audio",
        "autoplay-policy=no-user-gesture-required",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")
    options.add_argument("--window-size=1280,1000")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(30)
    try:
        yield driver
    finally:
        driver.quit()
