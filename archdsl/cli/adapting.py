"""`archdsl netadapt`: a network made faster, a width at a time."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli.compiling import progress_bar
from archdsl.cli.evaluators import Chosen, evaluator_options, refusing
from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    deliver,
    device_option,
    file_argument,
    load,
    named,
    one_device,
    output_option,
    overridable,
    require_unmixed,
    within,
    writable,
)
from archdsl.cli.output import Refusal, json_text, report, say, visible, write, write_json
from archdsl.cli.table import Row, write_table

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.roofline.model import Device
    from archdsl.search.netadapt import NetAdapt, Proposal, Weights
    from archdsl.search.resuming import Kept

DEFAULT = "synflow"
_FILES = (".json", ".csv")
"""Reports that are a file and no folder."""


@click.command("netadapt")
@file_argument
@overridable
@partial(device_option, required=True, many=False)
@click.option(
    "--target-ms",
    type=float,
    callback=within(0, 1e9, above=True),
    metavar="T",
    help="The latency that is wanted.",
)
@click.option(
    "--target-ratio",
    type=float,
    callback=within(0, 1, above=True),
    metavar="R",
    help="The same as a share of the present one.",
)
@click.option(
    "--step",
    type=float,
    default=0.01,
    show_default=True,
    callback=within(1e-6, 0.99),
    metavar="R",
    help="What a step saves at least, as a share of the first latency.",
)
@click.option(
    "--max-steps", type=int, callback=within(1, 1_000_000), metavar="N", help="No more steps."
)
@evaluator_options
@click.option(
    "--fine-tune",
    "epochs",
    type=int,
    callback=within(1, 1_000_000),
    metavar="EPOCHS",
    help="Train each proposal so long, from the weights before it.",
)
@click.option(
    "--weights",
    type=click.Path(),
    metavar="W",
    help="With --fine-tune: the first network's, which is trained first otherwise.",
)
@click.option(
    "--save-weights",
    "saved",
    type=click.Path(),
    metavar="W",
    help="With --fine-tune: write the last network's.",
)
@output_option("The network that results. Without it its text is printed.")
@click.option(
    "--report",
    "reported",
    type=click.Path(),
    metavar="FOLDER|X.json|X.csv",
    help="Every step and proposal, written after each step; a folder is gone on with.",
)
@as_json
def netadapt(
    file: str,
    overrides: Overrides,
    device: str,
    target_ms: float | None,
    target_ratio: float | None,
    step: float,
    max_steps: int | None,
    chosen: Chosen,
    epochs: int | None,
    weights: str | None,
    saved: str | None,
    out: str | None,
    reported: str | None,
    json: bool,
) -> Status:
    """Make a network faster on a device, a width at a time.

    MobileNetV3's layer-wise search (arXiv:1905.02244, section 4.2): at each step every expansion,
    and every bottleneck in all blocks that share it, is shrunk by the least that saves --step of
    the first latency; each such network is evaluated, and the one with the greatest change of
    accuracy for its change of latency is kept. The default evaluator is `synflow`, which ranks
    networks without training.

    \b
    Examples:
      archdsl netadapt mnv3_large --device pixel6-cpu-int8 --target-ratio 0.8 -o faster.arch
      archdsl netadapt net.arch --device board.toml --target-ms 5 --evaluator train \\
        --set data=photos --fine-tune 1 --report steps
    """
    if (target_ms is None) == (target_ratio is None):
        raise click.UsageError("give either --target-ms or --target-ratio")
    if chosen.evaluator is None and chosen.program is None:
        chosen = replace(chosen, evaluator=DEFAULT)
    _check_tuning(chosen, epochs, weights, saved)
    target = one_device(device)
    if target.relative:
        raise Refusal(f"--device: {target.name} has a ridge point and no times")
    outputs = {"-o": out, "--save-weights": saved, "--report": reported}
    given = [path for path in outputs.values() if path is not None and path != "-"]
    if len({str(Path(path).absolute()) for path in given}) < len(given):
        raise click.UsageError(f"{', '.join(outputs)} must differ")
    if out is not None:
        writable(out, file, weights, json=json)
    if saved is not None:
        writable(saved, file, weights)
    if reported is not None:
        _reportable(reported, file, weights)
    arch = load(file, overrides)
    _warn(arch, target)
    now = arch.latency(target).us
    assert now is not None
    wanted = target_ms * 1e3 if target_ms is not None else (target_ratio or 1) * now
    from archdsl.search.netadapt import NetAdapt
    from archdsl.search.storages import Busy

    workers = None
    evaluator: Any
    if epochs is None:
        evaluator = workers = chosen.start()
    else:
        evaluator = chosen.resolve()
        if not hasattr(evaluator, "fine_tune"):
            raise Refusal(f"--fine-tune: {chosen.evaluator} cannot train on from given weights")
    run = NetAdapt(arch, target, wanted, evaluator, step, max_steps, epochs=epochs or 0)
    if weights is not None:
        run.weights = _weights(weights, run)
    if run.least_us > wanted:
        # Before hours of training are spent on it; going on may still be what is wanted.
        say(
            f"{wanted / 1e3:,.4f} ms are out of reach: with all widths at their least "
            f"{arch.name} takes {run.least_us / 1e3:,.4f} ms; going on as far as it goes"
        )
    kept = None
    try:
        kept = _kept(reported, run, chosen, weights)
        with refusing(), progress_bar("step 1") as bar:
            run.progress = bar
            for _ in run:
                _write_report(reported, run, chosen)
    except KeyboardInterrupt:
        # What was found took its time: it is given, and then the program ends as it should.
        again = "; the same command goes on" if kept is not None else ""
        say(f"interrupted after {run.taken}{again}")
        if run.steps:
            _result(run, chosen, out, saved, reported, json)
        raise
    except Busy as failure:
        raise Refusal(visible(str(failure))) from None
    finally:
        if workers is not None:
            workers.close()
        if kept is not None:
            kept.close()
    return _result(run, chosen, out, saved, reported, json)


def _check_tuning(
    chosen: Chosen, epochs: int | None, weights: str | None, saved: str | None
) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: as said.
    """
    if epochs is None:
        for option, value in (("--weights", weights), ("--save-weights", saved)):
            if value is not None:
                raise click.UsageError(f"{option} goes with --fine-tune")
        return
    if chosen.program is not None:
        raise click.UsageError("--fine-tune is for --evaluator: a program takes no weights")
    if chosen.workers > 1 or chosen.timeout is not None:
        raise click.UsageError("--fine-tune trains one after the other, in this process")
    if saved == "-":
        raise click.UsageError("--save-weights: name a file")


def _weights(path: str, run: NetAdapt) -> Weights:
    """What the seed has learned.

    Raises:
        OSError, ArchError: it cannot be read, or is not the network's.
        Refusal: the evaluator cannot train this network.
    """
    from archdsl.search.outcomes import Failed
    from archdsl.weights.store import load_weights

    try:
        return load_weights(path, run.fitted(run.seed).graph())
    except Failed as failure:
        raise Refusal(visible(str(failure))) from None


def _kept(path: str | None, run: NetAdapt, chosen: Chosen, weights: str | None) -> Kept | None:
    """What the run has in the folder of its report, where that is one.

    Raises:
        ArchError: E1017, it is another run's.
        Busy: another process is at work on it.
        OSError: it cannot be read.
    """
    from archdsl.weights.store import digest

    if path is None or Path(path).suffix in _FILES:
        return None
    begun = None if weights is None else digest(run.weights or {})
    kept = run.keep(path, evaluator=chosen.title, weights=begun)
    if kept.known:
        count = len(kept.known)
        said = "evaluations are" if count > 1 else "evaluation is"
        say(f"going on with {visible(path)}: {count} {said} known")
    return kept


def _warn(arch: Arch, device: Device) -> None:
    from archdsl.roofline.extrapolation import extrapolations

    report(extrapolations(arch.name, arch.work, device, arch.latency(device)))


# ------------------------------------------------------------------------------------- results


def _result(
    run: NetAdapt,
    chosen: Chosen,
    out: str | None,
    saved: str | None,
    reported: str | None,
    json: bool,
) -> Status:
    """Print and write what came of it."""
    _write_report(reported, run, chosen)
    if json:
        write_json({"evaluator": chosen.title, **run.to_json()})
    elif out != "-":
        _print(run, chosen)
        if out is None and run.steps:
            write(f"\n{run.text()}")
    for line in run.lost:
        say(f"dropped: {visible(line)}")
    say(_ending(run))
    report(run.problems)
    if out is not None and (run.steps or run.end == "nothing to do"):
        deliver(out, run.text().encode())
        if out != "-":
            say(f"wrote {visible(out)}")
    if saved is not None and run.weights is not None:
        from archdsl.weights.store import save_weights

        with named(saved):
            save_weights(saved, run.weights)
        say(f"wrote {visible(saved)}")
    return 1 if run.problems else 0


def _ending(run: NetAdapt) -> str:
    now, wanted = f"{run.latency_us / 1e3:,.4f} ms", f"{run.target_us / 1e3:,.4f} ms"
    if run.end == "nothing to do":
        return f"nothing to do: {run.seed.name} takes {now}, and {wanted} are wanted"
    what = "reached" if run.end == "reached" else "not reached"
    return f"{wanted} {what}: {now} after {run.taken}"


def _print(run: NetAdapt, chosen: Chosen) -> None:
    device = run.device
    write(
        f"{run.seed.name} on {device.name} ({device.mode}): {run.seed_us / 1e3:,.4f} ms, wanted "
        f"{run.target_us / 1e3:,.4f} ms\n"
        f"accuracy by {visible(chosen.title)}; a step saves at least {run.delta_us / 1e3:.4g} ms\n"
    )
    if not run.steps:
        return
    write("\n")
    write_table(*steps_table(run))
    write("\n")
    write_table(*sections_table(run))


def steps_table(run: NetAdapt) -> tuple[tuple[str, ...], list[Row]]:
    """The titles and rows of a table of all steps."""
    head = (
        *("step", "what", "blocks", ">channels", ">ms", ">share"),
        *(">accuracy", ">change/ms", ">MACs", ">of"),
    )
    rows: list[Row] = [
        (
            "",
            "",
            run.seed.name,
            "",
            *_figures(run.seed_us, 1, run.seed_accuracy, None, _macs(run)),
            "",
        )
    ]
    for step in run.steps:
        kept = step.kept
        figures = (kept.latency_us, kept.latency_us / run.seed_us, kept.evaluation.accuracy)
        rows.append(
            (
                *(str(step.number), kept.kind, short(kept.place)),
                f"{kept.before} -> {kept.after}",
                *_figures(*figures, kept.ratio, kept.macs),
                str(len(step.proposals)),
            )
        )
    return head, rows


def _macs(run: NetAdapt) -> int:
    total = run.first.totals
    return total.macs_conv_linear + total.macs_attention


def _figures(
    us: float, share: float, accuracy: float | None, ratio: float | None, macs: int
) -> tuple[str, ...]:
    shown = "" if accuracy is None else f"{accuracy:#.6g}"
    change = "" if ratio is None else f"{ratio * 1e3:.3g}"
    return f"{us / 1e3:,.4f}", f"{share:.3f}", shown, change, f"{macs / 1e6:,.1f} M"


def short(place: str) -> str:
    """Blocks without what all places begin with."""
    return place.replace("stages.", "")


def sections_table(run: NetAdapt) -> tuple[tuple[str, ...], list[Row], Row]:
    """The titles, rows and last row of a table of what each section had and has."""
    rows: list[Row] = []
    sums = [0.0] * 6
    for name, before, after in run.sections():
        both = (before[0], after[0], before[1], after[1], before[2], after[2])
        sums = [total + value for total, value in zip(sums, both, strict=True)]
        rows.append((name, *_compared(both)))
    head = ("section", ">parameters", ">left", ">MACs", ">left", ">ms", ">left")
    return head, rows, ("all", *_compared(sums))


def _compared(both: Any) -> tuple[str, ...]:
    params, fewer_params, macs, fewer_macs, us, fewer_us = both
    return (
        *(f"{int(params):,}", _left(fewer_params, params)),
        *(f"{macs / 1e6:,.1f} M", _left(fewer_macs, macs)),
        *(f"{us / 1e3:,.4f}", _left(fewer_us, us)),
    )


def _left(after: float, before: float) -> str:
    return f"{after / before * 100:.1f} %" if before else ""


# ------------------------------------------------------------------------------------- reports


def _reportable(path: str, file: str, weights: str | None) -> None:
    """Refuse a report that could not be written.

    Raises:
        Refusal: it has no folder, is a file that is read, or a folder of another command's.
    """
    if path == "-":
        raise Refusal("--report -: name a folder or a file; --json prints it")
    if Path(path).suffix in _FILES:
        writable(path, file, weights)
        return
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"--report {path}: is neither a folder, nor a .json or .csv file")
    if not folder.parent.is_dir():
        raise Refusal(f"--report {path}: there is no folder {folder.parent}")
    require_unmixed(folder, "netadapt", "--report")


def _write_report(path: str | None, run: NetAdapt, chosen: Chosen) -> None:
    if path is None:
        return
    from archdsl.files import write_together

    def record() -> bytes:
        return (json_text({"evaluator": chosen.title, **run.to_json()}) + "\n").encode()

    suffix = Path(path).suffix
    with named(path):
        if suffix == ".json":
            write_together({path: record()})
        elif suffix == ".csv":
            write_together({path: proposals_csv(run).encode()})
        else:
            folder = Path(path)
            folder.mkdir(exist_ok=True)
            write_together(
                {
                    folder / "report.json": record(),
                    folder / "proposals.csv": proposals_csv(run).encode(),
                    folder / "network.arch": run.text().encode(),
                }
            )


_COLUMNS = (
    *("step", "kept", "kind", "place", "before", "after", "latency_us", "saved_us"),
    *("params", "macs", "accuracy", "change", "ratio", "fault", "hash"),
)


def proposals_csv(run: NetAdapt) -> str:
    """A line for the seed, as step 0, and one for each proposal of each step."""
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(_COLUMNS)
    seed = (0, 1, "seed", run.seed.name, None, None, run.seed_us, None)
    counts = (run.first.totals.params, _macs(run), run.seed_accuracy)
    lines.writerow((*seed, *counts, None, None, None, run.first.hash))
    for step in run.steps:
        for index, one in enumerate(step.proposals):
            lines.writerow(
                (
                    *(step.number, int(index == step.index), one.kind, one.place),
                    *(one.before, one.after, one.latency_us, step.latency_us - one.latency_us),
                    *(one.params, one.macs, *_judged(one, step.accuracy)),
                    *(one.evaluation.fault, one.network.hash),
                )
            )
    return table.getvalue()


def _judged(one: Proposal, before: float) -> tuple[Any, ...]:
    accuracy = one.evaluation.accuracy
    return (accuracy, None if accuracy is None else accuracy - before, one.ratio)
