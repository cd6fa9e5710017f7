"""From a run directory to a page: figures, Markdown and one self-contained HTML file.

A report is a pure function of a run directory, whose files are the contract:

- `trajectory.parquet`: see `squeeze.trajectory`;
- `run.json`: `name`, `status` ("running" | "finished"), `config` (the full RunConfig), `arms`
  (list of `{name, title, phases: [{kind, on, epochs, ...}]}`), `model` (`name, sha256, parameters,
  trainable_parameters`), `data` (`name, sha256, n_train, n_held_out, split_rule`), `versions`,
  `device`, `git`, `created`, `seconds` (by stage and arm), `scoring` (`dtype`, and
  `error_nats: {mean, max, n}` when it is not float32), `not_run` (list of `{what, why}`);
- `verdicts.json`: `{"schema": 1, "verdicts": [Verdict as a dict]}`;
- `samples.json`: `{"schema": 1, "tokens": [...], "generations": [...]}` where a `tokens` entry is
  `{arm, example, split, prompt, chosen, delta_logp, tokens: [{text, logp_before, logp_after,
  argmax_before, argmax_logp_before, argmax_after, argmax_logp_after}]}` (before = at the start of
  DPO, after = at its end; the most squeezed examples first) and a `generations` entry is
  `{arm, phase, epoch, example, prompt, text}`.
"""
