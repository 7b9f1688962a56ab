"""A process that runs engine stages one after another and keeps its engine between them.

Reads one `StageJob` per line, writes `StageRecord`s. On a cluster each stage is a pod of its own; here one
engine start, half a minute, serves the whole run.
"""

import signal
import sys
import traceback

from selftaught.api.base import ApiModel
from selftaught.api.outcomes import ResultRecord
from selftaught.api.stage_config import StageConfig
from selftaught.stages.context import Shard
from selftaught.stages.engine_holder import EngineHolder
from selftaught.stages.program import (
    StopRequest,
    describe_failure,
    die_with_parent,
    make_context,
    private_stdout,
    run_stage,
)
from selftaught.stages.reporting import ProgressReporter, write_record


class StageJob(ApiModel):
    """One shard of a stage."""

    config: StageConfig
    shard: int = 0


def main() -> None:
    """Serve jobs until standard input ends or SIGTERM comes."""
    die_with_parent(int(sys.argv[1]))
    stop = StopRequest()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop.listen()
    output = private_stdout()
    holder = EngineHolder()
    try:
        while not stop() and (line := sys.stdin.readline()):
            job = StageJob.model_validate_json(line)
            config = job.config
            reporter = ProgressReporter(
                config.stage, config.iteration, job.shard, lambda record: write_record(output, record)
            )
            try:
                context = make_context(
                    shard=Shard(job.shard, config.shards),
                    progress=reporter,
                    stopping=stop,
                    engine=holder.engine,
                )
                write_record(output, ResultRecord(result=run_stage(config, context)))
            except Exception as error:
                traceback.print_exc()
                write_record(output, describe_failure(error))
    finally:
        holder.close()


if __name__ == "__main__":
    main()
