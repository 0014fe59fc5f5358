"""How vLLM is set up on this machine: its environment variables, and its arguments where there is no GPU.

On a GPU vLLM's own defaults stand. On a CPU they fit a server with many cores, so a few are set here; what the user
sets, in the environment or in the configuration, always wins.
"""

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from tts_server.errors import EngineUnavailable
from tts_server.raw_output import captured, cause_in

logger = logging.getLogger(__name__)

SUPPORTED = ("0.32", "0.33")
"""The vLLM releases whose behaviour this server's tests have seen."""

_FEW_CORES = 4
_GIB = 2**30
_HUB_TIMEOUT_S = 5
_GRACE_S = 15
_END_TIMEOUT_S = 5


def prepare_environment() -> None:
    """To be called before vLLM is imported: keeps it quiet and at home."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # as warnings it tells every weight that it casts
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # vLLM keeps one core of every few for its scheduler, which on a small machine is half of it.
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if 0 < len(cores) <= _FEW_CORES:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))


def check_source(model_path: str) -> None:
    """Fails within seconds where there is no such model, in place of vLLM's long retries.

    Raises:
        EngineUnavailable: no such directory, or a hub that does not have or does not answer for the model.
    """
    path = Path(model_path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise EngineUnavailable(f"{model_path} holds no model: it has no config.json.")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    elif path.is_absolute() or model_path.count("/") != 1:
        raise EngineUnavailable(f"There is no model at {model_path}: it is neither a directory nor a hub's owner/name.")
    else:
        _check_hub(model_path)


def _check_hub(model: str) -> None:
    from huggingface_hub import HfApi, try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import RepositoryNotFoundError  # noqa: PLC0415

    try:
        HfApi().model_info(model, timeout=_HUB_TIMEOUT_S)
    except RepositoryNotFoundError as error:
        raise EngineUnavailable(f"The hub has no model {model!r}, or does not show it without a token.") from error
    except Exception as error:
        if not isinstance(try_to_load_from_cache(model, "config.json"), str):
            raise EngineUnavailable(
                f"The hub does not answer ({type(error).__name__}), and {model!r} is not in its cache; give a local "
                "directory or one of the names of `tts-server models list`."
            ) from error
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def cpu_arguments() -> dict[str, Any]:
    """What AsyncEngineArgs get on a CPU."""
    import torch  # noqa: PLC0415
    from vllm.utils.cpu_resource_utils import get_memory_node_info, get_visible_memory_node  # noqa: PLC0415

    arguments: dict[str, Any] = {
        # Compiled mode takes minutes to start and is no faster at these sizes.
        "enforce_eager": True,
        # The default of 128 leaves short prompts outside the prefix cache; 16 has no fast attention kernel.
        "block_size": 32,
        # As long as the model and the cache allow.
        "max_model_len": -1,
        "max_num_seqs": 64,
        # A split prefill of a seeded request kills the CPU engine ("CPU Generator does not use offset"); whole
        # prefills are never split, not after a preemption either.
        "enable_chunked_prefill": False,
    }
    if not torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported():
        arguments["dtype"] = "float32"
    if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        spare = get_memory_node_info(get_visible_memory_node()[0]).available_memory
        arguments["kv_cache_memory_bytes"] = min(max(spare // 4, _GIB // 2), 16 * _GIB)
    return arguments


def splits_seeded_prefills(scheduler: Any) -> bool:
    """Whether a seeded request could meet the fault that `cpu_arguments` keeps away."""
    from vllm.platforms import current_platform  # noqa: PLC0415

    split = scheduler.enable_chunked_prefill or scheduler.long_prefill_token_threshold > 0
    return bool(split and current_platform.is_cpu())


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Raises EngineUnavailable for an import of vLLM that fails inside of it."""
    try:
        yield
    except ImportError as error:
        raise EngineUnavailable(
            f"vLLM does not import ({error}); in a checkout: `make install`, or with a GPU pip install '.[vllm]'."
        ) from error


def build(model_path: str, max_model_len: int | None, extra: dict[str, Any]) -> Any:
    """Starts an AsyncLLM; takes half a minute or more.

    Raises:
        EngineUnavailable: vLLM is not installed, or cannot load the model.
    """
    prepare_environment()
    check_source(model_path)
    try:
        with captured() as raw, _ctrl_c_is_ours():
            return _built(model_path, max_model_len, extra)
    except EngineUnavailable:
        raise
    except Exception as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise EngineUnavailable(f"vLLM cannot load {model_path}: {cause_in(raw.lines) or told[0]}") from error


@contextlib.contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """Processes that are started inside of it get no SIGINT.

    A terminal sends it to all of them, and vLLM's would end at once under the requests that the server lets end.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # With the first process Python starts this one, and lets SIGINT through again behind it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one that somebody ended is started again, which is all that is asked here
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _built(model_path: str, max_model_len: int | None, extra: dict[str, Any]) -> Any:
    with installed():
        import vllm  # noqa: PLC0415
        from vllm.config import StructuredOutputsConfig  # noqa: PLC0415
        from vllm.platforms import current_platform  # noqa: PLC0415
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415
    _tell_version(vllm.__version__)
    arguments = {}
    if current_platform.is_cpu():
        arguments = cpu_arguments()
        # Eager mode leaves a compiled operator in the sampler, and the first request for logprobs would wait for it.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    arguments |= {"model": model_path, "enable_prefix_caching": True}
    arguments |= {"disable_log_stats": True, "use_tqdm_on_load": False}
    # An engine has one backend of grammars. Left to vLLM, the first request would choose it for all that follow.
    arguments["structured_outputs_config"] = StructuredOutputsConfig(backend="xgrammar")
    if max_model_len is not None:
        arguments["max_model_len"] = max_model_len
    return AsyncLLM.from_engine_args(vllm.AsyncEngineArgs(**arguments | extra))


def processes_of(llm: Any) -> list[Any]:
    """The processes that an AsyncLLM has started, as psutil's."""
    import psutil  # noqa: PLC0415  (comes with vllm)

    cores = [psutil.Process(process.pid) for process in llm.engine_core.resources.engine_manager.processes]
    return [*cores, *(child for core in cores for child in core.children(recursive=True))]


def end(llm: Any, processes: list[Any]) -> None:
    """Shuts an AsyncLLM down and waits until its processes are gone; workers outlive a core that was killed."""
    import psutil  # noqa: PLC0415

    llm.shutdown(timeout=_GRACE_S)
    llm.shutdown = lambda: None  # its __del__ calls it once more, at exit without the modules it needs
    _, left = psutil.wait_procs(processes, timeout=_END_TIMEOUT_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_END_TIMEOUT_S)


def _tell_version(version: str) -> None:
    logger.info("vLLM %s; this server supports %s.", version, " and ".join(SUPPORTED))
    if not version.startswith(tuple(f"{release}." for release in SUPPORTED)):
        logger.warning("vLLM %s is not one of the supported releases (%s).", version, ", ".join(SUPPORTED))
