"""What a row and each column of the warehouse's tables mean, and the columns' units; the types are in `tables.py`.

No stage uses this file, so a better description computes nothing again. `docs/warehouse.md` is made from it.
"""

from __future__ import annotations

from overedit.tasks.warehouse.identity_columns import IDENTITY, LABEL, SHARE, Column, Table

_INSTANCE = {"run": IDENTITY["run"], "instance": Column("the instance's id, which sorts by time")}

_REQUEST = {
    "case_id": Column("the request's id in its dataset"),
    "prompt": Column("the edit prompt"),
    "subject": Column("the entity that the fact is about; null if the dataset names none"),
    "target_new": Column("the new answer"),
}

TABLES_IN_WORDS: dict[str, Table] = {
    "runs": Table(
        "one trajectory, written when it ends; its `edit_count` is the last planned one",
        IDENTITY
        | {
            "label": LABEL,
            "config": Column("the whole configuration of the run", "JSON"),
            "method_config": Column("the method's configuration", "JSON"),
            "model_digest": Column("digest of the pristine model's weights"),
            "engine": Column("the engine that answered the prompts: vllm or transformers"),
            "versions": Column("package -> version", "JSON"),
            "hardware": Column("the GPUs, or the processor and its cores, in words"),
            "started_at": Column("start of the trajectory", "UTC time"),
            "status": Column("completed or failed"),
            "error": Column("why it failed; null if it completed"),
        },
    ),
    "requests": Table(
        "one edit request, in the order of editing",
        {name: IDENTITY[name] for name in ("run", "dataset", "order_seed")}
        | {"position": Column("place in the order of editing, 1 for the first edit", "edits")}
        | _REQUEST
        | {
            "target_true": Column("the answer before the edit, if the dataset gives one"),
            "overwritten_by": Column("`case_id` of a later edit of the same prompt with another target, else null"),
        },
    ),
    "checkpoints": Table(
        "one edited tensor of a checkpoint",
        IDENTITY
        | {
            "parameter": Column("the tensor's name in the model"),
            "sha256": Column("checksum of the edited tensor"),
            "weight_norm": Column("Frobenius norm of the edited tensor"),
            "base_norm": Column("Frobenius norm of the pristine tensor"),
            "update_norm": Column("Frobenius norm of (edited - pristine)"),
            "bytes": Column("size of the checkpoint's weights file; 0 if it was pruned", "bytes"),
            "path": Column("the checkpoint's folder"),
            "branched_from": Column(
                "edit count at which the checkpoint left the main line, which continues without it; null on the line",
                "edits",
            ),
            "schedule": Column(
                "turns: each turn takes new edits; restart or continue: a turn takes all edits so far, from the "
                "pristine weights or from those of the turn before"
            ),
        },
    ),
    "diagnostics": Table(
        "one quantity that the method logged in a turn, of one site or of the whole turn; `edit_count` is that of the "
        "next checkpoint",
        IDENTITY
        | {
            "first_edit": Column("first edit of the turn, counted from 1", "edits"),
            "last_edit": Column("last edit of the turn", "edits"),
            "site": Column("the projection, e.g. 5.down_proj; null for quantities of the whole turn"),
            "quantity": Column("what was logged, e.g. update_norm, preservation, loss, seconds"),
            "value": Column("its value; the unit is the quantity's own"),
            "on_branch": Column("whether the turn led to a checkpoint only, and was not continued from"),
        },
    ),
    "outcomes": Table(
        "one answered question: case x probe x protocol",
        IDENTITY
        | {
            "position": Column("the case's place in the order of editing, from 1; its age is edit_count - position"),
            "case_id": _REQUEST["case_id"],
            "probe": Column("edit, rephrase, persona, locality, portability or text"),
            "probe_index": Column("place among the case's prompts of this kind, from 0"),
            "protocol": Column("generated, teacher_forced or probability"),
            "prompt": Column("the prompt that was asked"),
            "target": Column("the right answer; null if the dataset has none"),
            "output": Column("generated: the raw text"),
            "num_tokens": Column("generated: length of the output; otherwise of the target", "tokens"),
            "finish_reason": Column("generated: eos, stop or length"),
            "stop": Column("generated: the stop strings"),
            "max_tokens": Column("generated: the limit of the output's length", "tokens"),
            "similarity": Column("text: TF-IDF cosine similarity with the case's references", SHARE),
            "greedy_ids": Column("teacher_forced: the model's own token at each position of the target", "token ids"),
            "target_ids": Column("teacher_forced: the target's tokens", "token ids"),
            "nll": Column("probability: summed negative log-likelihood of `target`", "nats"),
            "other": Column("probability: the answer that `target` is compared with"),
            "nll_other": Column("probability: summed negative log-likelihood of `other`", "nats"),
            "num_tokens_other": Column("probability: length of `other`", "tokens"),
            "score": Column("score of the answer against `target`; null with a reason", SHARE),
            "agreement": Column("agreement with the pristine model's answer; null with a reason", SHARE),
            "reason": Column("why score or agreement is null"),
        },
    ),
    "capability": Table(
        "one metric of one lm-eval task or group",
        IDENTITY
        | {
            "task": Column("the lm-eval task or group"),
            "part_of": Column("the group whose score includes the task; null if it counts by itself"),
            "metric": Column("lm-eval's metric, with its filter if it has one, e.g. acc or exact_match,strict-match"),
            "main": Column("whether it is the task's headline metric, for which higher is better"),
            "value": Column("the score; of a headline metric a share"),
            "stderr": Column("standard error of `value`; null if unknown"),
            "num_samples": Column("number of items", "items"),
            "chance": Column("the score of guessing; null if unknown", SHARE),
        },
    ),
    "capability_samples": Table(
        "one lm-eval item by one metric",
        IDENTITY
        | {
            "task": Column("the lm-eval task"),
            "doc_id": Column("the item's number in the task"),
            "metric": Column("lm-eval's metric"),
            "value": Column("the item's score"),
            "target": Column("the right answer"),
            "response": Column("the model's answer"),
        },
    ),
    "perplexity": Table(
        "one text of a perplexity corpus",
        IDENTITY
        | {
            "corpus": Column("the corpus"),
            "text_id": Column("the text's number in it, from 0"),
            "nll": Column("negative log-likelihood, summed over its tokens", "nats"),
            "num_tokens": Column("length of the text", "tokens"),
        },
    ),
    "verdicts": Table(
        "what a search for the collapse concluded from one measured edit count, by one definition",
        IDENTITY
        | {
            "definition": Column("the definition of collapse, as in `collapse_definitions`"),
            "rank": Column("its place among the search's definitions, from 1"),
            "verdict": Column("good or bad; undecided where the number's interval holds the limit"),
            "likely": Column("good or bad by the number itself"),
            "z": Column("half-width of that interval, in standard errors"),
            "confidence": Column("the probability that the search's bracket holds the collapse point", SHARE),
        },
    ),
    "scans": Table(
        "one request that was the only edit of the pristine model; its `edit_count` is 1",
        IDENTITY
        | {"label": LABEL, "position": Column("place in the order of the dataset, from 1")}
        | _REQUEST
        | {
            "perplexity": Column("mean of the texts' perplexities after the edit; infinite if it is not a number"),
            "token_perplexity": Column("perplexity of all texts together, with equal weight for each token"),
            "base_perplexity": Column("`perplexity` of the pristine model"),
            "base_token_perplexity": Column("`token_perplexity` of the pristine model"),
            "ratio": Column("perplexity / base_perplexity"),
            "update_norm": Column("Frobenius norm of (edited - pristine), of all edited tensors together"),
            "learned": Column("every token of `target_new` is the edited model's own choice (teacher-forced)"),
            "seconds": Column("time for editing and measuring", "seconds"),
            "error": Column("why the method failed; the measures are null then"),
        },
    ),
    "trials": Table(
        "settings of a method at one edit count with one seed, tried by a search; only the last edit count is measured "
        "in full. `order_seed` is the seed of the order of the edits and of the editing",
        IDENTITY
        | {
            "label": LABEL,
            "study": Column("digest of what determines the search's trials: model, ranges, edits, texts and code"),
            "split": Column("validation (the edits that the search sees) or test (edits that it never sees)"),
            "trial": Column("number of the trial, from 0; null for the settings that the configuration gives"),
            "settings": Column("the settings that were searched, by dotted key", "JSON"),
            "state": Column("completed, pruned or failed; of the whole trial"),
            "objective": Column("harmonic mean of the four measures; null before the last edit count", SHARE),
            "reported": Column("what trials are pruned by: reliability, divided by a perplexity ratio above 1"),
            "reliability": Column("mean score of the edit prompts, generated protocol", SHARE),
            "reliability_n": Column("answers behind reliability", "prompts"),
            "generalization": Column("mean score of the rephrased prompts, generated protocol", SHARE),
            "generalization_n": Column("answers behind generalization", "prompts"),
            "locality": Column("mean agreement of the locality prompts with the pristine model, generated", SHARE),
            "locality_n": Column("answers behind locality", "prompts"),
            "capability": Column("mean headline score of the general benchmarks", SHARE),
            "capability_n": Column("items behind capability", "items"),
            "base_capability": Column("`capability` of the pristine model", SHARE),
            "chance": Column("mean score of guessing; 0 where it is unknown", SHARE),
            "capability_kept": Column("(capability - chance) / (base_capability - chance), cut at 0 and 1", SHARE),
            "perplexity_ratio": Column("perplexity over the pristine model's; infinite if it is not a number"),
            "seconds": Column("time for editing from the count before and measuring", "seconds"),
            "error": Column("why the trial failed; its measures are null then"),
        },
    ),
    "site_scores": Table(
        "one measure of one edit, benchmark or corpus, after edits at one site, which is the `trajectory`",
        IDENTITY
        | {"label": LABEL, "site": Column("the edited weights, e.g. 4.down_proj; null for the pristine model")}
        | {"layer": Column("the site's layer, from 0"), "part": Column("layer, attention, mlp, or a projection")}
        | {
            "split": Column("validation, by which sites are ranked, or test, other edits"),
            "measure": Column("as in `reliability_by_edit_count`; capability, perplexity, seconds or failure"),
            "protocol": Column("generated, teacher_forced or probability; null where the measure has none"),
            "item": Column("the edit's case id; the benchmark, the corpus, or what the seconds were spent on"),
        }
        | {"value": Column("the mean over the item's prompts or samples"), "n": Column("their number", "items")}
        | {"stderr": Column("capability: standard error"), "chance": Column("capability: guessing's score", SHARE)}
        | {"reason": Column("why the site has no score")},
    ),
    "costs": Table(
        "one timed stage",
        IDENTITY
        | {
            "stage": Column("edit, after, engine_start, swap, generate, score, perplexity or capability"),
            "seconds": Column("duration", "seconds"),
            "ended_at": Column("when the stage had ended; null of starts of the engine", "time, UTC"),
            "num_items": Column("edits, prompts, texts or samples handled", "items"),
            "num_bytes": Column("swap: bytes written into the engine, else null", "bytes"),
            "peak_memory_bytes": Column("peak memory of the step; null if it was not measured", "bytes"),
            "engine": Column("the engine: vllm or transformers; null for editing"),
            "verified": Column("swap: whether each rank's part of each tensor was compared with the file and is equal"),
        },
    ),
    "instances": Table(
        "one instance of a run, i.e. one execution of its configuration",
        _INSTANCE
        | {
            "started_at": Column("its start", "UTC time"),
            "ended_at": Column("its end; null while it runs", "UTC time"),
            "status": Column("running, completed, failed or stopped"),
            "error": Column("why it failed or stopped"),
            "commit": Column("git commit of the code; null outside a clone"),
            "dirty": Column("whether the clone had changes that were not committed"),
            "versions": Column("package -> version, of the packages that can change a number", "JSON"),
            "model_digest": Column("digest of the pristine model's weights"),
            "requests_digest": Column("digest of the edit requests"),
            "hardware": Column("the GPUs, or the processor and its cores, in words"),
            "host": Column("name of the machine"),
            "requested_by": Column("who asked for it, e.g. command line, or schedule of benchmark/nightly"),
            "config": Column("the whole configuration", "JSON"),
            "changes": Column('list of {"key", "before", "after"} against the previous instance', "JSON"),
            "num_computed": Column("result files that it computed", "files"),
            "num_shared": Column("result files that it took over from earlier instances", "files"),
            "baseline": Column("the instance that it was compared with; null without one"),
            "num_moved": Column("numbers that moved against the baseline", "numbers"),
            "verdict": Column("the comparison in words, e.g. 3 numbers moved"),
            "gate": Column("passed or failed; null without a gate, or if no number could be compared"),
            "flow_run_id": Column("id of Prefect's flow run; null without one"),
        },
    ),
    "instance_files": Table(
        "one result file that an instance consists of",
        _INSTANCE
        | {
            "table_name": Column("the table whose rows it holds"),
            "path": Column("its path below `history/`; while its rows are current, the name ends at the hyphen"),
            "file": Column("the name in that path"),
            "computed": Column("whether this instance computed it; otherwise it was taken over"),
        },
    ),
    "gates": Table(
        "one headline number of an instance, compared with the baseline on the same items",
        _INSTANCE
        | {"baseline": Column("the accepted instance that it is compared with; null without one")}
        | {"trajectory": IDENTITY["trajectory"], "label": LABEL}
        | {"order_seed": Column("seed of the order of the edits; null if several orders were compared together")}
        | {"edit_count": IDENTITY["edit_count"]}
        | {
            "kind": Column("outcome, capability or perplexity"),
            "measure": Column("the measure, task or corpus"),
            "protocol": Column("of an outcome: generated, teacher_forced or probability"),
            "before": Column("the number in the baseline"),
            "after": Column("the number in this instance"),
            "difference": Column("after - before; of perplexities after / before; on the items that both have"),
            "low": Column("lower bound of the paired 95 % interval of the difference"),
            "high": Column("upper bound of the paired 95 % interval of the difference"),
            "n": Column("items that both have", "items"),
            "p_value": Column("of the paired test"),
            "p_adjusted": Column("by Holm over all numbers of the instance"),
            "verdict": Column("moved, within noise or not comparable"),
            "reason": Column("why it is not comparable"),
            "limit": Column('the limit that the configuration sets, else null (in SQL: `"limit"`)'),
            "failed": Column("whether the number fails the instance's gate"),
        },
    ),
    "accepted": Table(
        "one acceptance of an instance; the newest of a run is its baseline",
        _INSTANCE
        | {"accepted_at": Column("when", "UTC time"), "accepted_by": Column("by whom"), "note": Column("why")},
    ),
}
"""Table name -> what it holds; the columns are those of `tables.py`, in their order."""
