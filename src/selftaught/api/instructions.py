"""Spec of the instruction pool and of the response pairs made from it."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from selftaught.api.base import ApiModel, Fraction, Name, Uri, broken_rule, cel, repeated
from selftaught.api.references import Sampling

FieldPath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_\-]+(\[[0-9]+\]|\.[A-Za-z0-9_\-]+)*$", max_length=256)
]
"""Where a value lies in a row: `conversation[0].content`."""


class Category(StrEnum):
    """The fifteen categories of the paper's instruction selection (section 3.1)."""

    CODING = "Coding"
    MATHEMATICAL_REASONING = "MathematicalReasoning"
    ASKING_FOR_ADVICE = "AskingForAdvice"
    BRAINSTORMING = "Brainstorming"
    CLASSIFICATION = "Classification"
    CLOSED_QA = "ClosedQA"
    CREATIVE_WRITING = "CreativeWriting"
    EXTRACTION = "Extraction"
    CHARACTER = "InhabitingACharacter"
    OPEN_QA = "OpenQA"
    REWRITING = "Rewriting"
    SUMMARIZATION = "Summarization"
    KNOWLEDGE_AND_REASONING = "KnowledgeAndReasoning"
    HUMANITIES = "HumanityHistoryOrSocialStudies"
    OTHER = "Other"


class ExpectedLength(StrEnum):
    """How long a good answer is expected to be."""

    SENTENCE = "OneSentence"
    SENTENCES = "FewSentences"
    PARAGRAPH = "OneParagraph"
    PARAGRAPHS = "TwoParagraphs"
    LONG = "ThreeOrMoreParagraphs"


class SelectionStrategy(StrEnum):
    """How instructions are chosen from the pool."""

    CATEGORISE = "Categorise"
    ALL = "All"


class InstructionSource(ApiModel):
    """One pool of instructions without labels."""

    name: Name
    """Short name, kept with every row drawn from it."""
    uri: Uri
    """A JSONL, JSON or Parquet file, a folder of them, or a data set on the hub."""
    revision: Annotated[str, StringConstraints(pattern=r"^[-._/a-zA-Z0-9]+$", max_length=128)] | None = None
    """Commit of a data set on the hub."""
    config: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=128)] | None = None
    """Configuration of a data set on the hub."""
    split: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=64)] = "train"
    """Split of a data set on the hub."""
    field: FieldPath = "instruction"
    """Where the instruction lies in a row."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share of this source in the mixture, relative to the other weights."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Read at most this many rows."""


class Selection(ApiModel):
    """Which instructions are used (paper, section 3.1)."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.minComplexity <= self.maxComplexity", "minComplexity must not be above maxComplexity"),
        )
    )

    strategy: SelectionStrategy = SelectionStrategy.CATEGORISE
    """`Categorise` asks the generator for category, complexity and expected length; `All` asks nothing."""
    categories: Annotated[tuple[Category, ...], Field(min_length=1, max_length=15)] = (
        Category.KNOWLEDGE_AND_REASONING,
        Category.MATHEMATICAL_REASONING,
    )
    """Categories that are kept."""
    min_complexity: Annotated[int, Field(ge=1, le=10)] = 1
    """Least complexity that is kept, of 10."""
    max_complexity: Annotated[int, Field(ge=1, le=10)] = 10
    """Most complexity that is kept, of 10."""
    expected_lengths: Annotated[tuple[ExpectedLength, ...], Field(min_length=1, max_length=5)] = tuple(ExpectedLength)
    """Expected lengths that are kept."""
    max_instructions: Annotated[int, Field(ge=1, le=10_000_000)] = 20582
    """Most instructions that are used in the run."""
    max_characters: Annotated[int, Field(ge=1, le=1_000_000)] = 16384
    """Longer instructions are left out."""
    seed: int = 0
    """Seed of the mixture and the shuffle."""

    @model_validator(mode="after")
    def _complexity_is_a_range(self) -> Self:
        if self.min_complexity > self.max_complexity:
            raise broken_rule(
                "minComplexity",
                f"minComplexity {self.min_complexity} is above maxComplexity {self.max_complexity}",
                f"write at most {self.max_complexity}, or raise maxComplexity",
            )
        return self


class Deduplication(ApiModel):
    """Removal of near duplicates by MinHash."""

    threshold: Fraction = 0.8
    """Jaccard similarity of word 5-grams from which two instructions are the same; 1 removes exact ones only."""


class Instructions(ApiModel):
    """Where instructions come from and which are used."""

    sources: Annotated[
        tuple[InstructionSource, ...],
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """Pools that are mixed by weight."""
    selection: Selection = Selection()
    """Which instructions are used."""
    deduplicate: Deduplication = Deduplication()
    """Removal of near duplicates."""
    decontaminate: bool = True
    """Leave out instructions that share a 13-word passage, or are equal, with an instruction of a benchmark."""

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[InstructionSource, ...]) -> tuple[InstructionSource, ...]:
        if name := repeated([source.name for source in sources]):
            raise broken_rule("", f"two sources are named {name}", "give each source a name of its own")
        return sources


class PairMethod(StrEnum):
    """How the rejected response is made."""

    MODIFIED_INSTRUCTION = "ModifiedInstruction"


class Refresh(StrEnum):
    """When response pairs are made."""

    ONCE = "Once"
    EACH_ITERATION = "EachIteration"


class Pairs(ApiModel):
    """How response pairs are made (paper, section 3.2)."""

    method: PairMethod = PairMethod.MODIFIED_INSTRUCTION
    """`ModifiedInstruction`: the rejected response answers a similar but different instruction well."""
    refresh: Refresh = Refresh.ONCE
    """`Once`: the same pairs in all iterations, as the authors did."""
    guided_modification: bool = False
    """Constrain the call that modifies an instruction to its form; for small seeds that rarely keep to it."""
    sampling: Sampling = Sampling()
    """How responses are sampled."""
    seed: int = 0
    """Seed of the sampling."""
