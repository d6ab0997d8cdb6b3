"""A contact sheet: a picture of a data set, to look at before training on it.

from pipelines.sheet import contact_sheet
contact_sheet("shards/train", "sheet.png", rows=6, columns=10, seed=0)
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipelines.decode import BadSample
from pipelines.index import write_atomically
from pipelines.inspect import draw, look
from pipelines.paths import DEFAULT_CACHE
from pipelines.prepare import kind_of, png
from pipelines.remote.settings import Cache
from pipelines.source import Source, open_source

TILE, LINE, GAP = 128, 14, 8  # pixels
WHITE, GREY, RED, BLACK = (255, 255, 255), (236, 236, 236), (180, 20, 20), (20, 20, 20)


def contact_sheet(
    path: str | Path,
    out_png: str | Path,
    *,
    rows: int = 6,
    columns: int = 10,
    seed: int = 0,
    split: str | None = None,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Writes a PNG of images drawn by key, each with its class and its name; bad ones with their cause.

    Raises ValueError where there is no data set, or where the picture cannot be written.
    """
    check_place(Path(out_png))
    if rows < 1 or columns < 1:
        raise ValueError(
            f"a contact sheet of {rows} x {columns} images is empty: give at least one row and column"
        )
    source = open_source(path, split=split, cache=cache)
    step = (TILE + GAP, TILE + 2 * LINE + GAP)
    sheet = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), WHITE)
    for place, sample in enumerate(draw(len(source), rows * columns, seed=seed)):
        corner = (GAP + place % columns * step[0], GAP + place // columns * step[1])
        sheet.paste(_tile(source, sample, cache.patience), corner)
    try:
        write_atomically(Path(out_png), png(sheet))
    except OSError as error:
        raise ValueError(f"cannot write the contact sheet {out_png}: {error.strerror}") from None


def check_place(path: Path) -> None:
    """Raises ValueError where a sheet may not be written: data, or any other file, must never make way."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"the sheet {path} would be a PNG: give it a name that ends in .png")
    if path.exists() and not _is_png(path):
        raise ValueError(f"{path} exists and is no PNG: a sheet takes the place of another sheet only")


def _is_png(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return kind_of(file.read(16)) == "png"


def _tile(source: Source, sample: int, patience: float) -> Image.Image:
    """One image on grey, its class and its name below."""
    tile = Image.new("RGB", (TILE, TILE + 2 * LINE), WHITE)
    paper = ImageDraw.Draw(tile)
    paper.rectangle((0, 0, TILE - 1, TILE - 1), fill=GREY)
    try:
        small = Image.fromarray(look(source, sample, patience=patience)[1])
        scale = TILE / max(small.size)
        small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
        tile.paste(small, ((TILE - small.width) // 2, (TILE - small.height) // 2))
    except BadSample as error:
        paper.text((6, TILE // 2 - 6), str(error.cause), fill=RED)
    _write(paper, TILE, _class(source, sample))
    _write(paper, TILE + LINE, source.key(sample).rpartition("/")[2])
    return tile


def _class(source: Source, sample: int) -> str:
    label = int(source.labels[sample])
    return source.classes[label] if 0 <= label < len(source.classes) else "no label"


def _write(paper: ImageDraw.ImageDraw, top: int, text: str) -> None:
    """A line of text, cut to the width of a tile."""
    font = ImageFont.load_default(11)
    text = "".join(c if c.isprintable() else "?" for c in text)
    while text and paper.textlength(text, font) > TILE:
        text = text[:-1]
    paper.text((0, top), text, fill=BLACK, font=font)
