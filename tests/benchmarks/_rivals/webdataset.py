"""webdataset's pipeline with the official transforms."""

from collections.abc import Iterator

import torch

from pipelines.crops import MultiCrop
from pipelines.source import Source
from tests.benchmarks._rivals.official import official
from tests.benchmarks._rivals.rival import Rival, Run, passes


def _build(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
    import webdataset

    cut = official(crops)

    def pipeline(images: int) -> webdataset.DataPipeline:
        def samples() -> Iterator[dict]:
            worker = torch.utils.data.get_worker_info()
            first, step = (worker.id, worker.num_workers) if worker else (0, 1)
            for i in range(first * batch, images, step * batch):
                for sample in range(i, i + batch):
                    yield {"__key__": str(sample), "jpg": source.read(sample)}

        return webdataset.DataPipeline(
            samples,
            webdataset.decode("pilrgb"),
            webdataset.to_tuple("jpg"),
            webdataset.map_tuple(cut),
            webdataset.batched(batch, collation_fn=_collate),
        )

    return passes(pipeline, workers=threads)  # its WebLoader is a DataLoader


def _collate(samples: list[tuple[list[torch.Tensor]]]) -> list[torch.Tensor]:
    return [torch.stack(views) for views in zip(*(views for (views,) in samples))]


RIVAL = Rival("webdataset with the official transforms", ("webdataset",), _build)
