# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw docs/report.png, the picture of a report in the README: ``make picture``.

Needs the development extras and Debian's chromium. The report is that of ``make demo``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1440, "height": 1000}


def main(report: Path, picture: Path) -> None:
    """Take the first screen of a report.

    :raises SystemExit: when there is no Chromium
    """
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if chromium is None:
        raise SystemExit("picture: no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as made:
        browser = made.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("html[data-figures=ready]")
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
