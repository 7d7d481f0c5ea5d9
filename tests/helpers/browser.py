"""Headless Chromium for tests of the page: started once, with a network that is watched and a folder for downloads."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--autoplay-policy=no-user-gesture-required", "--mute-audio", "--window-size=1280,900"),
)


TRIES = 6_000  # looks at a page, 50 ms apart; more than the slowest machine needs


class Browser:
    """One page at a time; what it logged and asked of a network since it was opened."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        self.downloads = folder / "downloads"
        self.shown: str | None = None  # the name of the page that is open
        options = webdriver.ChromeOptions()
        options.binary_location = str(BROWSER)
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Service(DRIVER))
        where = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)

    def open(self, page: str, folder: Path, scripted: bool = True, name: str | None = None) -> None:
        """Writes the page and opens it as a file; all before is forgotten."""
        self.shown = name
        file = folder / "report.html"
        file.write_text(page, encoding="utf-8")
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripted})
        self.driver.get("about:blank")
        self.driver.get_log("performance"), self.driver.get_log("browser")
        shutil.rmtree(self.downloads, ignore_errors=True)
        self.driver.get(file.as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """Until the script gives something true; what it gave."""
        for _ in range(TRIES):
            if found := self.ask(script, *arguments):
                return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}")

    def source(self) -> str:
        """The document as it stands, asked without script; a node may be of the one that is being replaced."""
        from selenium.common.exceptions import WebDriverException

        for _ in range(TRIES):
            try:
                root = self.driver.execute_cdp_cmd("DOM.getDocument", {"depth": -1})["root"]
                text = self.driver.execute_cdp_cmd("DOM.getOuterHTML", {"nodeId": root["nodeId"]})["outerHTML"]
            except WebDriverException:
                text = ""
            if "</main>" in text:
                return text
            time.sleep(0.05)
        raise AssertionError("the page never came")

    def requests(self) -> list[str]:
        """Addresses that were asked for, but for the page itself."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        sockets = [event["params"]["url"] for event in events if event["method"] == "Network.webSocketCreated"]
        asked = [one["request"]["url"] for one in sent]
        return [url for url in (*asked, *sockets) if not url.startswith(("file:", "data:", "blob:", "about:"))]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def saved(self, name: str) -> bytes:
        """The download whose name ends so, once it is whole."""
        for _ in range(TRIES):
            found = [one for one in self.downloads.glob("*") if one.name.endswith(name)]
            if found and found[0].stat().st_size and not list(self.downloads.glob("*.crdownload")):
                return found[0].read_bytes()
            time.sleep(0.05)
        raise AssertionError(f"{name} was not saved: {sorted(self.downloads.glob('*'))}")

    def quit(self) -> None:
        self.driver.quit()
