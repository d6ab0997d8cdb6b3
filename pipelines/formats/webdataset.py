"""How a sample lies in a WebDataset tar: `KEY.jpg`, and `KEY.cls` with the number of its class."""

from pipelines.formats.hashed import HashedFile
from pipelines.formats.tar import END_MARK, TarWriter, member_bytes

SUFFIX = ".tar"
EMPTY = len(END_MARK)  # bytes of a tar without samples


class TarShard:
    """A tar in the making: samples in, the offsets of their images out."""

    def __init__(self, file: HashedFile) -> None:
        self._tar = TarWriter(file)
        self._offsets: list[int] = []

    def add(self, key: str, extension: str, data: bytes, label: int) -> None:
        """Appends an image, and its label where it has one."""
        self._offsets.append(self._tar.add(f"{key}.{extension}", data))
        if label >= 0:
            self._tar.add(f"{key}.cls", str(label).encode())

    def close(self) -> list[int]:
        """Ends the tar; gives where in it the images lie."""
        self._tar.close()
        return self._offsets


def sample_bytes(key: str, extension: str, size: int, label: int) -> int:
    """What a sample takes in a tar."""
    more = member_bytes(f"{key}.cls", len(str(label))) if label >= 0 else 0
    return member_bytes(f"{key}.{extension}", size) + more
