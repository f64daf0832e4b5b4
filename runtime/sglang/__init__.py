"""SGLang executes a plan: a plugin for its own extension points, active where COMMPLAN_STRATEGY names a strategy file.

    COMMPLAN_STRATEGY=strategy.yaml sglang serve --model-path ...

plugin.py             what SGLang calls in each of its processes: which hooks go where
fit.py arguments.py   checks at start, on values alone: plan, model, parallelism, server arguments
graphs.py             CUDA graphs freeze choices: which batch sizes may be captured
binding.py            a plan's ops on SGLang's groups
forward.py            the forward in progress: which range holds, what has run
attention_dp.py       hooks between attention and MLP, for DP groups
scheduler.py          hooks of a scheduler process, and the proof that they are in place
launcher.py           hooks of the processes that start the others
report.py             executed ops against the plan
command.py export.py  the server's command line; the nearest flags without the plugin

Nothing here is imported by the rest of the runtime. What comes from SGLang is imported inside functions.
"""
