"""Chromium without a window, for what opens a report."""

import shutil
from pathlib import Path

from selenium import webdriver

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def start(profile: str | Path) -> webdriver.Chrome:
    """Starts a browser that keeps its console's log.

    Args:
        profile: Path of a folder for its profile.

    Returns:
        A driver; whoever has it calls `quit`.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options, service)
