"""What a pass does to the cluster: Jobs that are created, replaced and deleted."""

from dataclasses import dataclass, replace

from selftaught.api.labels import TEMPLATE_ANNOTATION
from selftaught.api.reasons import Reason
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.errors import ManifestError
from selftaught.loop.configs import stage_config
from selftaught.loop.observed import AttemptState, Observed
from selftaught.loop.outcome import Failed
from selftaught.loop.planner import Plan, PlannedStage, Waiting
from selftaught_operator.cluster import Cluster, RefusedError
from selftaught_operator.jobs import Object, folder_job, folder_job_name, pods_service, stage_job
from selftaught_operator.memory import Memory
from selftaught_operator.observe import Children
from selftaught_operator.pods import claims_of, strings
from selftaught_operator.settings import Settings


@dataclass(frozen=True)
class Actions:
    """What can be done for one run."""

    cluster: Cluster
    settings: Settings
    run: SelfTaughtRun
    children: Children
    memory: Memory

    def bodies(self, decided: Plan, observed: Observed) -> tuple[Plan, tuple[Object, ...]]:
        """The objects to create. What cannot run on any cluster ends the run instead, before anything is spent."""
        bodies: list[Object] = []
        try:
            if decided.start:
                claims_of(strings(self.run.spec.model_dump(mode="json", exclude={"prompts"})))
            for start in decided.start:
                config = stage_config(self.run, start.stage, start.iteration, start.attempt, observed)
                if start.stage is Stage.TRAIN and self.run.spec.training.parallelism.nodes > 1:
                    bodies.append(pods_service(self.run))
                bodies.append(stage_job(self.run, start, config, self.settings))
        except ManifestError as error:
            return replace(decided, start=(), outcome=Failed(Reason.INVALID_SPEC, str(error))), ()
        return decided, tuple(bodies)

    def with_refusals(self, decided: Plan) -> Plan:
        """The plan, with what the cluster said when it refused the same start before."""
        for start in decided.start:
            if (words := self.memory.refused.get(start.name)) is not None:
                return replace(decided, waiting=Waiting(Reason.PENDING, f"{start.name} cannot be created: {words}"))
        return decided

    async def stop(self, decided: Plan) -> None:
        """Delete the Jobs of attempts that are to stop."""
        uids = {job.name: job.uid for job in self.children.jobs}
        for attempt in decided.stop:
            if attempt.name in uids:
                await self.cluster.delete_job(self.run.metadata.namespace, attempt.name, uids[attempt.name])

    async def replace_outdated(self, observed: Observed) -> None:
        """Delete a Job that has not begun and would be made otherwise now (an image or a node selector was corrected).

        Told as pending and not seen, it is made again by the same name.
        """
        jobs = {job.name: job for job in self.children.jobs}
        for attempt in observed.alive:
            if attempt.state is AttemptState.RUNNING or attempt.stopping or (job := jobs.get(attempt.name)) is None:
                continue
            planned = PlannedStage(attempt.name, attempt.stage, attempt.iteration, attempt.number, attempt.key)
            config = stage_config(self.run, attempt.stage, attempt.iteration, attempt.number, observed)
            body = stage_job(self.run, planned, config, self.settings)
            if job.template and job.template != body["metadata"]["annotations"][TEMPLATE_ANNOTATION]:
                await self.cluster.delete_job(self.run.metadata.namespace, job.name, job.uid)

    async def prune(self, decided: Plan) -> None:
        """Start a Job that deletes folders, one at a time."""
        if decided.prune and all(job.end is not None for job in self.children.cleaners):
            name = folder_job_name(self.run, decided.prune)
            if all(job.name != name for job in self.children.cleaners):
                await self.cluster.create(folder_job(self.run, decided.prune, self.settings))

    async def create(self, bodies: tuple[Object, ...]) -> bool:
        """Create what is to be started; whether the cluster refused."""
        for body in bodies:
            try:
                if not await self.cluster.create(body) and body["kind"] == "Job":
                    await self._check_owner(body["metadata"]["name"])
            except RefusedError as error:
                name = bodies[-1]["metadata"]["name"]
                known = self.memory.refused.get(name)
                self.memory.refused = {name: str(error)}
                return known != str(error)
        self.memory.refused = {}
        return False

    async def _check_owner(self, name: str) -> None:
        """Raise RefusedError if a Job that exists is somebody else's; else the watch will show it soon."""
        uid = await self.cluster.run_of_job(self.run.metadata.namespace, name)
        if uid not in (None, self.run.metadata.uid):
            raise RefusedError("a Job of that name exists that is not of this run; delete it")
