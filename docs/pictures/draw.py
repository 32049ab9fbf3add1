"""The README's pictures from screenshots of the page Today: cut to the first screen, few colours.

    python docs/pictures/draw.py

`make e2e` leaves such screenshots. What they show is generated data, never anybody's sales;
those in the README are of the installation that `make demo` makes.
"""

from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
SHOTS = HERE.parents[1] / "out" / "screenshots"
LEFT, TOP, RIGHT, BOTTOM = 304, 90, 1440, 795  # without the list of pages


def main() -> None:
    """Write light.png and dark.png beside this file."""
    for scheme in ("light", "dark"):
        with Image.open(SHOTS / f"dashboard today {scheme}.png") as shot:
            first = shot.convert("RGB").crop((LEFT, TOP, RIGHT, min(BOTTOM, shot.height)))
            first.quantize(160).save(HERE / f"{scheme}.png", optimize=True)


if __name__ == "__main__":
    main()
