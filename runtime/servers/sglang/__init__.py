"""SGLang executes a plan: a plugin for its own extension points, active where COMMPLAN_STRATEGY names a strategy file.

    COMMPLAN_STRATEGY=strategy.yaml sglang serve --model-path ...

plugin.py             what SGLang calls in each of its processes: which hooks go where
server_fit.py, arguments.py
                      checks at start, on values alone: plan, model, parallelism, server arguments
binding.py            a plan's ops on SGLang's groups
stages.py, fused_reads.py
                      the sums that stages owe, and reads that do a sum, the add and the norm by one kernel
attention_dp.py       hooks between attention and MLP, for DP groups
scheduler.py          hooks of a scheduler process, and the proof that they are in place
launcher.py           hooks of the processes that start the others
command.py, nearest_flags.py
                      the server's command line; the nearest flags without the plugin

Nothing here is imported by the rest of the runtime. What comes from SGLang is imported inside functions.
"""
