"""Orchestration: assets, checks, partitions, jobs, schedules and sensors of the demand graph.

Belongs here: what must hold before any definition loads. Does not: definitions.
"""

import warnings

# Dagster says of each partition mapping and backfill policy that it is in beta. The versions are
# pinned; who runs a forecast can do nothing about it, and 23 such lines hid the first result.
warnings.filterwarnings("ignore", message=".* is currently in (beta|preview)")
