"""Sentences that were written down in English when nobody was reading: shown in the reader's language.

The scheduler, the runner and the trainer speak while no person's language is known, so their words are kept
as they are. A page passes them through `said()`; what is not known here is shown as it was written.
"""

from __future__ import annotations

import re

from django.utils.translation import gettext, ngettext, pgettext
from django.utils.translation import gettext_noop as _

_SENTENCES = (
    # jobs/scheduling.py
    _("waiting in line behind a larger job that has waited longer"),
    _("no worker took it; trying again at %(at)s UTC"),
    _("waiting for %(what)s; your quota is %(limit)s and %(used)s in use"),
    _("waiting for %(what)s; %(free)s of %(total)s is free"),
    _("waiting for %(what)s; %(free)s of %(total)s are free"),
    # jobs/services: dispatch, outcome, replicas, workers
    _("No worker took it."),
    _("It was lost too many times and is not tried again."),
    _("The run left no usable result."),
    _("The engine ended without a result."),
    _("The engine ended with exit code %(code)s and left no message."),
    _("The processes were killed by signal %(signal)s and left no message; memory may have run out."),
    _("The tenant's budget is reached."),
    _("The model was not ready within %(n)s s."),
    _("The model worker was killed by %(signal)s."),
    _("The model worker ended with code %(code)s."),
    # jobs/services: why a canary or a shadow was ended; the reason may be one of those above
    _("Revision %(n)s was taken back by itself. %(why)s"),
    _("The shadow, revision %(n)s, was stopped. %(why)s"),
    _("%(share)s %% of its %(n)s requests failed; %(most)s %% are allowed."),
    _(
        "Its p95 was %(mine)s ms against %(theirs)s ms of the stable revision; "
        "%(n)s times as much is allowed."
    ),
    # trainer: how a run ended
    _(
        "The loss became %(loss)s at step %(step)s of %(total)s: try a smaller learning_rate than %(rate)s, "
        "or look for extreme values. The last good checkpoint: step %(good)s."
    ),
    _(
        "The loss became %(loss)s at step %(step)s of %(total)s: try a smaller learning_rate than %(rate)s, "
        "or look for extreme values. No checkpoint was written before."
    ),
    _(
        "The loss became %(loss)s at step %(step)s of %(total)s: try a smaller learning_rate than %(rate)s, "
        "or look for extreme values."
    ),
    _(
        "No step was finished for %(n)s s (waiting for %(what)s): a process or a machine hangs. "
        "Start the run again; it goes on from its last checkpoint."
    ),
    _("the first step"),
    _("the one after step %(step)s"),
    _("Another process of this run was killed or lost (%(why)s); its machine may be out of memory."),
    _(
        "Out of memory at batch_size %(size)s: set grad_accumulation to %(pieces)s, which learns the same from "
        "smaller pieces, or batch_size to %(half)s. (%(why)s)"
    ),
    _(
        "Out of memory at batch_size %(size)s: set grad_accumulation to %(pieces)s, which learns the same from "
        "smaller pieces, or batch_size to %(half)s."
    ),
    # trainer: what its log says of starts and checkpoints
    _("Started by torchrun: %(why)s."),
    _("a forked process could not use a GPU"),
    _("torch.compile needs processes of its own"),
    _("the warm parent did not come up"),
    _("the warm parent does not answer (%(why)s)"),
    _("The spec asks for %(n)s processes, %(there)s were started."),
    _("Going on from the checkpoint at step %(step)s of %(total)s."),
    _("Checkpoint %(name)s is left out: %(why)s."),
    _("%(file)s does not match its checksum"),
    _("it is not complete (%(why)s)"),
    _("it was made with another recipe, data or hyperparameters"),
    _("Stopped early at step %(step)s of %(total)s: no better for %(n)s epochs."),
    _("The best weights are those of step %(step)s."),
    _("Out of memory: lower batch_size, or ask for a machine with more memory. (%(why)s)"),
    _("Out of memory: lower batch_size, or ask for a machine with more memory."),
    _("The disk is full: free some space and start the run again. (%(why)s)"),
    _("All rows have the label %(name)s: a classifier needs at least two classes."),
    _("Only %(n)s different rows: at least %(least)s are needed to train and to test."),
    # trainer: why a row of a batch prediction has no answer, and how far it came
    _("Column %(name)s is empty."),
    _("Column %(name)s holds %(value)s, which is no number."),
    _("The model failed on this row."),
    _("%(done)s of %(rows)s rows were answered before; going on behind them."),
    _("%(done)s of %(rows)s rows were answered."),
    # trainer: the machine, the verdicts and the methods of a report
    _("%(machine)s, one thread"),
    _(
        "This model is not clearly better than always answering %(what)s, which is right for %(share)s %% of the "
        "held-out rows: look at the labels and columns, train longer, or add rows."
    ),
    _(
        "This model is not clearly better than the simplest guess (%(name)s), whose %(quality)s is %(value)s: "
        "look at the labels and columns, train longer, or add rows."
    ),
    _("commonest pair"),
    _("the mean"),
    _("most popular items"),
    _("counts of three characters"),
    _("accuracy"),
    _("both right"),
    _("code length saved"),
    _("The yardstick: the others are compared with it."),
    _("%(n)sx smaller once compressed"),
    _("%(n)sx smaller"),
    _("%(n)sx larger"),
    _("same file size"),
    _("%(n)sx faster here"),
    _("%(n)sx slower here"),
    _("as fast here"),
    _("same accuracy"),
    _("accuracy %(n)s points lower"),
    _("accuracy %(n)s points higher"),
    _("same %(quality)s"),
    _("%(quality)s %(n)s points lower"),
    _("%(quality)s %(n)s points higher"),
    _("8-bit arithmetic is %(n)sx slower here than 32-bit: no faster kernel for these layers"),
    _("more than the allowed %(n)s points, so it did not pass"),
    _("it may be %(high)s points lower on other rows and %(n)s are allowed, so it did not pass"),
    _("too slow to be chosen"),
    _("As trained, in 32-bit floating point."),
    _(
        "The smallest %(share)s %% of the weights set to zero, then one epoch of fine-tuning; "
        "%(zeros)s %% are zero now."
    ),
    _("As trained, then %(what)s."),
    _("Pruned, then %(what)s."),
    # the longest first: a whole made of parts is taken apart from its end
    _("%(before)s Then %(what)s."),
    _(
        "%(before)s Large dense layers split in two of rank %(ranks)s, "
        "then %(n)s epochs taught by the original."
    ),
    _("%(before)s Of the text table the %(kept)s of %(rows)s rows kept that say most."),
    _(
        "Hidden layers cut to %(share)s %% of their width (%(from)s to %(to)s), "
        "then %(n)s epochs taught by the original."
    ),
    _("Large dense layers split in two of rank %(ranks)s, then %(n)s epochs taught by the original."),
    _("A new network of %(share)s %% of the width (%(to)s), %(n)s epochs taught by the original."),
    _("Text table and last layer rewritten with %(n)s numbers an n-gram."),
    _("Of the text table the %(kept)s of %(rows)s rows kept that say most."),
    _("One block does the work of all %(n)s, then %(epochs)s epochs taught by the original."),
    _(
        "The text table of %(rows)s rows became the products of two of %(first)s and %(second)s rows, "
        "then %(epochs)s epochs taught by the original."
    ),
    _("8-bit integers, ranges calibrated on training rows (ONNX Runtime static QDQ)"),
    _("%(n)s-bit weights, unpacked to 32-bit floating point as the model is loaded"),
    _("8-bit integer weights, ranges of the rest found while running (ONNX Runtime dynamic)"),
)
_AMOUNT = re.compile(r"(\d+) (process|GPU)(?:e?s)?")
_COMMA = re.compile(r", (?!so )")


def _pattern(sentence: str) -> re.Pattern[str]:
    parts = re.split(r"%\((\w+)\)s", sentence.replace("%%", "%"))
    return re.compile(
        "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    )


_KNOWN = [(sentence, _pattern(sentence)) for sentence in _SENTENCES]


def said(text: object) -> str:
    """The same sentence in the language that is active now; unknown words stay as they are."""
    words = str(text or "")
    return _sentence(words) or _verdict(words) or words


def _sentence(text: str) -> str:
    if amount := _AMOUNT.fullmatch(text):
        n = int(amount[1])
        if amount[2] == "GPU":
            return ngettext("%(n)s GPU", "%(n)s GPUs", n) % {"n": n}
        return ngettext("%(n)s process", "%(n)s processes", n) % {"n": n}
    for sentence, pattern in _KNOWN:
        if found := pattern.fullmatch(text):
            return gettext(sentence) % {
                name: _sentence(part) or part for name, part in found.groupdict().items()
            }
    return ""


def _verdict(text: str) -> str:
    """Known parts with commas between them, all of them or none."""
    parts = [_sentence(part) for part in _COMMA.split(text)]
    return pgettext("between the parts of a verdict", ", ").join(parts) if all(parts) else ""
