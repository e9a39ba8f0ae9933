"""Make the pictures of the documentation: cluster digits, write the report, and photograph parts of it.

Run ``python docs/pictures.py``. It takes two minutes on two CPU cores.
It needs ``pip install playwright`` and Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from ebsc_core import EBSC

PICTURES = Path(__file__).parent / "pictures"
FLAGS = ("--no-sandbox", "--disable-gpu")
SIZE, MARGIN = {"width": 1100, "height": 900}, 16
# Of all pictures together.
MAX_BYTES = 300_000


def main() -> None:
    """Write the pictures into ``docs/pictures``."""
    chromium = shutil.which("chromium") or sys.exit("Chromium is missing: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder, "digits")
        EBSC(n_clusters=10, backbone="resnet10t", epochs=8, cache="none", run_dir=run_dir).fit("digits")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
            page = browser.new_page(viewport=SIZE, color_scheme="light", device_scale_factor=1.5)
            page.goto((run_dir / "report.html").as_uri())
            photograph(page)
            browser.close()
    total = sum(path.stat().st_size for path in PICTURES.iterdir())
    print(f"{total / 1000:.0f} kB in {PICTURES}")
    if total > MAX_BYTES:
        sys.exit(f"the pictures take more than {MAX_BYTES / 1000:.0f} kB")


def photograph(page: Any) -> None:
    """Photograph the top of the report, three clusters, and the map."""
    # Otherwise the navigation stays in view, and covers what is photographed.
    page.evaluate("document.querySelector('nav').style.position = 'static'")
    save("report-digits", part(page, "header", "#clusters"))
    save("clusters", part(page, "#clusters", "#cluster-3"))
    save("map", part(page, "#map", "#map + section"))


def part(page: Any, first: str, after: str) -> bytes:
    """Photograph the page from the top of one element to the top of another one."""
    top, bottom = (page.locator(selector).first.bounding_box()["y"] for selector in (first, after))
    box = {"x": 0, "y": top, "width": SIZE["width"], "height": bottom - top - MARGIN}
    return page.screenshot(full_page=True, clip=box)


def save(name: str, picture: bytes) -> None:
    """Write a picture as WebP."""
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").save(PICTURES / f"{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
