"""`kubectl selftaught`: looks at the runs of a cluster and steers them."""
