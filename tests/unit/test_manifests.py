import io
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from selftaught.api.judging import JudgingStrategy
from selftaught.errors import ManifestError
from selftaught.manifests import InvalidManifest, RunManifest, load, parse
from selftaught.problems import Problem
from selftaught.validation import validate_files
from selftaught.yaml_documents import documents

VALID = """\
apiVersion: selftaught.dev/v1alpha1
kind: SelfTaughtRun
metadata: {name: evaluator}
spec:
  seed: {model: {uri: file:///models/seed}}
  instructions:
    sources:
      - {name: chat, uri: file:///data/chat.jsonl}
  storage: {uri: file:///out}
"""


def with_spec(lines: str) -> str:
    return VALID + "".join(f"  {line}\n" for line in lines.splitlines())


def only_problem(text: str) -> Problem:
    with pytest.raises(InvalidManifest) as caught:
        parse([("run.yaml", text)])
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


def test_reads_a_run_and_the_config_maps_beside_it(tmp_path: Path) -> None:
    run, prompts = tmp_path / "run.yaml", tmp_path / "prompts.yaml"
    run.write_text(with_spec("judging: {strategy: Fixed}"))
    prompts.write_text(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: p}\ndata:\n  judge: |\n    Which?\n"
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n---\n"
    )
    manifest = load([run, prompts])
    assert isinstance(manifest, RunManifest)
    assert manifest.run.metadata.name == "evaluator"
    assert manifest.run.spec.judging.strategy is JudgingStrategy.FIXED
    assert manifest.run.spec.judging.samples_per_pair == 15
    assert manifest.config_maps == {"p": {"judge": "Which?\n"}}


@pytest.mark.parametrize(
    ("lines", "path", "line", "value", "message", "hint"),
    [
        pytest.param(
            'iterations: "5"',
            "spec.iterations",
            10,
            '"5"',
            "must be a whole number",
            "write 5, without quotes",
            id="int",
        ),
        pytest.param(
            "training: {learningRate: 1e-6}",
            "spec.training.learningRate",
            10,
            "1e-6",
            "must be a string",
            'write "1e-6", with quotes',
            id="exponent-is-a-number",
        ),
        pytest.param(
            "training:\n  finalLearningRateRatio: 0.2",
            "spec.training.finalLearningRateRatio",
            11,
            "0.2",
            "must be a string",
            'write "0.2", with quotes',
            id="number-for-string",
        ),
        pytest.param(
            "generator: {model: {uri: file:///g}, tokenSecretRef: {name: on}}",
            "spec.generator.tokenSecretRef.name",
            10,
            "on",
            "must be a string",
            'YAML reads a bare on as true; as text it needs quotes: "on"',
            id="bare-on",
        ),
        pytest.param(
            "judging: {sampling: {temperature: '0.7'}}",
            "spec.judging.sampling.temperature",
            10,
            '"0.7"',
            "must be a number",
            "write 0.7, without quotes",
            id="string-for-number",
        ),
        pytest.param(
            "training: {epochs: 2.0}",
            "spec.training.epochs",
            10,
            "2.0",
            "must be a whole number",
            "write 2",
            id="float",
        ),
        pytest.param(
            "judging: {strategy: adaptve}",
            "spec.judging.strategy",
            10,
            '"adaptve"',
            "is none of the allowed values",
            "did you mean Adaptive? Allowed: Adaptive or Fixed",
            id="enum",
        ),
        pytest.param(
            "judging: {samples_per_pair: 3}",
            "spec.judging.samples_per_pair",
            10,
            "3",
            "unknown field",
            "did you mean samplesPerPair?",
            id="snake-case",
        ),
        pytest.param(
            "samplesPerPair: 3",
            "spec.samplesPerPair",
            10,
            "3",
            "unknown field",
            "did you mean spec.judging.samplesPerPair?",
            id="field-of-another-place",
        ),
        pytest.param(
            "judging: {samplesPerPair: 0}",
            "spec.judging.samplesPerPair",
            10,
            "0",
            "is too small",
            "write 1 or more",
            id="bound",
        ),
        pytest.param(
            "prompts: {uri: /prompts}",
            "spec.prompts.uri",
            10,
            '"/prompts"',
            "has a form that is not allowed",
            "write hf://owner/name, pvc://claim/path, s3://bucket/path, gs://bucket/path or file:///path",
            id="uri",
        ),
        pytest.param(
            "prompts: {uri: file:///a/../b}",
            "spec.prompts.uri",
            10,
            "",
            "must not contain a '..' segment",
            "write the path that is meant",
            id="parent-folder",
        ),
        pytest.param(
            "generator: {model: {uri: hf://a/b}}",
            "spec.generator.model.revision",
            10,
            "",
            "a model on the hub needs a revision",
            "add `revision:` with a commit of the model, so that the run means the same tomorrow",
            id="hub-revision",
        ),
        pytest.param(
            "evaluation:\n  votes: 3",
            "spec.evaluation.votes",
            11,
            "",
            "3 votes at temperature 0 are 3 times the same verdict",
            "write `votes: 1`, or set sampling.temperature above 0 (the paper: 32 votes at 0.7)",
            id="votes",
        ),
        pytest.param(
            'training: {betas: ["0.9"]}',
            "spec.training.betas",
            10,
            "",
            "has too few items (1)",
            "give at least 2",
            id="short-list",
        ),
        pytest.param(
            "stages: {judge: {resources: {limits: {cpu: 0.5}}}}",
            "spec.stages.judge.resources.limits.cpu",
            10,
            "0.5",
            "must be a string",
            'write a whole number, or a quantity in quotes: "0.5"',
            id="quantity",
        ),
        pytest.param(
            "generator:", "spec.generator", 10, "", "has no value", "give it a value, or leave it out", id="null"
        ),
        pytest.param(
            "stages:\n  train:",
            "spec.stages.train",
            11,
            "nothing",
            "must be a mapping",
            "indent fields below it: shards, image, serviceAccountName, engine, resources, template",
            id="empty-mapping-is-told-once",
        ),
        pytest.param(
            "approvals: [{iteration: 1}]",
            "spec.approvals[0].decision",
            10,
            "",
            "is missing",
            "add it: decision.",
            id="missing-in-list",
        ),
        pytest.param(
            "approvals: [{iteration: 1, decision: Approved, time: soon}]",
            "spec.approvals[0].time",
            10,
            '"soon"',
            "is not a time",
            "write it as 2026-01-31T12:00:00Z",
            id="time",
        ),
        pytest.param(
            "stages: 3",
            "spec.stages",
            10,
            "3",
            "must be a mapping",
            "indent fields below it: all, select, generate, judge, curate, train, evaluate",
            id="scalar-for-mapping",
        ),
    ],
)
def test_explains_a_wrong_field(  # noqa: PLR0917
    lines: str, path: str, line: int, value: str, message: str, hint: str
) -> None:
    problem = only_problem(with_spec(lines))
    assert (problem.path, problem.line, problem.value, problem.message, problem.hint) == (
        path,
        line,
        value,
        message,
        hint,
    )


@pytest.mark.parametrize(
    ("old", "new", "path", "hint"),
    [
        pytest.param("name: evaluator", "name: Evaluator", "metadata.name", "use lower-case letters", id="name"),
        pytest.param("name: evaluator", f"name: {'a' * 41}", "metadata.name", "at most 40", id="long-name"),
        pytest.param(
            "name: evaluator", "name: a, lables: {}", "metadata.lables", "did you mean labels?", id="metadata"
        ),
        pytest.param("SelfTaughtRun", "SelfTaughRun", "kind", "write SelfTaughtRun", id="kind"),
        pytest.param("v1alpha1", "v1", "apiVersion", "write selftaught.dev/v1alpha1", id="version"),
        pytest.param("kind: SelfTaughtRun\n", "", "kind", "write kind: SelfTaughtRun", id="no-kind"),
        pytest.param("  storage: {uri: file:///out}\n", "", "spec.storage", "where artifacts lie", id="missing"),
        pytest.param(
            "chat.jsonl}",
            "chat.jsonl}\n      - {name: chat, uri: file:///b}",
            "spec.instructions.sources",
            "a name of its own",
            id="same-name-twice",
        ),
        pytest.param(
            "chat.jsonl", "c.jsonl, weight: 0", "spec.instructions.sources[0].weight", "more than 0", id="item"
        ),
    ],
)
def test_explains_what_is_wrong_elsewhere(old: str, new: str, path: str, hint: str) -> None:
    assert old in VALID
    problem = only_problem(VALID.replace(old, new, 1))
    assert problem.path == path
    assert hint in problem.hint


def test_reports_all_problems_in_the_order_of_lines() -> None:
    text = with_spec("judging: {strategy: X}\ngenerator:\niterations: 0").replace("evaluator}", "A, lables: {}}")
    with pytest.raises(InvalidManifest) as caught:
        parse([("run.yaml", text)])
    assert [problem.line for problem in caught.value.problems] == [3, 3, 10, 11, 12]
    assert str(caught.value).startswith("run.yaml:3: metadata.name: ")
    assert "(4 more: see `selftaught validate`)" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", "run.yaml:3: a stands twice (first in line 1); keep one", id="duplicate"),
        pytest.param("a:\n  b: [1\n", "run.yaml:3: not valid YAML", id="syntax"),
        pytest.param("a: &a [*a]", "run.yaml:1: an alias that contains itself", id="recursive-alias"),
        pytest.param(
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
            "more than 100000 values",
            id="alias-bomb",
        ),
        pytest.param("[" * 3000, "nested too deeply", id="deep"),
        pytest.param("a: \x01", "run.yaml:1: not valid YAML", id="control-character"),
        pytest.param("a: !!python/name:os.system", "not valid YAML", id="tag"),
        pytest.param("", "no SelfTaughtRun in it", id="empty"),
        pytest.param("- 1", "not a Kubernetes object", id="list"),
        pytest.param(VALID + "---\n" + VALID, "2 runs (run.yaml:2 and run.yaml:12)", id="two-runs"),
        pytest.param(
            VALID + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: p}\ndata: {judge: 5}",
            "run.yaml:14: data.judge: must be a string (found 5)",
            id="config-map-number",
        ),
    ],
)
def test_refuses_a_text(text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse([("run.yaml", text)])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file; check the path"):
        load([tmp_path / "absent.yaml"])
    with pytest.raises(ManifestError, match="is a folder"):
        load([tmp_path])
    (tmp_path / "latin").write_bytes(b"a: \xe4")
    with pytest.raises(ManifestError, match="not UTF-8"):
        load([tmp_path / "latin"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("1e-6", 1e-6, id="exponent"),
        pytest.param("no", False, id="no"),
        pytest.param("y", True, id="y"),
        pytest.param("2026-01-01", "2026-01-01", id="date"),
        pytest.param("1:30", "1:30", id="sexagesimal"),
        pytest.param("012", 10, id="octal"),
        pytest.param("08", "08", id="not-octal"),
        pytest.param("'1'", "1", id="quoted"),
        pytest.param("", None, id="nothing"),
        pytest.param("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}, id="merge"),
        pytest.param("{on: 1, 2: 3}", {"on": 1, "2": 3}, id="keys-are-strings"),
    ],
)
def test_reads_scalars_as_kubernetes_tools_do(text: str, value: object) -> None:
    (document,) = documents(f"value: {text}", "f")
    assert document.value == {"value": value}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6), plain, min_size=1, max_size=4))
def test_reads_what_was_written_and_knows_every_place(value: dict[str, object]) -> None:
    (document,) = documents(yaml.safe_dump(value, default_style='"'), "f")
    assert document.value == value
    for path, place in document.places.items():
        assert document.place(path) == place
        assert place.line >= 1


def run_validation(tmp_path: Path, *texts: str) -> tuple[int, list[str]]:
    paths = []
    for index, text in enumerate(texts):
        paths.append(tmp_path / f"{index}.yaml")
        paths[-1].write_text(text)
    output = io.StringIO()
    code = validate_files(paths, Console(file=output, width=80))
    return code, output.getvalue().replace(f"{tmp_path}/", "").splitlines()


def test_validate_prints_a_line_and_a_hint_for_each_problem(tmp_path: Path) -> None:
    code, lines = run_validation(tmp_path, with_spec('iterations: "5"\njudging: {"[bold]": 1}'))
    assert code == 64
    assert lines[:2] == [
        '0.yaml:10: spec.iterations: must be a whole number (found "5")',
        "    hint: write 5, without quotes",
    ]
    assert len(lines) == 4


def test_validate_goes_on_after_a_file_that_is_not_yaml(tmp_path: Path) -> None:
    code, lines = run_validation(tmp_path, "a: [", VALID)
    assert code == 64
    assert lines[0].startswith("0.yaml:1: not valid YAML")
    assert lines[-1] == "1.yaml: evaluator is valid"


def test_validate_needs_a_run(tmp_path: Path) -> None:
    assert run_validation(tmp_path, "apiVersion: v1\nkind: Namespace") == (64, ["0.yaml: no SelfTaughtRun in it"])


SELECTION = "evaluation: {benchmarks: [{name: b, uri: file:///b, role: Selection}]}"


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        pytest.param(SELECTION, [], id="sensible"),
        pytest.param("", ["spec.evaluation.benchmarks"], id="nothing-measured"),
        pytest.param(
            SELECTION.replace("Selection", "Gate"), ["spec.training.keepEpoch"], id="best-epoch-without-selection"
        ),
        pytest.param(
            f"{SELECTION}\napproval: {{required: EveryIteration}}", ["spec.approval.timeoutSeconds"], id="no-timeout"
        ),
        pytest.param(
            f"{SELECTION}\njudging: {{sampling: {{temperature: 0}}}}",
            ["spec.judging.samplesPerPair"],
            id="greedy-samples",
        ),
        pytest.param(
            f"{SELECTION}\npairs: {{refresh: EachIteration, sampling: {{temperature: 0}}}}",
            ["spec.pairs.refresh"],
            id="greedy-refresh",
        ),
        pytest.param(
            SELECTION.replace("file:///b", "hf://a/b"), ["spec.evaluation.benchmarks[0].uri"], id="unpinned-data"
        ),
        pytest.param(
            f"{SELECTION}\nprompts: {{configMapRef: {{name: p}}}}", ["spec.prompts.configMapRef"], id="no-map"
        ),
    ],
)
def test_validate_warns_of_what_is_foolish(tmp_path: Path, lines: str, warned: list[str]) -> None:
    code, output = run_validation(tmp_path, with_spec(lines))
    assert code == 0
    assert output[-1] == "0.yaml: evaluator is valid"
    assert [line.split(": ")[2] for line in output if ": warning: " in line] == warned


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param("{respnd: b}", "unknown prompt template 'respnd'", id="a template that nothing uses"),
        pytest.param("{judge.txt: a}", "the prompt template 'judge' lacks", id="a placeholder is missing"),
        pytest.param("{respond: '{{x}}'}", "the prompt template 'respond' mentions {{x}}", id="an unknown placeholder"),
    ],
)
def test_validate_checks_the_templates_beside_the_run(tmp_path: Path, data: str, message: str) -> None:
    config_map = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: p}}\ndata: {data}"
    run = with_spec(f"{SELECTION}\nprompts: {{configMapRef: {{name: p}}}}")
    code, output = run_validation(tmp_path, run, config_map)
    assert code == 64
    assert output[0].startswith(f"0.yaml:11: spec.prompts.configMapRef: {message}")
    assert not any("is valid" in line for line in output)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "manifests/examples").glob("*.yaml")), ids=lambda p: p.stem
)
def test_examples_are_valid(path: Path) -> None:
    output = io.StringIO()
    assert validate_files([path], Console(file=output)) == 0


def test_the_paper_example_has_no_warning() -> None:
    output = io.StringIO()
    path = Path(__file__).parents[2] / "manifests/examples/llama-3.1-70b.yaml"
    validate_files([path], Console(file=output, width=200))
    assert output.getvalue().splitlines() == [f"{path}: llama-3-1-70b is valid"]


def test_validate_warns_of_filters_that_do_nothing(tmp_path: Path) -> None:
    text = with_spec(SELECTION).replace("sources:", "selection: {strategy: All, minComplexity: 3}\n    sources:")
    code, output = run_validation(tmp_path, text)
    assert code == 0
    assert [line.split(": ")[2] for line in output if "warning" in line] == ["spec.instructions.selection.strategy"]
