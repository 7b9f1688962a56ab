"""What can go wrong with the test cluster, said in one line with the next step."""


class ClusterError(Exception):
    """Cause and next step in one line."""
