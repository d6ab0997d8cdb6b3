"""A data set of any size opens by its manifest: indexes are read shard by shard, as their images are."""

from pipelines.data import Data
from pipelines.formats.sharded import ShardSource
from pipelines.loader import Loader
from pipelines.pack import pack
from pipelines.plan import Packing
from pipelines.source import open_source
from tests.pipelines.storage import folder


def test_a_batch_reads_the_indexes_of_its_own_shards_only(tmp_path, monkeypatch):
    packed = tmp_path / "shards"
    pack(folder(tmp_path / "in", each=20), packed, Packing(shard_images=4, holdout=0), workers=0)
    expected = open_source(packed).labels
    opened = set()
    real = ShardSource._index
    monkeypatch.setattr(ShardSource, "_index", lambda self, n: opened.add(n) or real(self, n))
    source = open_source(packed)
    assert len(source.shard_sizes) == 10 and not opened
    with Loader(Data(threads=0), source, batch=2, seed=0, steps=1) as loader:
        batch = next(iter(loader))
    assert 1 <= len(opened) <= 2
    assert batch.labels.tolist() == expected[batch.samples.numpy()].tolist()
