"""Report of a run directory: figures, Markdown and one self-contained HTML file.

A report is a pure function of a run directory, whose files are the contract:

- `trajectory.parquet`: see `squeeze.trajectory`;
- `run.json`: `name`, `status` ("running" | "finished"), `config` (the full RunConfig), `arms`
  (list of `{name, title, phases: [{kind, on, epochs, ...}]}`), `model` (`name, sha256, parameters,
  trainable_parameters`), `data` (`name, sha256, n_train, n_held_out, split_rule`), `versions`,
  `device`, `git`, `created`, `seconds` (by stage and arm), `scoring` (`dtype`, and
  `error_nats: {mean, max, n}` when it is not float32), `not_run` (list of `{what, why}`);
- `verdicts.json`: `{"schema": 2, "verdicts": [Verdict as a dict]}`;
- `samples.json`: `{"schema": 1, "tokens": [...], "generations": [...]}` where a `tokens` entry is
  `{arm, example, split, prompt, chosen, delta_logp, tokens: [{text, logp_before, logp_after,
  argmax_before, argmax_logp_before, argmax_after, argmax_logp_after}]}` (before = at the start of
  DPO, after = at its end; the most squeezed examples first) and a `generations` entry is
  `{arm, phase, epoch, example, prompt, text}`;
- `diagnosis.json`: `{"schema": 1, "runs": [...]}`, each run as `squeeze diagnose --json` has it,
  and `curves`, empty but of a log: `{kind, split, unit, steps, values, trend_steps, trend}`;
- `config.yaml`: only named in the command that makes the run again.

Only the trajectory or the diagnosis is required, so that a log or a row of checkpoints can be
reported too. A log has no scores of single examples: its page has the diagnosis alone. What else is
absent is listed as not run. Such sources may set three more fields of `run.json`:
`headline` and `tone` ("yes" | "partly" | "no" | "unknown") instead of the headline that claim DO-2
gives, and `command` (text or a list of words), which makes the run again.
"""

from squeeze.report.page import build_report

__all__ = ["build_report"]
