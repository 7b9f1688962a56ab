"""The text engine on vLLM: its synchronous step loop, fed continuously; each text is handed over when done.

`LLM.generate` hands results over only when every request is done, which loses all of them in a kill and lets the
engine run empty between batches.

On a CPU the engine core runs in this process: nothing is left behind by a kill, Ctrl-C does not reach a child
first, and nothing is copied between processes. Prompts are prefilled whole there (chunked prefill off): vLLM gives
a half prefilled request's random numbers back through a CUDA-only call, so that per-request seeds, on which
resuming relies, would crash a CPU engine.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from selftaught.api.placement import Engine as EngineSettings
from selftaught.errors import DataError, ModelError, TransientError
from selftaught.stages.engine import Completion, Request
from selftaught.stages.served_model import chat_tokens, describe, load_tokenizer, one_line

CPU_BLOCK_SIZE = 32
"""vLLM's own choice on a CPU is 128, which loses the reuse of shorter prefixes."""

_PROMPT_CACHE = 1024  # prompts whose tokens are remembered: the N samples of a prompt are submitted close together

_TINY_BYTES = 16 * 2**20

_VARIABLES = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin while they wait make a busy machine many times slower than one that sleeps.
    "OMP_WAIT_POLICY": "PASSIVE",
}

_set_num_threads: Callable[[int], None] | None = None
_all_threads = 1


class VllmEngine:
    """One model in a running engine. Raises ModelError when it cannot be started."""

    def __init__(self, folder: Path, settings: EngineSettings) -> None:
        _prepare_process()
        self.settings = settings
        self.folder = folder
        self._described = describe(folder, settings)
        self._tokenizer = load_tokenizer(folder)
        with _environment():
            self._engine, self.gpus = _start(folder, settings)
        config = self._engine.vllm_config
        self.max_model_len = int(config.model_config.max_model_len)
        self.capacity = int(config.scheduler_config.max_num_seqs)
        self.broken = False
        """Whether it has failed and must be replaced."""
        self.input_tokens = 0
        """Prompt tokens of all completions so far."""
        self.cached_tokens = 0
        """Those of them that came from the prefix cache."""
        self.output_tokens = 0
        """Generated tokens of all completions so far."""
        self._ids: dict[str, str] = {}  # the engine's own id of a request → ours
        self._count = 0
        self._prompt = lru_cache(_PROMPT_CACHE)(partial(chat_tokens, self._tokenizer))

    @property
    def active(self) -> int:
        """Requests submitted and not yet handed over."""
        return len(self._ids)

    def count_tokens(self, message: str) -> int:
        """Length of the prompt that `message` becomes, chat template included."""
        return len(self._prompt(message))

    def submit(self, request: Request) -> None:
        """Queue a request. Raises DataError if its prompt leaves no room for an answer."""
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        tokens = self._prompt(request.message)
        room = self.max_model_len - len(tokens)
        if room < 1:
            raise DataError(
                f"the prompt of {request.id} has {len(tokens)} tokens, the context {self.max_model_len}; "
                "raise engine.maxModelLen or leave it out"
            )
        guided = StructuredOutputsParams(regex=request.pattern) if request.pattern is not None else None
        parameters = SamplingParams(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            max_tokens=min(request.sampling.max_tokens, room),
            seed=request.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # nobody else holds these
            structured_outputs=guided,
        )
        self._count += 1
        name = str(self._count)
        self._engine.add_request(name, TokensPrompt(prompt_token_ids=tokens), parameters)
        self._ids[name] = request.id

    def step(self) -> list[Completion]:
        """Advance by one scheduler step; the requests that it finished, often none.

        Raises TransientError when the engine breaks down.
        """
        if not self._ids:
            return []
        try:
            outputs = self._engine.step()
        except Exception as error:
            self.broken = True
            raise TransientError(f"the engine broke down: {one_line(error)}; finished rows are kept") from error
        return [self._completion(output) for output in outputs if output.finished]

    def abort_all(self) -> None:
        """Forget all active requests."""
        if self._ids:
            self._engine.abort_request(list(self._ids))
            self._ids.clear()

    def fits(self, folder: Path, settings: EngineSettings) -> bool:
        """Whether the weights in a folder can be swapped in: same shapes, tokenizer, chat template and settings."""
        return settings == self.settings and describe(folder, settings) == self._described

    def swap(self, folder: Path) -> None:
        """Load other weights into the running engine (milliseconds instead of half a minute).

        Raises ModelError when they do not fit; the engine is then no longer of use.
        """
        if not self.fits(folder, self.settings):
            raise ModelError(f"{folder} differs from {self.folder} in more than its weights; start an engine for it")
        self.abort_all()
        self.broken = True  # until all of it is done
        try:
            self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            if not self.gpus:
                self._engine.apply_model(_repack_heads)
        except Exception as error:
            raise ModelError(f"cannot load the weights in {folder}: {one_line(error)}") from error
        if not self._engine.reset_prefix_cache():
            raise TransientError("the engine still uses the old weights' prefix cache")
        self.folder = folder
        self.broken = False

    def close(self) -> None:
        """Shut down; no process stays behind. Safe to call twice."""
        engine, self._engine = getattr(self, "_engine", None), None
        self._ids.clear()
        if engine is not None:
            shut_down(engine)

    def _completion(self, output: Any) -> Completion:
        answer = output.outputs[0]
        name = self._ids.pop(output.request_id)
        if answer.finish_reason not in ("stop", "length"):
            raise TransientError(f"the engine could not finish {name} ({answer.finish_reason})")
        completion = Completion(
            id=name,
            text=answer.text,
            finish_reason=answer.finish_reason,
            input_tokens=len(output.prompt_token_ids),
            cached_tokens=output.num_cached_tokens or 0,
            output_tokens=len(answer.token_ids),
        )
        self.input_tokens += completion.input_tokens
        self.cached_tokens += completion.cached_tokens
        self.output_tokens += completion.output_tokens
        return completion


def _prepare_process() -> None:
    """Environment that must stand before torch and vLLM are imported; what is set already stays."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    if os.environ["VLLM_LOGGING_LEVEL"] == "ERROR":
        logging.getLogger("vllm").setLevel(logging.ERROR)


def _set_threads(folder: Path) -> None:
    """One thread for a tiny model: handing its small matrices to others costs more than it saves."""
    import torch

    global _set_num_threads, _all_threads
    if _set_num_threads is None:  # vLLM puts a function that does nothing in its place
        _set_num_threads, _all_threads = torch.set_num_threads, torch.get_num_threads()
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    _set_num_threads(1 if weights < _TINY_BYTES else _all_threads)


def engine_arguments(folder: Path, settings: EngineSettings) -> dict[str, Any]:
    """What vLLM's `EngineArgs` are given: the allow-listed settings, and what this project always wants."""
    _prepare_process()
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": str(folder),
        "load_format": "safetensors",
        "trust_remote_code": False,
        "dtype": settings.dtype.value,
        "max_model_len": settings.max_model_len,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if settings.block_size is not None:
        arguments["block_size"] = settings.block_size
    if not current_platform.is_cpu():
        return arguments | {"gpu_memory_utilization": settings.gpu_memory_utilization}
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    arguments["kv_cache_memory_bytes"] = settings.cpu_kv_cache_gib * 2**30  # VLLM_CPU_KVCACHE_SPACE still overrides it
    arguments.setdefault("block_size", CPU_BLOCK_SIZE)
    arguments["enforce_eager"] = True
    longest = settings.max_model_len or int(EngineArgs(**arguments).create_model_config().max_model_len)
    arguments["enable_chunked_prefill"] = False
    arguments["max_num_batched_tokens"] = max(longest, settings.max_num_seqs, 4096)
    return arguments


def _start(folder: Path, settings: EngineSettings) -> tuple[Any, int]:
    from vllm.platforms import current_platform

    on_cpu = bool(current_platform.is_cpu())
    if on_cpu:
        _set_threads(folder)
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = engine_arguments(folder, settings)
        return LLMEngine.from_engine_args(EngineArgs(**arguments)), 0 if on_cpu else settings.tensor_parallel_size
    except Exception as error:
        raise ModelError(f"the engine cannot serve {folder}: {one_line(error)}") from error


def shut_down(engine: Any) -> None:
    """Stop a vLLM `LLMEngine`, wherever its core runs, and free what it holds."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    with suppress(Exception):
        engine.engine_core.shutdown()
    del engine
    with suppress(Exception):
        cleanup_dist_env_and_memory()


def _repack_heads(model: Any) -> None:
    """Pack the weights of output heads again.

    On a CPU a head works on a packed copy, which `reload_weights` leaves as it was when the weights are tied to the
    embedding: the model would go on with its old head.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


@contextmanager
def _environment() -> Iterator[None]:
    """No hub and no warnings of libraries to each other while a local folder is loaded."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
