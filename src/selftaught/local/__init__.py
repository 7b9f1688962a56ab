"""Runs a manifest on this machine: the same planner and stages as on a cluster, with processes for pods."""
