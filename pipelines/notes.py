"""What a scan of shards passes over that is no fault of an image, but that its user should know."""

from dataclasses import asdict, dataclass, replace

from pipelines.names import LONGEST, printable, shown


@dataclass(frozen=True)
class Notes:
    """Counts, each with an example, "" where there is nothing to count.

    images: those in tars whose key another image has, which comes before them in the sample
    labels: those that are neither a number nor a name, so that their images have none
    """

    images: int = 0
    image: str = ""
    labels: int = 0
    label: str = ""

    def __add__(self, other: "Notes") -> "Notes":
        return Notes(
            self.images + other.images,
            self.image or other.image,
            self.labels + other.labels,
            self.label or other.label,
        )

    def of(self, shard: object) -> "Notes":
        """The same, with the shard in the examples."""
        where = f" in {shown(shard)}"
        return replace(self, image=self.image and self.image + where, label=self.label and self.label + where)

    def sentences(self, about: str = "") -> tuple[str, ...]:
        """What there is to say, a sentence for each; about: what is spoken of, put in front."""
        said, front = [], f"{about}: " if about else ""
        if self.images:
            said.append(
                f"{front}images passed over, because their key (the name up to its first dot) is that of "
                f"another image beside them: {self.images:,}, such as {self.image}"
            )
        if self.labels:
            said.append(
                f"{front}labels that are neither a number nor a name, and count as none: {self.labels:,}, "
                f"such as {self.label}"
            )
        return tuple(said)

    def values(self) -> dict[str, int | str]:
        """What `parse_notes` reads back; empty where there is nothing to say."""
        return asdict(self) if self != NOTHING else {}


NOTHING = Notes()


def parse_notes(values: object) -> Notes:
    """The notes that `values` gave. Raises ValueError, KeyError or TypeError for anything else."""
    if not values:
        return NOTHING
    found = dict(values)  # type: ignore[call-overload]  # of anything else it raises
    counts = [found["images"], found["labels"]]
    if any(type(count) is not int or not 0 <= count < 1 << 48 for count in counts):
        raise ValueError("its notes count nothing")
    image, label = (printable(str(found[name])[: 2 * LONGEST]) for name in ("image", "label"))
    return Notes(counts[0], image, counts[1], label)
