"""`watch`: measure every checkpoint of a training as it appears, and stop the training when a rise is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from undersong.audits.gate.findings import FAILED, INCONCLUSIVE, OUTCOME_WORDS
from undersong.audits.gate.rises import RiseLimits
from undersong.audits.watch.checkpoints import (
    TrainerCheckpoint,
    file_signature,
    list_checkpoints,
    missing_part,
    run_of,
)
from undersong.audits.watch.evaluator import CheckpointEvaluator, prompts_text
from undersong.audits.watch.journal import BASE, Journal, Measurement, check_journal
from undersong.audits.watch.limits import CheckpointTest, compare_with_base
from undersong.audits.watch.options import RESULTS_FOLDER, WatchOptions
from undersong.audits.watch.output import (
    TENSORBOARD_INSTALL,
    TensorBoardWriter,
    checkpoint_line,
    is_tensorboard_installed,
    rate_values,
    rise_values,
    stop_reason,
    undecided_lines,
)
from undersong.evaluation.refusal_margin import complete_margins
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.stages.output_folder import locked_output_folder, report_kept_work
from undersong.store.atomic import write_atomic
from undersong.types import Reply, UndersongError, Verdict

DEFAULT_WATCH = WatchOptions()
Say = Callable[[str], None]
Wait = Callable[[bool], bool]  # (did the last look bring something new?) -> look again?


@dataclass(frozen=True)
class WatchOutcome:
    """Tests of the measured checkpoints of one run in the order of their steps, and what could not be measured."""

    tests: list[CheckpointTest]
    unmeasured: list[str]
    stop_file: Path | None = None

    @property
    def exit_code(self) -> int:
        """Code of `gate`: 1 if any checkpoint shows a rise, 0 if the last one would pass it, else 3."""
        if any(test.outcome == FAILED for test in self.tests):
            return FAILED
        return INCONCLUSIVE if self.unmeasured or not self.tests else self.tests[-1].outcome


@dataclass
class CheckpointWatcher:
    """The state of one watch: what was seen, what was measured, and what is wrong with the rest."""

    output: Path
    options: WatchOptions
    limits: RiseLimits
    evaluator: CheckpointEvaluator
    journal: Journal
    say: Say
    writer: TensorBoardWriter | None = None
    run: str | None = None  # whose checkpoints are tested
    tests: dict[str, CheckpointTest] = field(default_factory=dict)
    _seen: dict[str, str] = field(default_factory=dict)  # name -> signature at the last look
    _problems: dict[str, str] = field(default_factory=dict)  # name -> why it is not measured yet
    _refused: dict[str, str] = field(default_factory=dict)  # name -> signature with which it could not be measured

    def _begin_run(self, run: str) -> None:
        """Measure the base if that was not done, and test what was measured of this run before."""
        if self.run is not None:
            self.say(f"A newer run has begun: {run}; going on with it.")
        for name in self.journal.lost if self.run is None else ():
            self.say(f"{name}: its verdicts cannot be read any more; it is measured again if it is still there.")
        if BASE not in self.journal.measurements:
            self._record(None, "", self.evaluator.reply(None))
        elif self.options.max_margin_loss is not None:
            _check_margins(self.journal.measurements[BASE].verdicts)
        self.run = run
        for state in (self.tests, self._seen, self._problems, self._refused):
            state.clear()
        measured = self.journal.of_run(run)
        for measurement in measured:
            self._test(measurement)
        if self.writer is not None:
            self.writer.begin_run(run)
            for measurement in (self.journal.measurements[BASE], *measured):
                self.writer.write(measurement.step, measurement.values)
        if self.tests:
            self.say(f"Measured before: {', '.join(self.tests)}; {self.journal.file} has the numbers.")

    def look(self, settled: bool) -> bool:
        """Measure all checkpoints that are new and complete; True if there was anything new.

        Args:
            settled: Take a complete checkpoint at once, and not only once its files are the same at two looks.
        """
        news = False
        checkpoints = list_checkpoints(self.output)
        names = {checkpoint.name for checkpoint in checkpoints}
        if checkpoints and (run := run_of(checkpoints[0].name)) != self.run:
            self._begin_run(run)
        for name in [name for name in self._problems if name not in names]:
            self._forget(name)
        for checkpoint in checkpoints:
            if self.stopping is not None:
                break
            if not checkpoint.path.is_dir():  # deleted while an earlier one was measured
                self._forget(checkpoint.name)
                continue
            signature = file_signature(checkpoint.path)
            measured = self.journal.measurements.get(checkpoint.name)
            if (measured is not None and measured.files == signature) or self._refused.get(
                checkpoint.name
            ) == signature:
                continue
            is_stable = settled or self._seen.get(checkpoint.name) == signature
            news = news or self._seen.get(checkpoint.name) != signature
            self._seen[checkpoint.name] = signature
            if reason := missing_part(checkpoint.path):
                self._report(checkpoint.name, f"not complete yet ({reason})")
            elif not is_stable:
                self._problems.setdefault(checkpoint.name, "new")
            else:
                self._measure_checkpoint(checkpoint, signature)
                news = True
        return news

    @property
    def stopping(self) -> CheckpointTest | None:
        """The first checkpoint that shows a rise above its limit; None if none does."""
        return next((test for test in self.tests.values() if test.outcome == FAILED), None)

    @property
    def last_step(self) -> int:
        """The largest step that is measured."""
        return max((measurement.step for measurement in self.journal.of_run(self.run or "")), default=0)

    def outcome(self) -> WatchOutcome:
        """Outcome of the watch; writes the stop file if a rise is shown, and says why the watch is undecided."""
        tests = [self.tests[measurement.name] for measurement in self.journal.of_run(self.run or "")]
        outcome = WatchOutcome(tests, sorted(self._problems), self._write_stop_file())
        if outcome.exit_code == INCONCLUSIVE:
            for line in undecided_lines(tests[-1] if tests else None, outcome.unmeasured):
                self.say(line)
        return outcome

    def _measure_checkpoint(self, checkpoint: TrainerCheckpoint, signature: str) -> None:
        try:
            replies = self.evaluator.reply(checkpoint)
        except (UndersongError, OSError) as error:
            self._explain_failure(checkpoint, signature, error)
            return
        if (now := file_signature(checkpoint.path)) not in (signature, ""):
            self._seen[checkpoint.name] = now
            self._report(checkpoint.name, "changed while it was measured, so this measurement does not count")
            return
        self._record(checkpoint, signature, replies)

    def _explain_failure(self, checkpoint: TrainerCheckpoint, signature: str, error: Exception) -> None:
        now = file_signature(checkpoint.path)
        if not now:
            self._forget(checkpoint.name)
        elif now != signature:
            self._seen[checkpoint.name] = now
            self._report(checkpoint.name, "changed while it was read; it is tried again")
        else:
            self._refused[checkpoint.name] = signature
            self._report(checkpoint.name, f"not measured: {error}")

    def _record(self, checkpoint: TrainerCheckpoint | None, signature: str, replies: Sequence[Reply]) -> None:
        """Judge replies, test them against the base's, and write and print the result; None: the base."""
        verdicts = self.evaluator.judge(replies)
        if checkpoint is None and self.options.max_margin_loss is not None:
            _check_margins(verdicts)
        prompts = self.evaluator.prompts.all_prompts
        values = rate_values(prompts, replies, verdicts)
        name, step, look = (
            (BASE, 0, 0)
            if checkpoint is None
            else (checkpoint.name, checkpoint.step, self.journal.next_look(checkpoint.name))
        )
        measurement = Measurement(name, step, look, signature, values, verdicts)
        notes: dict[str, object] = {"judge": self.evaluator.judge_name, "modality": self.evaluator.modality}
        if checkpoint is not None:
            test = self._test(measurement)
            values |= rise_values(test)
            notes["outcome"] = OUTCOME_WORDS[test.outcome]
        self.journal.write(measurement, replies, prompts, notes)
        self._problems.pop(name, None)
        if self.writer is not None and checkpoint is not None:
            self.writer.write(step, values)
        self.say(checkpoint_line(name, values, self._rates_so_far()))

    def _test(self, measurement: Measurement) -> CheckpointTest:
        base = self.journal.measurements[BASE].verdicts
        test = compare_with_base(measurement.name, measurement.look, base, measurement.verdicts, self.limits)
        self.tests[measurement.name] = test
        return test

    def _rates_so_far(self) -> list[float | None]:
        ordered = [self.journal.measurements[BASE], *self.journal.of_run(self.run or "")]
        return [one.values.get("jsr", one.values.get("non_refusal_rate")) for one in ordered]

    def _write_stop_file(self) -> Path | None:
        """Write the reason to stop beside the checkpoint that shows it; None if none does."""
        if (test := self.stopping) is None:
            return None
        folder = (self.output / test.name).parent
        file = (folder if folder.is_dir() else self.output) / self.options.stop_file
        reason = stop_reason(test)
        advice = f"To train on, remove this file and watch with a higher limit; {self.journal.folder} has the verdicts."
        write_atomic(file, f"{reason}\n{advice}\n".encode())
        self.say(f"STOP: {reason}")
        return file

    def _report(self, name: str, problem: str) -> None:
        if self._problems.get(name) != problem:
            self.say(f"{name}: {problem}")
        self._problems[name] = problem

    def _forget(self, name: str) -> None:
        if name not in self.journal.measurements:
            self.say(f"{name}: deleted before it was measured; going on without it")
        for state in (self._problems, self._seen, self._refused):
            state.pop(name, None)


def watch_output(
    output: str | Path,
    model: str,
    options: WatchOptions = DEFAULT_WATCH,
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
    *,
    say: Say = print,
    wait: Wait | None = None,
    until: int | None = None,
) -> WatchOutcome:
    """Measure the checkpoints of a training, and write a stop file when a rise above a limit is shown.

    Nothing is written into the trainer's folder before its first checkpoint is there, because some trainers refuse to
    start in a folder that is not empty.

    Args:
        output: Output folder of the trainer.
        model: Reference of the base that is trained.
        options: Prompts, judge and limits.
        loading: Device and number format of the models.
        say: Receives the lines.
        wait: Waits before the next look, and returns False to end the watch. None: look once.
        until: End once this step is measured.

    Raises:
        UndersongError: There is no checkpoint to look at, a prompt cannot be used, or the results folder is of another
            watch.
    """
    output = Path(output)
    once = wait is None
    evaluator = CheckpointEvaluator(model, options, loading)
    limits = RiseLimits(
        options.max_jsr_rise, options.max_over_refusal_rise, options.confidence, options.max_margin_loss
    )
    folder = options.out if options.out is not None else output / RESULTS_FOLDER
    check_journal(folder, evaluator.key)  # before prompts are read, and before the wait for a checkpoint
    writer = _tensorboard_writer(folder, options.tensorboard, say)
    say(_describe(evaluator, options))
    if not list_checkpoints(output):
        if wait is None and not output.is_dir():
            raise UndersongError(f"There is no folder {output}; give the output folder of a trainer.")
        if wait is None:
            raise UndersongError(f"{output} holds no checkpoint-*; give the output folder of a trainer.")
        say(f"Waiting for the first checkpoint in {output}.")
        while not list_checkpoints(output):
            if not wait(False):
                say(*undecided_lines(None, ()))
                return WatchOutcome([], [])
    with locked_output_folder(folder):
        journal = Journal(folder, evaluator.key)
        watcher = CheckpointWatcher(output, options, limits, evaluator, journal, say, writer)
        clause = f"{journal.file} keeps what is measured, and the same command goes on from it"
        with report_kept_work(lambda: clause if journal.measurements else None):
            try:
                while True:
                    news = watcher.look(settled=once)
                    is_done = watcher.stopping is not None or (until is not None and watcher.last_step >= until)
                    if is_done or wait is None or not wait(news):
                        return watcher.outcome()
            finally:
                if writer is not None:
                    writer.close()


def _check_margins(verdicts: Sequence[Verdict]) -> None:
    """Check that every harmful prompt has a refusal margin, without which no loss is ever shown."""
    complete_margins([verdict.refusal_margin for verdict in verdicts if verdict.harmful], "--max-margin-loss")


def _tensorboard_writer(folder: Path, requested: bool | None, say: Say) -> TensorBoardWriter | None:
    if requested is None and not is_tensorboard_installed():
        say(f"No TensorBoard events are written; for them, {TENSORBOARD_INSTALL}.")
        return None
    return None if requested is False else TensorBoardWriter(folder / "tensorboard")


def _describe(evaluator: CheckpointEvaluator, options: WatchOptions) -> str:
    """Say what is asked, who judges, and what stops the training."""
    limits = [] if options.max_jsr_rise >= 1 else [f"the JSR rises by more than {100 * options.max_jsr_rise:g} points"]
    if options.max_over_refusal_rise is not None:
        limits.append(f"over-refusal rises by more than {100 * options.max_over_refusal_rise:g} points")
    if options.max_margin_loss is not None:
        limits.append(f"the refusal margin falls by more than {options.max_margin_loss:g} nats")
    stop = "nothing stops the training"
    if limits:
        stop = (
            f"{options.stop_file} is written once it is shown, at {options.confidence:.0%} over all checkpoints "
            f"together, that {' or '.join(limits)}"
        )
    return (
        f"{prompts_text(evaluator.prompts, evaluator.modality, evaluator.voice)}, judge {evaluator.judge_name}; {stop}."
    )
