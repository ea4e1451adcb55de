"""A run is started by the form of Prefect's UI in a real browser, and completes by the worker.

The browser is Debian's: `apt-get install chromium chromium-driver`. Without it this test is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import headless_chromium, set_screen
from tests.support.operation import Operation, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("OVEREDIT_OPERATION" not in os.environ, reason="takes minutes: make operation"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with headless_chromium(tmp_path / "browser") as driver:
        set_screen(driver, 1280, height=1600)
        yield driver


def field(browser: Any, name: str) -> Any:
    """A parameter's part of the form."""
    parts = browser.find_elements("css selector", ".schema-form-property:has(> .p-label__header)")
    return next((part for part in parts if part.text.split(" ")[0] == name), None)


def write(browser: Any, name: str, text: str) -> None:
    from selenium.webdriver.common.keys import Keys

    inside = field(browser, name).find_element("css selector", "textarea, input")
    inside.send_keys(Keys.CONTROL, "a")
    inside.send_keys(text)


def press(inside: Any, name: str) -> None:
    (button,) = (each for each in inside.find_elements("css selector", "button") if each.text == name)
    button.click()


def test_a_run_that_the_form_starts_completes(operation: Operation, browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import Select

    browser.get(f"{operation.server}/deployments/deployment/{operation.deployment('benchmark/benchmark')['id']}/run")
    until(lambda: field(browser, "home"), seconds=60, what="the form is shown")
    write(browser, "config", "c.yaml")
    write(browser, "name", "by-form")
    methods = Select(field(browser, "methods").find_element("css selector", "select[multiple]"))
    assert {"memit", "ultraedit", "ft_m"} <= {option.text for option in methods.options}
    methods.select_by_visible_text("ft_m")
    for place, count in enumerate(("1", "2")):
        press(field(browser, "edit_counts"), "Add item")
        numbers = until(
            lambda: found if (found := field(browser, "edit_counts").find_elements("css selector", "input")) else None,
            seconds=10,
            what="a field for a number",
        )
        assert len(numbers) == place + 1
        numbers[place].send_keys(count)
    write(browser, "limit", "2")
    browser.save_screenshot(str(tmp_path / "form.png"))
    press(browser, "Submit")
    until(lambda: "/run" not in browser.current_url.partition("?")[0] or None, seconds=30, what="the form is accepted")
    browser.save_screenshot(str(tmp_path / "submitted.png"))
    (run,) = (each for each in operation.flow_runs() if each["parameters"].get("name") == "by-form")
    assert (run["parameters"]["methods"], run["parameters"]["edit_counts"]) == (["ft_m"], [1, 2])
    ended = operation.ended(run["id"])
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert (operation.home / "reports" / "by-form.html").is_file()
    browser.get(f"{operation.server}/runs/flow-run/{run['id']}")
    until(
        lambda: "Completed" in browser.find_element("tag name", "body").text or None, seconds=30, what="the UI says so"
    )
    browser.save_screenshot(str(tmp_path / "completed.png"))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
