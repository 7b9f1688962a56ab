"""Parts of the train stage; `selftaught.stages.train` puts them together."""
