"""The report in a real browser: it asks nothing of the network, nothing complains, and everything can be clicked."""

import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.report.__main__ import write_report
from tests.scripts.report_runs import HOSTILE, captioning_run, classification_run, classified, retrieval_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
TIMEOUT_S = 60.0
PHONE, DESKTOP = 390, 1280
NUM_SAMPLES = 30  # of the longest gallery: three pages of cards

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (apt-get install chromium)")

OVERFLOW = """[...document.querySelectorAll("body *")]
  .filter((node) => !node.closest(".scroll, .cells, nav, pre, svg"))
  .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
  .map((node) => node.outerHTML)"""


class Browser:
    """A headless Chromium with one page, driven over a pipe by the DevTools protocol: no library and no port.

    `events` holds everything that the page reported; `profile` is an empty folder for its files.
    """

    def __init__(self, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._buffer = b""
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}"]
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{to_child} 4>&{from_child}', CHROMIUM, *options]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=(to_child, from_child), stdout=quiet, stderr=quiet)
        os.close(to_child)
        os.close(from_child)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, width: int, dark: bool = False) -> None:
        """Load a file at a window size and a colour scheme, and wait until it is drawn."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and violations of the page's own policy."""
        wanted = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in wanted]

    def requests(self) -> list[str]:
        """Addresses that the page asked for, its own file and addresses that hold their data apart."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        addresses = [params["request"]["url"] for params in sent if params.get("type") != "Document"]
        return [address for address in addresses if not address.startswith("data:")]

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"Chromium said nothing for {TIMEOUT_S:g} s"
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the three tasks, two of them on the same data, with names that try to be markup."""
    root = tmp_path_factory.mktemp("runs")
    many = [classified(f"{i}.png", (1, 0, 0)[i % 3], (0, 1, 0)[i % 3]) for i in range(NUM_SAMPLES)]
    long_name = "many_samples_of_a_name_that_is_longer_than_a_phone_is_wide"
    runs = [classification_run(root / "c/first"), classification_run(root / "c" / long_name, many)]
    runs += [retrieval_run(root / "t/r"), retrieval_run(root / "i/r", "image_to_text"), captioning_run(root / "k/r")]
    steps = {"candidates": [[[0, 1]]] * 40, "rewards": [[[1.0, 0.5]]] * 40, "loss": [0.1] * 40, "step_top1": [0] * 40}
    runs.append(classification_run(root / "m/steps", [classified("long/" * 60 + "0.png", 1, 0, **steps)]))
    write_report(runs, root / "report.html")
    return root / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.mark.parametrize(("width", "dark"), [(PHONE, False), (DESKTOP, True)])
def test_it_opens_without_a_complaint_and_fits(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    browser.evaluate("new Promise((resolve) => setTimeout(resolve, 200))")
    assert browser.complaints() == [] and browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OVERFLOW) == []
    unseen = "(image) => !image.naturalWidth || !(image.alt || image.closest('.label'))"  # a label names its picture
    assert browser.evaluate(f"[...document.images].filter({unseen}).length") == 0
    assert browser.evaluate("document.images.length") > 50


def test_the_browser_test_sees_requests_and_errors(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<img src=http://127.0.0.1:9/x.png><script>nonsense()</script>")
    browser.open(tmp_path / "bad.html", PHONE)
    assert browser.requests() == ["http://127.0.0.1:9/x.png"] and browser.complaints()


def test_filters_search_and_pages(browser: Browser, page: Path) -> None:
    browser.open(page, DESKTOP)
    gallery = "document.querySelectorAll('.gallery')[1]"
    ids = f"[...{gallery}.querySelectorAll('.card')].map((card) => card.dataset.id)"
    status = f"{gallery}.querySelector('[role=status]').textContent"
    search = f"{gallery}.querySelector('input')"

    def shown_after(action: str) -> str:
        browser.evaluate(action)
        return browser.evaluate(status)

    assert browser.evaluate(status) == "1 to 12 of 30"
    assert shown_after(f"{gallery}.querySelector('[data-filter=broken]').click()") == "1 to 10 of 10"
    assert sorted(int(key.split(".")[0]) % 3 for key in browser.evaluate(ids)) == [1] * 10
    assert shown_after(f"{gallery}.querySelector('[data-filter=all]').click()") == "1 to 12 of 30"
    assert shown_after(f"[...{gallery}.querySelectorAll('.pager button')][1].click()") == "13 to 24 of 30"
    assert shown_after(f"{search}.value = '29'; {search}.dispatchEvent(new Event('input'))") == "1 to 1 of 1"
    assert browser.evaluate(ids) == ["29.png"]
    assert shown_after(f"{search}.value = 'none'; {search}.dispatchEvent(new Event('input'))") == "no sample fits"
    assert browser.complaints() == []


def test_cards_show_texts_as_texts(browser: Browser, page: Path) -> None:
    browser.open(page, DESKTOP)
    texts = browser.evaluate("[...document.querySelectorAll('.card li')].map((node) => node.textContent)")
    assert any(text.startswith(HOSTILE) for text in texts)
    assert browser.evaluate("document.querySelectorAll('[onerror], .card script, .card b b').length") == 0
    card = "document.querySelector('.card[data-id=\"0.png\"]')"
    assert browser.evaluate(f"{card}.querySelectorAll('.views img').length") == 2
    assert browser.evaluate(f"{card}.querySelector('.outcome').textContent") == "fixed by adaptation"
