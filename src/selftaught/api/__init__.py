"""The resource `SelfTaughtRun` and the messages between planner and stages, as pydantic models.

The single source of truth: the CRD, the API reference, the operator and the pods are all made from
these classes. Nothing here knows about clusters, processes or models.
"""
