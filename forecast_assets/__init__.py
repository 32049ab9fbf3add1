"""Orchestration: assets, checks, partitions, jobs, schedules and sensors of the demand graph."""
