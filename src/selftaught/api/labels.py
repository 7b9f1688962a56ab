"""Labels and annotations of the objects that a run owns, and of the run itself."""

from selftaught.api.base import GROUP

RUN_LABEL = f"{GROUP}/run"
"""Name of the run."""
RUN_UID_LABEL = f"{GROUP}/run-uid"
"""UID of the run: a run of the same name made later does not own what an earlier one left."""
STAGE_LABEL = f"{GROUP}/stage"
ITERATION_LABEL = f"{GROUP}/iteration"
ATTEMPT_LABEL = f"{GROUP}/attempt"

KEY_ANNOTATION = f"{GROUP}/key"
"""On a Job: hash of all that determines the result."""
TEMPLATE_ANNOTATION = f"{GROUP}/template-sha256"
"""On a Job: hash of its pods' spec, by which a Job that waits is known to be out of date."""
CONFIG_ANNOTATION = f"{GROUP}/config"
"""On a pod: its stage config (JSON), which it reads as a file."""

APPROVAL_ANNOTATION = f"{GROUP}/approval-"
"""On a run, followed by an iteration: `Approved`, `Rejected`, or an Approval as JSON."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUE_LABELS = (QUEUE_LABEL, "kueue.x-k8s.io/priority-class", "kueue.x-k8s.io/max-exec-time-seconds")
"""Kueue's labels of a run that its Jobs carry."""

KUEUE_APIS = ("kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1")
"""The newer one first, which Kueue has since 0.15; later ones serve it alone."""
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
"""On Kueue's Workload of a Job."""

JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
JOB_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"

FOLDERS_ANNOTATION = f"{GROUP}/folders"
"""On a Job that deletes checkpoints: their folders, one per line."""
