"""A pool runs jobs in processes that may die: what a hostile document can cost is the worker that met it.

A job is a small record of paths and options, its function a module-level one that writes files and returns little; so
that the same job runs here, on another machine that sees the same folders, or again after a crash. Engines: ``local``
(pebble: a process that dies costs its own job alone, which `concurrent.futures` cannot promise) and ``ray``.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any, Literal, TypeVar, get_args

from sleuth.corpora.errors import ConfigError, StoreError

Engine = Literal["local", "ray"]
Job = TypeVar("Job")
Result = TypeVar("Result")
Died = Callable[[Job, str], Job]
"""``died(job, how)``: what to run in place of a job whose process ended under it, or an exception."""


def run_all(
    function: Callable[[Job], Result], jobs: Iterable[Job], died: Died[Job], workers: int = 0, engine: Engine = "local"
) -> Iterator[tuple[Job, Result]]:
    """Each job with its result, as they are done; ``workers`` 0 means one for each core (with Ray: what it has).

    Jobs are drawn as workers get free. An exception of a job is raised here, and the rest is stopped.
    """
    if engine not in get_args(Engine):
        raise ConfigError(f"unknown engine {engine!r}; known: {', '.join(get_args(Engine))}")
    if workers < 0:
        raise ConfigError(f"workers: expected at least 1, or 0 for one a core, found {workers}")
    return (_local if engine == "local" else _ray)(function, iter(jobs), died, workers)


def _local(
    function: Callable[[Job], Result], jobs: Iterator[Job], died: Died[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    from pebble import ProcessExpired, ProcessPool

    workers = workers or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(max_workers=workers, context=context, initializer=bound_to, initargs=(os.getpid(),))
    running: dict[Any, Job] = {}
    try:
        while True:
            while len(running) < workers + 1 and (job := next(jobs, None)) is not None:
                running[pool.schedule(function, args=(job,))] = job
            if not running:
                break
            done = wait(running, return_when=FIRST_COMPLETED).done
            for future in [future for future in running if future in done]:  # as they were drawn, where several are
                job = running.pop(future)
                try:
                    result = future.result()
                except ProcessExpired as error:
                    again = died(job, how_it_ended(error.exitcode))
                    running[pool.schedule(function, args=(again,))] = again
                else:
                    yield job, result
    finally:
        pool.stop()
        pool.join()


def bound_to(parent: int) -> None:
    """In a worker: end with the process that started it, however that ends, so that no two ever run one job."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of Linux
    if os.getppid() != parent:
        os._exit(1)


def how_it_ended(code: int | None) -> str:
    """Of a worker, by its exit code."""
    if code == -signal.SIGPROF:
        return "it took too long"
    if code == -signal.SIGKILL:
        return "its worker was killed, as happens where memory runs out"
    return f"its worker ended by {signal.Signals(-code).name}" if code and code < 0 else f"its worker ended with {code}"


def _ray(
    function: Callable[[Job], Result], jobs: Iterator[Job], died: Died[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--engine ray: Ray is not installed; pip install 'sleuth[ray]'")
    import ray

    if not ray.is_initialized():
        try:  # RAY_ADDRESS names a cluster; without it, one is made here
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # Ray raises the bare class where its processes do not come up
            raise StoreError(f"Ray could not be started or reached: {error}") from error
    workers = workers or int(ray.cluster_resources().get("CPU", 1))
    remote = ray.remote(num_cpus=1, max_retries=0)(function)
    running: dict[Any, Job] = {}
    while True:
        while len(running) < workers and (job := next(jobs, None)) is not None:
            running[remote.remote(job)] = job
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1)
        job = running.pop(done[0])
        try:
            result = ray.get(done[0])
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
        ) as error:
            again = died(job, f"its worker was lost: {type(error).__name__}")
            running[remote.remote(again)] = again
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        else:
            yield job, result
