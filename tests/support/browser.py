"""Debian's headless Chromium (`apt-get install chromium chromium-driver`), and what it asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@contextmanager
def headless_chromium(folder: Path) -> Iterator[Any]:
    """Start it with a profile in a folder; a test without a browser is skipped."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM.exists() and CHROMEDRIVER.exists()):
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    flags = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking")
    for flag in (*flags, "disable-component-update", "disable-sync", "force-prefers-reduced-motion"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={folder}")
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


def forget(chromium: Any) -> None:
    """Empty its logs."""
    chromium.get_log("browser")
    chromium.get_log("performance")


def asked_for(chromium: Any) -> set[str]:
    """The addresses that it asked for since its logs were read."""
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}


def set_screen(browser: Any, width: int = 1280, theme: str = "light", height: int = 900) -> None:
    """The size of its window, and the colors that the reader prefers."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


def bring(browser: Any, element: Any) -> Any:
    """The element, in view: a page that scrolls hides its tooltip."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'});", element)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    return element


def text_of(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).innerText", selector))


def is_within_the_page(browser: Any) -> bool:
    """Whether the page needs no scrolling to the side, and no text of a chart is cut."""
    wide = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    cut = browser.execute_script(
        "return [...document.querySelectorAll('figure svg text')].filter((text) => {"
        "const box = text.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; }).length"
    )
    return bool(wide[0] <= wide[1] and cut == 0)
