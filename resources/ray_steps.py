"""Steps as Ray jobs: dagster-ray's executor, with the room of each step from the admission policy.

Belongs here: the executor of an installation that has outgrown one machine. Does not: how much
room a step gets and what fits no machine (`forecast_core.admission.step_room`), the run launcher
(dagster-ray's own, named in `dagster.yaml`), retries (Dagster's own, through the queue).

Needs the extra `ray`; imported only where the settings ask for it.

- An infeasible request would hang in Ray's queue for ever: the machines are asked first.
- A step whose machine died leaves no exit code. Its run fails, and is tried again by Dagster's run
  retries: a new run from the failed step on, decided by admission like any other. A step that
  ended by itself (an error, a quota) is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster_ray.core.executor import RayStepHandler, RetryMode, StepDelegatingExecutor

from forecast_core.admission.policy import Policy
from forecast_core.admission.request import GPU_KEY, PIPELINE_KEY
from forecast_core.admission.step_room import GIB, Misfit, Room, misfit, room_of
from resources import Settings
from resources.policies import load_policy
from resources.run_facts import KnownAssets, plain

LOST_RETRIES = 2  # runs after the first, of a run that lost a machine
MAX_RETRIES = "dagster/max_retries"
Step = Any  # Dagster's step context and handler context have no public names


class ClusterError(RuntimeError):
    """The Ray cluster cannot run a step: it is away, or no machine of it is large enough."""


def ray_executor(settings: Settings) -> dg.ExecutorDefinition:
    """The executor that runs each step as a job on the cluster of `settings.ray_address`.

    Raises:
        PolicyError: the admission policy is refused.
    """
    policy = load_policy(settings.admission_policy, Policy.parse)

    @dg.executor(
        name="ray",
        config_schema={},
        requirements=[
            dg.ExecutorRequirement.RECONSTRUCTABLE_JOB,
            dg.ExecutorRequirement.NON_EPHEMERAL_INSTANCE,
            dg.ExecutorRequirement.PERSISTENT_OUTPUTS,
        ],
    )
    def ray(_: dg.InitExecutorContext) -> Any:
        handler = GovernedSteps(policy, settings.ray_address or "", settings.told())
        # Asked often: a step that is lost holds its run, its money and its lane until noticed.
        return StepDelegatingExecutor(
            handler,
            retries=RetryMode.ENABLED,
            check_step_health_interval_seconds=5,
            should_verify_step=True,
        )

    return ray


class GovernedSteps(RayStepHandler):  # type: ignore[misc]  # checked by running it
    """Launches a step where its stage lives, with its stage's room.

    `address` may hold `{stage}`: one cluster a stage, each under a quota of its own.
    `environment` is told to every step; secrets are in the environment of the machines, for what
    is told to a job stands in Ray's dashboard.
    """

    def __init__(
        self,
        policy: Policy,
        address: str,
        environment: dict[str, str],
        machines: Callable[[str], tuple[Room, ...]] | None = None,
        client: Callable[[str], Any] | None = None,
    ) -> None:
        self._policy, self._address = policy, address
        self._machines, self._client = machines or machines_of, client or client_of
        super().__init__(
            client=None, runtime_env=None, num_cpus=None, num_gpus=None, memory=None,
            resources=None, env_vars=[f"{name}={value}" for name, value in environment.items()],
        )  # fmt: skip

    def launch_step(self, step_handler_context: Step) -> Iterator[dg.DagsterEvent]:
        """Submit the step's job.

        Raises:
            ClusterError: no machine could ever run it, or the cluster cannot be reached.
        """
        step = self._turn_to(step_handler_context)
        room = _room(self._policy, step)
        refused = self._misfit(step, room)
        if refused is not None:
            raise ClusterError(str(refused))
        # The handler's own numbers go before tags on the step: the policy has the last word.
        self.num_cpus, self.num_gpus, self.memory = room.cpu, room.gpu, room.memory_bytes
        yield from super().launch_step(step_handler_context)

    def check_step_health(self, step_handler_context: Step) -> Any:
        """Does the step still run? A run that lost a machine is marked to be tried again."""
        self._turn_to(step_handler_context)
        health = super().check_step_health(step_handler_context)
        if not health.is_healthy and self._lost(step_handler_context):
            step_handler_context.instance.add_run_tags(
                step_handler_context.dagster_run.run_id, {MAX_RETRIES: str(LOST_RETRIES)}
            )
        return health

    def terminate_step(self, step_handler_context: Step) -> Iterator[dg.DagsterEvent]:
        """Stop the step's job. One that Ray does not know was refused: its reason stands."""
        self._turn_to(step_handler_context)
        with suppress(RuntimeError):
            yield from super().terminate_step(step_handler_context)

    def _turn_to(self, context: Step) -> Step:
        """Speak to the cluster of the step at hand; its context."""
        step = context.get_step_context(self._get_step_key(context))
        self.client = self._client(self._address_of(step))
        return step

    def _address_of(self, step: Step) -> str:
        if "{stage}" not in self._address:
            return self._address
        pipelines, _ = _pipelines(step)
        stages = {self._policy.stage_name(pipeline) for pipeline in pipelines or ("",)}
        if len(stages) > 1:
            raise ClusterError(
                f"step {step.step.key} works for the stages {', '.join(sorted(stages))}, each with"
                " a cluster of its own; make it several steps, or take {stage} out of"
                " FORECAST_RAY_ADDRESS"
            )
        return self._address.replace("{stage}", stages.pop())

    def _misfit(self, step: Step, room: Room) -> Misfit | None:
        return misfit(str(step.step.key), room, self._machines(self._address_of(step)))

    def _lost(self, context: Step) -> bool:
        """Did the step's machine die? A process that ended by itself has an exit code."""
        try:
            job = self.client.get_job_info(self._get_ray_job_submission_id(context))
        except RuntimeError:  # Ray no longer knows the job
            return True
        return job.driver_exit_code is None


def _room(policy: Policy, step: Step) -> Room:
    pipelines, gpu = _pipelines(step)
    return room_of(policy, pipelines, gpu)


def _pipelines(step: Step) -> tuple[set[str], int]:
    """Who pays for what a step makes, and the GPU lanes that it holds."""
    known = KnownAssets(step.job.get_definition().asset_layer.asset_graph)
    pipelines, gpu = set(), 0
    for output in step.step.step_outputs:
        made = output.properties
        if made is not None and made.asset_key is not None:
            metadata = known.metadata(made.asset_key)
            pipelines.add(str(plain(metadata.get(PIPELINE_KEY)) or ""))
            gpu = max(gpu, int(plain(metadata.get(GPU_KEY)) or 0))
    # A check beside its asset rides along; alone it is monitoring, as the meter charges it.
    return pipelines or {"monitoring"}, gpu


@lru_cache(maxsize=16)
def client_of(address: str) -> Any:
    """The job client of a cluster, by the address of its dashboard.

    Raises:
        ClusterError: nobody answers there, or no address is set.
    """
    from ray.job_submission import JobSubmissionClient

    if not address:
        raise ClusterError(
            "FORECAST_EXECUTOR=ray needs FORECAST_RAY_ADDRESS, the address of the cluster's"
            " dashboard, such as http://ray-head:8265"
        )
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error


def machines_of(address: str) -> tuple[Room, ...]:
    """What each machine that is alive has in all.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    try:
        # Filtered here: told to filter, Ray takes the dead for a truncated answer and raises.
        nodes = list_nodes(address=address, limit=10_000, raise_on_missing_output=False)
    except (RayStateApiException, ConnectionError, OSError) as error:
        raise ClusterError(f"the machines at {address} cannot be listed: {error}") from error
    return tuple(_machine(node.resources_total) for node in nodes if node.state == "ALIVE")


def _machine(total: dict[str, float]) -> Room:
    return Room(total.get("CPU", 0.0), total.get("memory", 0.0) / GIB, int(total.get("GPU", 0)))
