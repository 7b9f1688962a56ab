"""`selftaught validate`: what is wrong in manifests, and what is allowed but foolish."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from selftaught.api.instructions import InstructionSource, SelectionStrategy
from selftaught.api.judging import Benchmark, BenchmarkRole, KeepEpoch
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import ApprovalRequired, RunSpec
from selftaught.errors import PERMANENT_EXIT_CODE, ManifestError
from selftaught.judging import prompts
from selftaught.manifests import document_problems, is_config_map, is_run, read_run, read_text
from selftaught.problems import Problem, problem_at
from selftaught.yaml_documents import Document, documents
from selftaught.yaml_documents import Path as FieldKeys

Advice = tuple[FieldKeys, str, str]
"""Field, what is foolish about it, and what to do."""


def validate_files(paths: Sequence[Path | str], console: Console) -> int:
    """Print every problem, one to a line with a hint below, and return the exit code: 0, or 64 if there are any."""
    failed = False
    found: list[Document] = []
    for path in paths:
        try:
            found += documents(read_text(path), str(path))
        except ManifestError as error:
            _say(console, str(error))
            failed = True
    for document in found:
        problems = document_problems(document)
        for problem in problems:
            _say(console, str(problem), problem.hint)
        failed = failed or bool(problems)
        if is_run(document) and not problems:
            run = read_run(document)
            unusable = template_problems(run, found, document)
            for problem in unusable:
                _say(console, str(problem), problem.hint)
            failed = failed or bool(unusable)
            for warning in warnings(run, found, document):
                _say(
                    console, f"{warning.file}:{warning.line}: warning: {warning.path}: {warning.message}", warning.hint
                )
            if not unusable:
                _say(console, f"{document.file}: {run.metadata.name} is valid")
    if not failed and not any(map(is_run, found)):
        _say(console, f"{', '.join(map(str, paths))}: no SelfTaughtRun in it")
        failed = True
    return PERMANENT_EXIT_CODE if failed else 0


def template_problems(run: SelfTaughtRun, beside: Sequence[Document], document: Document) -> list[Problem]:
    """What is wrong with the prompt templates in a ConfigMap beside the run."""
    reference = run.spec.prompts.config_map_ref
    maps = [entry for entry in beside if is_config_map(entry)]
    for entry in maps:
        if reference is not None and entry.at(("metadata", "name")) == reference.name:
            texts = {str(key): str(text) for key, text in (entry.at(("data",)) or {}).items()}
            try:
                prompts.load(texts)
            except ManifestError as error:
                path = ("spec", "prompts", "configMapRef")
                return [problem_at(document, path, str(error), f"correct the ConfigMap {reference.name}")]
    return []


def warnings(run: SelfTaughtRun, beside: Sequence[Document], document: Document) -> list[Problem]:
    """What is allowed in a valid run but hardly meant. `beside` are all documents, for ConfigMaps."""
    advice = [*_unmeasured(run.spec), *_unneeded(run.spec), *_unpinned(run.spec), *_prompts(run.spec, beside)]
    return [problem_at(document, ("spec", *path), message, hint) for path, message, hint in advice]


def _unmeasured(spec: RunSpec) -> Iterator[Advice]:
    """Choices that need a figure which nothing provides."""
    roles = {benchmark.role for benchmark in spec.evaluation.benchmarks}
    if not roles:
        hint = "add a benchmark with role Selection, or no one will know whether the judge improves"
        yield ("evaluation", "benchmarks"), "nothing is measured, so the last checkpoint is promoted unseen", hint
    elif (
        spec.training.keep_epoch is KeepEpoch.BEST and spec.training.epochs > 1 and BenchmarkRole.SELECTION not in roles
    ):
        hint = "give a benchmark the role Selection, or write keepEpoch: Last"
        yield ("training", "keepEpoch"), "Best needs a Selection benchmark; the last epoch is kept", hint
    if spec.approval.required is not ApprovalRequired.NEVER and spec.approval.timeout_seconds is None:
        hint = "set timeoutSeconds and onTimeout"
        yield ("approval", "timeoutSeconds"), "without it the run waits for a person for ever", hint


def _unneeded(spec: RunSpec) -> Iterator[Advice]:
    """What costs something, or was meant, and gives nothing."""
    for index, approval in enumerate(spec.approvals):
        if approval.iteration > spec.iterations:
            message = f"there is no iteration {approval.iteration}: spec.iterations is {spec.iterations}"
            yield ("approvals", index, "iteration"), message, "correct the number, or raise spec.iterations"
    judging, pairs = spec.judging, spec.pairs
    if judging.samples_per_pair > 1 and judging.sampling.temperature == 0:
        message = f"{judging.samples_per_pair} samples at temperature 0 are {judging.samples_per_pair} equal judgments"
        yield ("judging", "samplesPerPair"), message, "raise judging.sampling.temperature (the paper's is 0.7)"
    if pairs.sampling.temperature == 0 and pairs.refresh == "EachIteration":
        message = "pairs made again at temperature 0 are the same pairs"
        yield ("pairs", "refresh"), message, "raise pairs.sampling.temperature, or write refresh: Once"
    selection = spec.instructions.selection
    narrowed = {"categories", "min_complexity", "max_complexity", "expected_lengths"} & selection.model_fields_set
    if selection.strategy is SelectionStrategy.ALL and narrowed:
        message = "All asks for no category, complexity or length, so their filters do nothing"
        yield ("instructions", "selection", "strategy"), message, "write strategy: Categorise, or leave them out"


def _unpinned(spec: RunSpec) -> Iterator[Advice]:
    """Data sets that may be others tomorrow."""
    datasets: tuple[tuple[FieldKeys, Sequence[InstructionSource | Benchmark]], ...] = (
        (("instructions", "sources"), spec.instructions.sources),
        (("evaluation", "benchmarks"), spec.evaluation.benchmarks),
    )
    for field, entries in datasets:
        for index, entry in enumerate(entries):
            if entry.uri.startswith("hf://") and entry.revision is None:
                message = "a data set without a revision may have other rows tomorrow"
                yield (*field, index, "uri"), message, "add `revision:` with a commit"


def _prompts(spec: RunSpec, beside: Sequence[Document]) -> Iterator[Advice]:
    """Templates that will not be found."""
    if spec.prompts.config_map_ref is None:
        return
    name = spec.prompts.config_map_ref.name
    config_maps = {entry.at(("metadata", "name")): entry for entry in beside if is_config_map(entry)}
    field = ("prompts", "configMapRef")
    if name not in config_maps:
        yield field, f"no ConfigMap {name} in these files", "a local run needs it here; a cluster may have it"


def _say(console: Console, line: str, hint: str = "") -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    if hint:
        console.print(f"    hint: {hint}", markup=False, highlight=False, soft_wrap=True)
